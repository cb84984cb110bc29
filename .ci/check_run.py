"""Check the files of a finished 200-step run on MNIST as a stranger would read them, without fastgan."""

from __future__ import annotations

import argparse
import json
import math
from itertools import pairwise
from pathlib import Path

from PIL import Image
from safetensors import safe_open

STEPS, LOG_EVERY, SAMPLE_EVERY = 200, 10, 100
LOSS = {"article": "bce", "default": "rpgan"}
WIDTHS = {"generator": (100, 128, 128, 784), "discriminator": (784, 128, 128, 1)}


def check(condition: bool, what: str) -> None:
    """Exit with a message unless ``condition`` holds."""
    if not condition:
        raise SystemExit(f"check_run: {what}")


def check_options(run: Path, preset: str) -> None:
    """The options are those of the command."""
    options = json.loads((run / "options.json").read_text())
    check(options["steps"] == STEPS, "options.json: wrong steps")
    check(options["loss"] == LOSS[preset], "options.json: wrong loss")


def check_stats(run: Path) -> None:
    """There is a line for every interval, and all numbers are finite."""
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    check(steps == list(range(LOG_EVERY, STEPS + 1, LOG_EVERY)), f"stats.jsonl: steps {steps}")
    for line in lines:
        for name in ("d_loss", "g_loss", "d_real_acc", "d_fake_acc", "steps_per_s", "rss_mb"):
            check(math.isfinite(line[name]), f"stats.jsonl: {name} at step {line['step']} is {line[name]}")


def check_pictures(run: Path) -> None:
    """The grids open, have the right size, show something, and change over the run."""
    names = [f"fakes-{step:06d}.png" for step in range(0, STEPS + 1, SAMPLE_EVERY)]
    check(sorted(p.name for p in run.glob("fakes-*.png")) == names, "not the expected grids of fakes")
    seen = set()
    for name, side in [*((name, 8 * 28) for name in names), ("samples.png", 4 * 28)]:
        with Image.open(run / name) as picture:
            picture.load()
            check(picture.size == (side, side), f"{name}: size {picture.size}")
            check(picture.mode == "L", f"{name}: mode {picture.mode}")
            low, high = picture.getextrema()
            check(high - low > 50, f"{name}: flat, {low} to {high}")
            seen.add(picture.tobytes())
    check(len(seen) == len(names) + 1, "two grids are the same")
    with Image.open(run / "loss.png") as picture:
        picture.verify()


def check_checkpoint(run: Path) -> None:
    """The last checkpoint has every tensor of the run's state, in its shape and finite."""
    shapes = {
        f"{network}.layers.{i}.{kind}": [outputs, inputs] if kind == "weight" else [outputs]
        for network, widths in WIDTHS.items()
        for i, (inputs, outputs) in enumerate(pairwise(widths))
        for kind in ("weight", "bias")
    }
    path = run / "checkpoints" / f"step-{STEPS:010d}.safetensors"
    with safe_open(path, "numpy") as file:
        found = set(file.keys())
        for name, shape in shapes.items():
            averages = [name.replace("generator", "ema")] if name.startswith("generator") else []
            for key in (name, f"exp_avg.{name}", f"exp_avg_sq.{name}", *averages):
                check(key in found, f"{path.name}: no {key}")
                tensor = file.get_tensor(key)
                check(list(tensor.shape) == shape, f"{path.name}: {key} has shape {tensor.shape}")
                check(bool(abs(tensor).max() < 1e3), f"{path.name}: {key} is not finite or far too large")
    record = json.loads(path.with_suffix(".json").read_text())
    check(record["step"] == STEPS, f"{path.with_suffix('.json').name}: step {record['step']}")


def main() -> None:
    """Check the run named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--preset", choices=LOSS, required=True)
    arguments = parser.parse_args()
    check_options(arguments.run, arguments.preset)
    check_stats(arguments.run)
    check_pictures(arguments.run)
    check_checkpoint(arguments.run)
    check((arguments.run / "log.txt").stat().st_size > 0, "log.txt is empty")
    print(
        f"{arguments.run.name}: options, {STEPS // LOG_EVERY} lines of statistics, pictures, checkpoint: good"
    )


if __name__ == "__main__":
    main()
