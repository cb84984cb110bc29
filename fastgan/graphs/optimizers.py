"""Whether an optimizer's step can be captured, from its parameter groups and state."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastgan.errors import UserError

# Optimizers of torch.optim without a ``capturable`` switch, whose steps count on the host.
_NEVER = ("Adafactor", "Adagrad", "SparseAdam")

# Those whose steps bring a learning rate that is a tensor to the host, with these values of an option.
_ASKING = {
    "SGD": ("fused", (None, False)),
    "RMSprop": ("foreach", (False,)),  # on CUDA, None is True
    "Adadelta": ("foreach", (False,)),
    "Muon": ("", (None,)),  # always: it has no such option
}


def identities(optimizer: Optimizer) -> list[int]:
    """Return which parameters an optimizer has."""
    return [id(p) for group in optimizer.param_groups for p in group["params"]]


def device_of(optimizer: Optimizer, name: str) -> torch.device:
    """Return where the parameters are that take part in training.

    Raises:
        UserError: it has none that can be trained, or not all of them on one device.
    """
    found = {str(p.device): p for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    if len(found) != 1:
        raise UserError(
            name, f"parameters on {', '.join(sorted(found)) or 'no device'}", "parameters on one device"
        )
    return next(iter(found.values())).device


def require_capturable(optimizer: Optimizer, name: str, scaled: bool) -> None:
    """Refuse an optimizer whose step would synchronise, or would repeat its first step for ever.

    Args:
        optimizer: whose parameters are on a CUDA device.
        name: the argument, for messages.
        scaled: whether a gradient scaler drives it, which then must leave skipping steps to the device.

    Raises:
        UserError: with what to pass instead.
    """
    kind = type(optimizer).__name__
    if _is_torchs(optimizer) and kind in _NEVER:
        raise UserError(name, kind, "an optimizer that can be captured", "Use Adam(capturable=True).")
    for group in optimizer.param_groups:
        if not group.get("capturable", True):
            raise UserError(
                name,
                f"{kind}(capturable=False), which counts steps on the host",
                f"{kind}(..., capturable=True)",
            )
        if scaled and not getattr(optimizer, "_step_supports_amp_scaling", False):
            raise UserError(
                f"{name} with scaler",
                f"{kind} without fused=True, for which the scaler asks the device whether to step",
                f"{kind}(..., fused=True, capturable=True)" if "capturable" in group else "fused=True",
            )
        needs = _tensor_rate_needs(optimizer, group)
        if isinstance(group.get("lr"), Tensor) and needs != "":
            raise UserError(
                f"{name}: lr",
                f"a tensor, whose value {kind} brings to the host at each step",
                f"{kind}(..., {needs})" if needs else "a number",
                f"{'With a number, call' if needs else 'Call'} recapture() after a change.",
            )
        device = group["params"][0].device
        for key, value in group.items():
            if isinstance(value, Tensor) and value.device != device:
                raise UserError(
                    f"{name}: {key}",
                    f"a tensor on {value.device}",
                    f"a number, or a tensor on {device}, as the parameters",
                    f"Construct the optimizer with {key}=torch.tensor(..., device='{device}').",
                )


def _is_torchs(optimizer: Optimizer) -> bool:
    return type(optimizer).__module__.startswith("torch.optim")


def _tensor_rate_needs(optimizer: Optimizer, group: dict[str, object]) -> str | None:
    """Return what to pass for a learning rate that is a tensor: nothing, an option, or None if none helps."""
    option, asking = _ASKING.get(type(optimizer).__name__, ("", ()))
    if not _is_torchs(optimizer) or group.get(option) not in asking:
        return ""
    return f"{option}=True" if option else None


def _states(optimizer: Optimizer) -> Iterator[tuple[torch.device, dict[object, object]]]:
    """Yield state by name, and where it belongs. Optimizers of one's own may keep some of no parameter."""
    device = optimizer.param_groups[0]["params"][0].device
    for owner, state in optimizer.state.items():
        where, name = (owner.device, "value") if isinstance(owner, Tensor) else (device, owner)
        yield where, state if isinstance(state, dict) else {name: state}


def require_state_beside_parameters(optimizer: Optimizer, name: str) -> None:
    """Refuse state on another device, such as steps that an optimizer of one's own counts on the CPU.

    Raises:
        UserError: naming the state.
    """
    for device, state in _states(optimizer):
        for key, value in state.items():
            if isinstance(value, Tensor) and value.device != device:
                raise UserError(
                    f"{name}: state '{key}'",
                    f"a tensor on {value.device}",
                    f"one on {device}, as the parameters",
                    "Make it on the parameters' device.",
                )


