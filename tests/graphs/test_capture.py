"""Captures with a stand-in for the graph: what is captured when, and what is refused, with the reason."""

from __future__ import annotations

import copy
import random
from types import SimpleNamespace

import pytest
import torch
from helpers.compare import assert_identical
from torch.utils._pytree import tree_flatten
from wgan import Wgan, batches, captures, replaying, run

from fastgan.errors import UserError
from fastgan.graphs.capture import Captures

OPTIONS = {
    "plain": dict,
    "three critic steps": lambda: dict(n_critic=3),
    "clipped": lambda: dict(clip_norm=0.05),
    "scaled": lambda: dict(scaler=torch.amp.GradScaler("cpu", init_scale=2.0**8)),  # which changes no bit
}


@pytest.mark.parametrize("name", OPTIONS)
def test_warm_up_and_replays_are_one_training(gan, stand_in, name):
    """Of a step with a gradient penalty; captured is all of it, whatever the options."""
    options = OPTIONS[name]()
    count, clip_norm = options.get("n_critic", 1), options.get("clip_norm")
    theirs, data = Wgan(fused=True), batches(6 * count)
    calls = [data[i : i + count] for i in range(0, len(data), count)]
    found = captures(gan, stand_in, scaled="scaler" in options, **options)
    torch.manual_seed(7)
    wanted = [theirs.by_hand(rows, clip_norm) for rows in calls]
    torch.manual_seed(7)
    got = [run(found, *rows) for rows in calls]
    assert [(m["d_loss"], m["g_loss"]) for m in got] == wanted
    assert_identical(gan.tensors(), theirs.tensors())
    (graph,) = stand_in.graphs
    assert stand_in.eager == 2 and graph.replays == 4


def test_metrics_are_not_overwritten_by_later_replays(gan, stand_in):
    found, data = captures(gan, stand_in, warmup=1), batches(3)
    kept = [found.run(*tree_flatten([rows]))[0] for rows in data]
    values = [metrics.tolist() for metrics in kept]
    run(found, data[0])
    assert [metrics.tolist() for metrics in kept] == values and values[1] != values[2]


def test_every_shape_has_its_warm_up_and_graph(gan, stand_in):
    found, large, small = captures(gan, stand_in), batches(4), batches(4, rows=3)
    for one, other in zip(large, small, strict=True):
        run(found, one)
        run(found, other)
    assert [graph.replays for graph in stand_in.graphs] == [2, 2] and stand_in.eager == 4
    assert found.memory == 200


def test_batches_are_copied_into_static_inputs(gan, stand_in):
    seen = []

    def iterate(inputs, spec):
        seen.append((inputs[0], inputs[0].clone()))
        return torch.zeros(1), ["d_loss"]

    found, data = captures(gan, stand_in, iterate=iterate), batches(4)
    for rows in data:
        run(found, rows)
    assert len({id(static) for static, _ in seen}) == 1
    eager, replayed = [s for _, s in seen[:2]], [s for _, s in seen[3:]]  # the third call is the capture
    assert all(torch.equal(a, b) for a, b in zip(eager + replayed, data, strict=True))


def test_steps_may_mark_the_batch_and_batches_may_have_a_history(gan, stand_in):
    """As R1 and an encoder in front of the discriminator do; the static inputs stay leaves all the same."""
    gan.d_step = gan.r1_step
    found, data = captures(gan, stand_in), batches(5)
    for rows in data:
        run(found, (2 * rows.requires_grad_()))
    (shape,) = found._shapes.values()
    assert stand_in.graphs[0].replays == 3
    assert all(static.is_leaf and not static.requires_grad for static in shape.inputs)


def test_capturable_turned_off_at_construction_is_refused(gan, stand_in):
    found, rows = replaying(gan, stand_in)
    loaded = copy.deepcopy(gan.d_optimizer.state_dict())
    loaded["param_groups"][0]["capturable"] = False
    gan.d_optimizer.load_state_dict(loaded)
    with pytest.raises(UserError, match=r"d_optimizer: got Adam\(capturable=False\)"):
        run(found, rows)


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1), random.random, lambda: __import__("numpy").random.rand()]
)
def test_random_numbers_of_the_host_are_refused(gan, stand_in, draw):
    found, (rows,) = captures(gan, stand_in, warmup=1), batches(1)
    run(found, rows)
    inner = found._iterate

    def with_draw(inputs, spec):
        result = inner(inputs, spec)
        draw()
        return result

    found._iterate = with_draw
    with pytest.raises(UserError, match="random numbers drawn on the host"):
        run(found, rows)


def test_the_line_that_draws_on_the_host_is_named(gan, stand_in):
    d_step = gan.d_step
    gan.d_step = lambda rows: d_step(rows)["loss"] * random.random()  # here
    found, (rows,) = captures(gan, stand_in, warmup=1), batches(1)
    run(found, rows)
    with pytest.raises(UserError, match=r"\(random\), which every replay.*\n.*test_capture.py.*# here"):
        run(found, rows)


class Counting(torch.optim.SGD):
    """Steps whose number stands in Python: in the state, as in many a tutorial's Adam, or elsewhere."""

    place = "state"

    def step(self):
        super().step()
        (group,) = self.param_groups
        values = {
            "state": self.state[group["params"][0]],
            "state by name": self.state,
            "state in a dict by name": self.state["all"] if "dict" in self.place else None,
            "attribute": vars(self),
        }.get(self.place, group)
        values["steps"] = values.get("steps", 0) + 1


