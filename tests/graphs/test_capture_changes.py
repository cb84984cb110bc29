"""What changes after a capture, with a stand-in for the graph: options and rates, state, what is frozen."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from helpers.compare import assert_identical
from helpers.graph_stand_in import StandIn
from wgan import Wgan, batches, captures, replaying, run

from fastgan.errors import UserError
from fastgan.graphs import Audit, optimizers


def test_a_changed_learning_rate_is_refused_and_a_tensor_is_not(gan, stand_in):
    found, rows = replaying(gan, stand_in)
    gan.g_optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(UserError, match=r"g_optimizer: lr: got a new value.*lr=torch.tensor\(..., device"):
        run(found, rows)


@pytest.mark.parametrize("new", [lambda: torch.tensor(0.5), lambda: 0.5])
def test_a_tensor_rate_that_is_replaced_is_refused(gan, stand_in, new):
    gan.g_optimizer.param_groups[0]["lr"] = torch.tensor(1e-3)
    found, rows = replaying(gan, stand_in)
    gan.g_optimizer.param_groups[0]["lr"].fill_(0.2)
    run(found, rows)
    gan.g_optimizer.param_groups[0]["lr"] = new()
    with pytest.raises(UserError, match="g_optimizer: lr: got a new value"):
        run(found, rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(), r"lr=torch.tensor\(..., device='cpu'\), fused=True: "),
        (dict(fused=True), r"device='cpu'\): "),
    ],
)
def test_a_rate_of_sgd_that_changes_is_told_what_works(gan, stand_in, options, message):
    for name in ("d", "g"):
        made = torch.optim.SGD(getattr(gan, name).parameters(), lr=0.1, **options)
        setattr(gan, f"{name}_optimizer", made)
    found, rows = replaying(gan, stand_in)
    gan.d_optimizer.param_groups[0]["lr"] = 0.05
    with pytest.raises(UserError, match=f"d_optimizer: lr: got a new value.*{message}"):
        run(found, rows)
    found.forget()
    for _ in range(3):
        run(found, rows)
    assert [graph.replays for graph in stand_in.graphs] == [1, 1]


ASKING = [
    ("SGD", {}),
    ("SGD", dict(momentum=0.9, foreach=True)),
    ("RMSprop", dict(foreach=False)),
    ("Adadelta", dict(foreach=False)),
    ("Muon", {}),
]
ANSWERED = [("SGD", dict(fused=True)), ("RMSprop", {}), ("Adadelta", {}), ("Adam", {}), ("NAdam", {})]


@pytest.mark.parametrize(("name", "options"), ASKING + ANSWERED)
def test_which_optimizers_ask_for_a_rate_that_is_a_tensor(name, options, monkeypatch):
    """What is refused is what PyTorch does, with foreach as on CUDA."""
    if not hasattr(torch.optim, name):
        pytest.skip(f"this PyTorch has no {name}")
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = getattr(torch.optim, name)([weight], **options)
    (group,) = optimizer.param_groups
    if "capturable" in group:  # which PyTorch would refuse to run here
        module = sys.modules[type(optimizer).__module__]
        monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])
        group["capturable"] = True
        if group["foreach"] is None:
            group["foreach"] = True
    group["lr"] = torch.tensor(0.1)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    with Audit() as audit:
        optimizer.step()
    asks = any("_local_scalar_dense" in problem for problem in audit.problems)
    assert asks == ((name, options) in ASKING)
    if asks:
        with pytest.raises(UserError, match=r"d_optimizer: lr: got a tensor, .*recapture\(\) after a change"):
            optimizers.require_capturable(optimizer, "d_optimizer", False)
    else:
        optimizers.require_capturable(optimizer, "d_optimizer", False)


def one_cycle(gan, **options):
    return torch.optim.lr_scheduler.OneCycleLR(gan.g_optimizer, max_lr=0.1, total_steps=9, **options)


def test_one_cycle_without_momentum_is_the_textbooks(stand_in_of_rates):
    """What the messages say of OneCycleLR works: a tensor as the rate, and cycle_momentum=False."""
    ours, stand_in = stand_in_of_rates
    theirs, data = Wgan(fused=True), batches(6)
    found = captures(ours, stand_in)
    schedules = [one_cycle(gan, cycle_momentum=False) for gan in (ours, theirs)]
    rates = [set(), set()]
    for rows in data:
        for gan, schedule, seen in zip((ours, theirs), schedules, rates, strict=True):
            torch.manual_seed(7)
            run(found, rows) if gan is ours else theirs.by_hand([rows])
            schedule.step()
            seen.add(round(float(gan.g_optimizer.param_groups[0]["lr"]), 6))
    assert rates[0] == rates[1] and len(rates[0]) == len(data)
    assert stand_in.graphs[0].replays == 4
    torch.testing.assert_close(ours.tensors(), theirs.tensors())


@pytest.fixture
def stand_in_of_rates(monkeypatch):
    """A GAN whose learning rates are tensors, as a captured one's that change must be."""
    gan = Wgan(fused=True)
    for optimizer in (gan.d_optimizer, gan.g_optimizer):
        optimizer.param_groups[0]["lr"] = torch.tensor(1e-2)
    return gan, StandIn(monkeypatch, gan.tensors)


def test_one_cycle_with_momentum_is_told_what_works(stand_in_of_rates):
    gan, stand_in = stand_in_of_rates
    found, (rows,) = captures(gan, stand_in), batches(1)
    schedule = one_cycle(gan)
    with pytest.raises(UserError, match=r"g_optimizer: betas: got a new value.*with cycle_momentum=False"):
        for _ in range(4):
            run(found, rows)
            schedule.step()