def numbers(optimizer: Optimizer) -> dict[str, object]:
    """Return the numbers that an optimizer keeps in Python, by name: its own, its groups', its state's."""
    places = [("attribute", vars(optimizer)), *(("group's", group) for group in optimizer.param_groups)]
    places += [("state", state) for _, state in _states(optimizer)]
    return {
        f"{place} {key!r}" + (f" ({i})" if i else ""): value
        for i, (place, values) in enumerate(places)
        for key, value in values.items()
        if isinstance(value, int | float)
    }


def require_same_numbers(optimizer: Optimizer, name: str, before: dict[str, object]) -> None:
    """Refuse an optimizer whose step has changed a number in Python, which no replay would.

    Args:
        optimizer: which has taken a step since.
        name: the argument, for messages.
        before: its :func:`numbers` before that step.

    Raises:
        UserError: naming the number.
    """
    now = numbers(optimizer)
    for key in before:
        if now.get(key) != before[key]:
            raise UserError(
                f"{name}: {key}",
                f"a number that {type(optimizer).__name__}.step() counts on the host, and a replay does not",
                "a tensor on the device, changed in place",
                "Pass capture=False to run the steps eagerly.",
            )


def require_plain_step(optimizer: Optimizer, name: str) -> None:
    """Refuse an optimizer whose step asks for losses by itself, as that of LBFGS does.

    Raises:
        UserError: its ``step`` wants arguments.
    """
    # The class's, since schedulers put a wrapper in its place that inspect takes for unbound.
    wanted = [*inspect.signature(type(optimizer).step).parameters.values()][1:]
    if any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in wanted):
        got = f"{type(optimizer).__name__}, whose step() asks for a closure"
        raise UserError(name, got, "an optimizer that takes steps on given gradients")


def options(optimizer: Optimizer) -> list[dict[str, object]]:
    """Return what a graph keeps as it is, group by group: the options, or the addresses of tensors."""
    return [
        {k: ("at", v.data_ptr()) if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"}
        for group in optimizer.param_groups
    ]


def way_on(optimizer: Optimizer, key: str, device: torch.device) -> tuple[str, str]:
    """Return what is wanted of an option that changed after a capture, and how to get there."""
    if key == "lr":
        needs = {_tensor_rate_needs(optimizer, group) for group in optimizer.param_groups}
        if None in needs:
            return "the value at capture", "Call recapture() after a change."
        made = ", ".join([f"lr=torch.tensor(..., device='{device}')", *sorted(needs - {""})])
        hint = (
            f"Construct the optimizer with {made}: schedulers fill that. Or, if it is rare, call recapture()."
        )
        return "the value at capture, or a tensor on the device that is changed in place", hint
    if key in ("betas", "momentum"):
        hint = "Schedulers that change it (OneCycleLR, CyclicLR) do not with cycle_momentum=False."
        return "the value at capture", hint
    return "the value at capture", "After a change that is to stay, call capture_alternating again."


def changed(before: list[dict[str, object]], now: list[dict[str, object]]) -> Iterator[str]:
    """Yield the names of options that differ."""
    for old, new in zip(before, now, strict=True):
        yield from (key for key in old if old[key] != new.get(key))


def addresses(optimizer: Optimizer) -> list[int]:
    """Return where parameters and state lie: a graph reads and writes there, whatever becomes of them."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = [value for _, state in _states(optimizer) for value in state.values()]
    return [tensor.data_ptr() for tensor in (*parameters, *state) if isinstance(tensor, Tensor)]


def trained(optimizer: Optimizer) -> list[bool]:
    """Return which parameters require gradients: a graph goes on to train the same ones."""
    return [p.requires_grad for group in optimizer.param_groups for p in group["params"]]


def allow_cpu(optimizer: Optimizer) -> None:
    """Turn ``capturable`` off, which PyTorch refuses on the CPU, so that one script runs on both."""
    for group in optimizer.param_groups:
        if group.get("capturable"):
            group["capturable"] = False


def allow_capture(optimizer: Optimizer) -> None:
    """Undo what loading the state of a run without captures, or on the CPU, did to an optimizer.

    Such a state says ``capturable=False`` and has steps and learning rates on the CPU. An optimizer that was
    constructed for captures gets its own choice back, and those tensors on the device.
    """
    made = optimizer.defaults
    for group in optimizer.param_groups:
        device = group["params"][0].device
        for key, value in group.items():
            if isinstance(value, Tensor) and isinstance(made.get(key), Tensor) and made[key].device == device:
                group[key] = value.to(device)
        if made.get("capturable"):
            group["capturable"] = True
    if made.get("capturable"):
        for device, state in _states(optimizer):
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(device)