@pytest.mark.parametrize(
    "place", ["state", "state by name", "state in a dict by name", "attribute", "group's"]
)
def test_optimizers_that_count_on_the_host_are_refused(gan, stand_in, place):
    gan.d_optimizer, stand_in.tensors = Counting(gan.d.parameters(), lr=0.1), dict
    gan.d_optimizer.place = place
    found, (rows,) = captures(gan, stand_in, warmup=1), batches(1)
    del gan.d_optimizer.param_groups[0]["capturable"]
    run(found, rows)
    where = place.partition(" ")[0]
    with pytest.raises(UserError, match=rf"d_optimizer: {where} 'steps'.*: got a number that Counting.step"):
        run(found, rows)


def test_a_tensor_of_ones_own_by_name_in_the_state_is_taken(gan, stand_in):
    """And, like parameters' state, where it lies: replaced by another, it is captured anew."""
    gan.d_optimizer.state["steps"] = torch.zeros(())
    gan.d_optimizer.register_step_post_hook(lambda o, *_: o.state["steps"].add_(1))
    tensors = dict(steps=gan.d_optimizer.state["steps"])
    stand_in.tensors = lambda: tensors
    found, (rows,) = captures(gan, stand_in), batches(1)
    for _ in range(4):
        run(found, rows)
    assert gan.d_optimizer.state["steps"] == 4 and stand_in.graphs[0].replays == 2
    gan.d_optimizer.state["steps"] = torch.zeros(())
    run(found, rows)
    assert stand_in.graphs[0].replays == 2


def test_state_that_is_made_in_the_capture_is_refused(gan, stand_in):
    """Of a parameter that no warm-up call has used: each replay would begin with moments of zero."""
    late = torch.nn.Parameter(torch.zeros(()))
    gan.d_optimizer.add_param_group({"params": [late]})
    d_step, stand_in.tensors = gan.d_step, dict
    gan.d_step = lambda rows: d_step(rows)["loss"] + (late if stand_in._capturing else 0)
    gan.d_optimizer.param_groups[1]["capturable"] = True
    found, (rows,) = captures(gan, stand_in), batches(1)
    for _ in range(2):
        run(found, rows)
    with pytest.raises(UserError, match="state that d_optimizer makes anew"):
        run(found, rows)


def test_what_waits_for_the_device_is_refused_before_the_capture(gan, stand_in):
    def iterate(inputs, spec):
        if inputs[0].sum() > 1e9:
            raise AssertionError
        return torch.zeros(1), ["d_loss"]

    found, (rows,) = captures(gan, stand_in, iterate=iterate), batches(1)
    run(found, rows)
    with pytest.raises(UserError) as error:
        run(found, rows)
    assert "test_capture.py" in str(error.value) and "if inputs[0].sum() > 1e9:" in str(error.value)
    assert "capture=False" in str(error.value) and not stand_in.graphs


@pytest.mark.parametrize("by_name", [False, True])
def test_state_elsewhere_is_refused(gan, stand_in, by_name):
    found, (rows,) = captures(gan, stand_in, warmup=1), batches(1)
    run(found, rows)
    state = gan.d_optimizer.state
    (state if by_name else state[gan.d[0].weight])["step"] = torch.empty((), device="meta")
    with pytest.raises(UserError, match="d_optimizer: state 'step': got a tensor on meta; wanted one on cpu"):
        run(found, rows)


@pytest.mark.parametrize(
    ("make", "scaled", "message"),
    [
        (lambda p: torch.optim.Adam(p), False, r"d_optimizer: got Adam\(capturable=False\).*capturable=True"),
        (lambda p: torch.optim.Adagrad(p), False, "d_optimizer: got Adagrad"),
        (lambda p: torch.optim.SGD(p, lr=1.0), True, "d_optimizer with scaler: got SGD without fused=True"),
        (
            lambda p: torch.optim.SGD(p, lr=torch.tensor(1.0)),
            False,
            r"d_optimizer: lr: got a tensor, .* wanted SGD\(..., fused=True\). .*recapture",
        ),
        (
            lambda p: torch.optim.RMSprop(p, lr=torch.tensor(1.0), capturable=True, foreach=False),
            False,
            r"d_optimizer: lr: got a tensor, .* wanted RMSprop\(..., foreach=True\)",
        ),
    ],
)
def test_optimizers_that_cannot_be_captured(gan, stand_in, make, scaled, message):
    gan.d_optimizer = make(gan.d.parameters())
    with pytest.raises(UserError, match=message):
        Captures(None, torch.device("cpu"), {"d_optimizer": gan.d_optimizer}, scaled, (), 1)


def test_options_on_another_device(gan, stand_in):
    gan.g_optimizer.param_groups[0]["lr"] = torch.empty((), device="meta")
    with pytest.raises(
        UserError, match=r"g_optimizer: lr: got a tensor on meta; wanted a number, or .* on cpu"
    ):
        captures(gan, stand_in)


def test_generators_of_the_host_are_refused(gan, stand_in):
    with pytest.raises(UserError, match="generators: got one on cpu, which a graph cannot advance"):
        captures(gan, stand_in, generators=[torch.Generator()])


def test_generators_of_the_device_are_registered_with_each_graph(gan, stand_in):
    generator = SimpleNamespace(device=torch.device("cuda"))
    found = captures(gan, stand_in, warmup=1, generators=[generator])
    for rows in (*batches(2), *batches(2, rows=3)):
        run(found, rows)
    assert [graph.generators for graph in stand_in.graphs] == [[generator]] * 2