def test_another_option_that_changes_is_told_what_works(gan, stand_in):
    found, rows = replaying(gan, stand_in)
    gan.d_optimizer.param_groups[0]["weight_decay"] = 0.5
    with pytest.raises(UserError, match=r"d_optimizer: weight_decay: .* call capture_alternating again"):
        run(found, rows)


def load_state(gan):
    gan.d_optimizer.load_state_dict(copy.deepcopy(gan.d_optimizer.state_dict()))


def forget_state(gan):
    gan.g_optimizer.state.clear()


def move_a_parameter(gan):
    gan.g[0].weight.data = gan.g[0].weight.data.clone()


def freeze(gan):
    gan.d[0].requires_grad_(False)


@pytest.mark.parametrize("change", [load_state, forget_state, move_a_parameter, freeze])
def test_after_memory_was_replaced_calls_are_warm_up_and_then_captured_again(gan, stand_in, change):
    """A graph goes on in the old memory; and state that is made within a capture begins anew each time."""
    found, (rows,) = captures(gan, stand_in), batches(1)
    for _ in range(4):
        run(found, rows)
    assert len(stand_in.graphs) == 1
    change(gan)
    for _ in range(2):
        run(found, rows)
    assert len(stand_in.graphs) == 1 and gan.g_optimizer.state
    for _ in range(2):
        run(found, rows)
    assert len(stand_in.graphs) == 2


def test_loading_an_optimizer_without_state_is_loading_all_the_same(gan, stand_in):
    """SGD without momentum keeps nothing; the rate that was loaded is another tensor, and no mistake."""
    for name in ("d", "g"):
        made = torch.optim.SGD(getattr(gan, name).parameters(), lr=torch.tensor(0.1), fused=True)
        setattr(gan, f"{name}_optimizer", made)
    found, (rows,) = captures(gan, stand_in), batches(1)
    for _ in range(4):
        run(found, rows)
    loaded = copy.deepcopy(gan.d_optimizer.state_dict())
    loaded["param_groups"][0]["lr"].fill_(0.01)
    gan.d_optimizer.load_state_dict(loaded)
    for _ in range(4):
        run(found, rows)
    assert [graph.replays for graph in stand_in.graphs] == [2, 2]


def test_parameters_that_steps_freeze_by_themselves_are_no_change(gan, stand_in):
    d_step, g_step = gan.d_step, gan.g_step
    gan.d_step = lambda rows: (gan.d.requires_grad_(True), d_step(rows))[1]
    gan.g_step = lambda rows: (gan.d.requires_grad_(False), g_step(rows))[1]
    found, data = captures(gan, stand_in), batches(6)
    for rows in data:
        run(found, rows)
    assert [graph.replays for graph in stand_in.graphs] == [4]


def test_what_is_unfrozen_is_trained(gan, stand_in):
    gan.d[0].requires_grad_(False)
    found, data = captures(gan, stand_in), batches(8)
    for i, rows in enumerate(data):
        gan.d[0].requires_grad_(i >= 4)
        run(found, rows)
    assert [graph.replays for graph in stand_in.graphs] == [2, 2]
    assert gan.d_optimizer.state[gan.d[0].weight]["step"] == 4


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_state_of_a_run_without_captures_is_taken(stand_in, calls):
    """Loaded before the warm-up, within it, or after a capture, it says capturable=False."""
    gan = Wgan(fused=True, capturable=True)
    stand_in.tensors = gan.tensors
    found, (rows,) = captures(gan, stand_in), batches(1)
    loaded = copy.deepcopy(gan.d_optimizer.state_dict())
    loaded["param_groups"][0]["capturable"] = False
    for _ in range(calls):
        run(found, rows)
    gan.d_optimizer.load_state_dict(loaded)
    for _ in range(4):
        run(found, rows)
    assert gan.d_optimizer.param_groups[0]["capturable"]
    assert gan.d_optimizer.state[gan.d[0].weight]["step"] == 4


def test_steps_and_rates_of_a_checkpoint_on_the_cpu_go_to_the_device():
    weight = torch.zeros(3, device="meta", requires_grad=True)
    adam = torch.optim.Adam([weight], capturable=True)
    adam.defaults["lr"] = torch.zeros((), device="meta")  # the constructor would look at its value
    adam.param_groups[0] |= dict(capturable=False, lr=torch.tensor(0.1))
    adam.state[weight]["step"] = torch.tensor(3.0)
    optimizers.allow_capture(adam)
    optimizers.require_capturable(adam, "d_optimizer", False)
    optimizers.require_state_beside_parameters(adam, "d_optimizer")
    assert adam.param_groups[0]["lr"].is_meta and adam.state[weight]["step"].is_meta


def test_after_recapture_python_is_seen_again(gan, stand_in):
    found, data = captures(gan, stand_in), batches(8)
    for rows in data[:4]:
        run(found, rows)
    found.forget()
    for rows in data[4:]:
        run(found, rows)
    assert [graph.replays for graph in stand_in.graphs] == [2, 2]


def test_a_lazy_penalty_is_two_objects_with_the_same_optimizers(gan, stand_in):
    theirs, data, objects = Wgan(fused=True), batches(12), {}
    for kind in (Wgan.d_step, Wgan.r1_step):
        gan.d_step = kind.__get__(gan)
        objects[kind] = captures(gan, stand_in)
    for whose in (gan, theirs):
        torch.manual_seed(7)
        for i, rows in enumerate(data):
            kind = Wgan.d_step if i % 4 else Wgan.r1_step
            if whose is gan:
                run(objects[kind], rows)
            else:
                theirs.d_step = kind.__get__(theirs)
                theirs.by_hand([rows])
    assert_identical(gan.tensors(), theirs.tensors())
    assert sorted(graph.replays for graph in stand_in.graphs) == [1, 7]
