"""Every option of a training run: its default, its range, its help, and the two recipes.

One flat dataclass is the single source: the command line is built from it, a run folder stores it as JSON,
and engines read it. Nothing else in the package defines an option.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from fastgan.errors import UserError, nearest

LOSSES = ("rpgan", "bce", "minimax")
HEADS = ("sigmoid", "tanh", "linear")
SCHEDULES = ("constant", "linear", "cosine")
PRESETS = ("default", "article")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("ieee", "tf32", "tf32x3", "bf16")
PLACES = ("auto", "device", "host")
DESIGNS = ("auto", "layered", "row-fused")
MAX_WIDTH = 4096


def _option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a field with the facts that the parser and the checks need (both bounds inclusive)."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Config:
    """All options of a run. Construction checks every range and every combination.

    The defaults are the recipe ``default``; :func:`preset` gives the other one.

    Raises:
        UserError: a value out of range, an unknown choice, or options that exclude each other, by flag.
    """

    # model
    latent: int = _option(100, "size of the noise vector z", low=1, high=MAX_WIDTH)
    g_hidden: tuple[int, ...] = _option(
        (128, 128), "generator's hidden widths, comma-separated", low=1, high=MAX_WIDTH
    )
    d_hidden: tuple[int, ...] = _option(
        (128, 128), "discriminator's hidden widths, comma-separated", low=1, high=MAX_WIDTH
    )
    slope: float = _option(0.2, "LeakyReLU slope for negative inputs", low=0.0, high=1.0)
    head: str = _option("sigmoid", "generator's output: sigmoid [0,1], tanh [-1,1], linear", choices=HEADS)
    condition: bool = _option(False, "feed the label, one-hot, to both networks")
    # loss
    loss: str = _option(
        "rpgan",
        "rpgan: relativistic pairing; bce: non-saturating; minimax: the literal min log(1 - D(G(z)))",
        choices=LOSSES,
    )
    r1: float = _option(3.0, "weight of the gradient penalty on real rows", low=0.0, high=1e6)
    r2: float = _option(3.0, "weight of the gradient penalty on generated rows", low=0.0, high=1e6)
    penalty_every: int = _option(
        4, "penalties every this many discriminator steps, weighted by as much", low=1, high=1_000_000
    )
    label_smoothing: float = _option(
        0.0, "the real target becomes 1 minus this (bce and minimax)", low=0.0, high=0.5
    )
    d_steps: int = _option(1, "discriminator steps per generator step", low=1, high=100)
    reuse_fakes: bool = _option(True, "the generator step reuses the last discriminator step's noise")
    # optimizer
    batch: int = _option(128, "rows per batch", low=1, high=65536)
    g_lr: float = _option(2e-3, "generator's learning rate (Adam)", low=1e-12, high=10.0)
    d_lr: float = _option(2e-3, "discriminator's learning rate (Adam)", low=1e-12, high=10.0)
    g_schedule: str = _option("linear", "generator's learning-rate schedule", choices=SCHEDULES)
    d_schedule: str = _option("linear", "discriminator's learning-rate schedule", choices=SCHEDULES)
    decay_from: float = _option(
        0.5, "schedules: share of the run after which the rate decays", low=0.0, high=1.0
    )
    decay_to: float = _option(0.1, "schedules: factor of the rate at the end of the run", low=0.0, high=1.0)
    beta1: float = _option(0.5, "Adam's first beta", low=0.0, high=0.99999)
    beta2: float = _option(0.999, "Adam's second beta", low=0.0, high=0.9999999)
    eps: float = _option(1e-8, "Adam's epsilon", low=1e-30, high=1.0)
    ema: float = _option(
        0.999, "decay of the generator's moving average; 0 turns it off", low=0.0, high=0.999999
    )
    ema_warmup: float = _option(
        10.0, "early decay is (1 + step) / (this + step); 1 for no warm-up", low=1.0, high=1e9
    )
    # run
    data: str = _option(
        "digits", "digits, mnist, or a path: IDX file or folder, .npy, .npz, folder of images"
    )
    steps: int = _option(10_000, "generator steps", low=1, high=2**40)
    seed: int = _option(0, "seed of everything random", low=0, high=2**63 - 1)
    fused: bool = _option(False, "run on a fused engine instead of plain PyTorch: native code, or CUDA")
    device: str = _option("cpu", "where a fused engine runs", choices=DEVICES)
    precision: str = _option(
        "tf32",
        "of products with --device cuda; sums and parameters are float32. tf32 and bf16 round operands to 10 "
        "and 7 bits; tf32x3, three tf32 products, and ieee are as exact as float32",
        choices=PRECISIONS,
    )
    design: str = _option(
        "auto",
        "with --device cuda, kernels of a step: layered, one or more a layer; row-fused, four in all, of few "
        "programs; auto: row-fused for small models, by modelled times that no GPU has confirmed",
        choices=DESIGNS,
    )
    data_on: str = _option(
        "auto",
        "with --device cuda, where the rows are: device, or host, which streams them; auto: device, "
        "if they take at most half of its free memory",
        choices=PLACES,
    )
    graph: bool = _option(True, "with --device cuda, capture steps in CUDA graphs; off: launch every kernel")
    threads: int = _option(0, "CPU threads; 0 takes all this process may use", low=0, high=1024)
    log_every: int = _option(100, "steps between two lines of statistics", low=1, high=2**40)
    sample_every: int = _option(1000, "steps between two sample grids", low=1, high=2**40)
    checkpoint_every: int = _option(1000, "steps between two checkpoints", low=1, high=2**40)
    keep: int = _option(2, "checkpoints kept, the newest ones", low=1, high=1_000_000)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, check(f, getattr(self, f.name)))
        if self.label_smoothing and self.loss == "rpgan":
            raise UserError(
                "--label-smoothing with --loss rpgan",
                f"--label-smoothing {self.label_smoothing}",
                "0, since the pairing loss has no target to smooth",
                "Use --loss bce.",
            )

        if self.device == "cuda" and not self.fused:
            raise UserError(
                "--device cuda", "no --fused", "--fused, since the engine in plain PyTorch runs on the CPU"
            )
        for name, usual in (("precision", "tf32"), ("design", "auto"), ("data_on", "auto"), ("graph", True)):
            if self.device == "cpu" and getattr(self, name) != usual:
                given = "--no-graph" if name == "graph" else f"{flag(name)} {getattr(self, name)}"
                raise UserError(given, "--device cpu", "--device cuda, which alone it is about")

    @property
    def has_penalty(self) -> bool:
        """Whether any discriminator step carries a gradient penalty."""
        return self.r1 > 0 or self.r2 > 0

    def lr_factor(self, schedule: str, step: int) -> float:
        """Return the factor on the learning rate at ``step`` (0-based), computed in float64.

        Constant until ``decay_from * steps``, then down to ``decay_to`` at the end: straight (``linear``) or
        along half a cosine (``cosine``, Loshchilov & Hutter 2017, eq. 5).
        """
        start = self.decay_from * self.steps
        if schedule == "constant" or step <= start:
            return 1.0
        share = min((step - start) / max(self.steps - start, 1.0), 1.0)
        if schedule == "cosine":
            share = 0.5 - 0.5 * math.cos(math.pi * share)
        return 1.0 - (1.0 - self.decay_to) * share

    def ema_decay(self, step: int) -> float:
        """Return the decay of the moving average after ``step`` (0-based): warmed up, then constant."""
        return min(self.ema, (1.0 + step) / (self.ema_warmup + step))

    def to_json(self) -> str:
        """Return the options as indented JSON, one per line, in the order of declaration."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_dict(cls, options: dict[str, Any], source: str = "options") -> Config:
        """Build from a dict (such as a run folder's JSON); unknown names are refused with the nearest one."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in options:
            if name not in known:
                raise UserError(
                    f"{source}: option '{name}'", "an unknown name", "a known option", nearest(name, known)
                )
        return cls(**options)


def flag(name: str) -> str:
    """Return the command-line flag of a config field: ``g_lr`` -> ``--g-lr``."""
    return "--" + name.replace("_", "-")


def check(option: dataclasses.Field, value: Any) -> Any:
    """Return ``value`` in its declared type, or raise a :class:`UserError` that names the flag."""
    name, kind = flag(option.name), option.type
    low, high, choices = (option.metadata[k] for k in ("low", "high", "choices"))
    if kind == "bool":
        if not isinstance(value, bool):
            raise UserError(name, repr(value), "true or false")
    elif kind == "str":
        if not isinstance(value, str) or not value:
            raise UserError(name, repr(value), "a non-empty text")
        if choices and value not in choices:
            raise UserError(name, f"'{value}'", "one of " + ", ".join(choices), nearest(value, choices))
    elif kind == "tuple[int, ...]":
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 16:
            raise UserError(name, repr(value), "1 to 16 widths such as 128,128")
        value = tuple(_number(name, "int", v, low, high) for v in value)
    else:
        value = _number(name, kind, value, low, high)
    return value


def _number(name: str, kind: str, value: Any, low: float, high: float) -> int | float:
    whole = kind == "int"
    accepted = isinstance(value, int) or (isinstance(value, float) and (not whole or value.is_integer()))
    if isinstance(value, bool) or not accepted or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise UserError(name, repr(value), f"{what} from {low:g} to {high:g}")
    return int(value) if whole else float(value)


def preset(name: str) -> dict[str, Any]:
    """Return the options in which the recipe ``name`` differs from the defaults of :class:`Config`.

    ``default`` is the study's best recipe (relativistic pairing, Jolicoeur-Martineau 2018, with R1 + R2,
    Huang et al. 2024 "R3GAN", lazily as in Karras et al. 2020); ``article`` is the literal GAN of Goodfellow
    et al. 2014 with the non-saturating generator loss.

    Raises:
        UserError: an unknown recipe.
    """
    if name not in PRESETS:
        raise UserError("--preset", f"'{name}'", "one of " + ", ".join(PRESETS), nearest(name, PRESETS))
    if name == "default":
        return {}
    return dict(
        loss="bce",
        r1=0.0,
        r2=0.0,
        penalty_every=1,
        reuse_fakes=False,
        g_lr=2e-4,
        d_lr=2e-4,
        g_schedule="constant",
        d_schedule="constant",
        beta1=0.9,
        beta2=0.999,
        ema=0.0,
    )
