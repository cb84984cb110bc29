"""``python -m fastgan.train``: trains a GAN into a new run folder, or goes on with an old one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastgan
from fastgan import options
from fastgan.cli import EXIT_CODES, Parser, run_command
from fastgan.config import Config
from fastgan.errors import UserError

if TYPE_CHECKING:
    from fastgan.board import TensorBoard
    from fastgan.checkpoint import Record
    from fastgan.data import Data
    from fastgan.engines import Engine
    from fastgan.report import RunFolder
    from fastgan.spec import ModelSpec
    from fastgan.state import State


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_train, argv)


def _parser() -> Parser:
    parser = Parser(
        "fastgan.train",
        "Train a GAN of two dense networks and write a run folder: options, log, "
        "statistics, sample grids, checkpoints.",
        EXIT_CODES,
    )
    parser.add_argument("--out", metavar="FOLDER", help="where run folders are made (default: runs)")
    parser.add_argument(
        "--resume", metavar="RUN", help="go on with this run folder; its options stay as they are"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, write nothing")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard event files too")
    options.add_config(parser)
    return parser


def _train(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse(argv)
    preset = arguments.get("preset", "default")
    explicit = options.take_explicit(arguments)
    if "resume" not in arguments:
        return _new(Config(**explicit), preset, arguments)
    if "out" in arguments:
        raise UserError(
            "--out with --resume", f"--out {arguments['out']}", "--resume alone, which names the folder"
        )
    return _resume(explicit, arguments)


def _new(config: Config, preset: str, arguments: dict[str, Any]) -> int:
    from fastgan import report
    from fastgan.data import load
    from fastgan.spec import ModelSpec
    from fastgan.state import State

    data = load(config.data)
    root, name = Path(arguments.get("out", "runs")), report.folder_name(data.name, preset)
    spec = ModelSpec.of(config, data.schema.features, len(data.schema.classes))
    if "dry_run" in arguments:
        return _dry_run(config, spec, data, report.next_folder(root, name), 0)
    # Whatever is wrong with the options shows here, before anything is written.
    engine, board = _engine(config, data, State.initial(spec, config.seed)), _board(arguments)
    run = report.RunFolder.create(root, name, config, data)
    with run.lock():
        return _run(run, engine, board, None)


def _resume(explicit: dict[str, Any], arguments: dict[str, Any]) -> int:
    from fastgan import checkpoint, stats
    from fastgan.data import load
    from fastgan.report import RunFolder
    from fastgan.state import State

    flag = f"--resume {arguments['resume']}"
    run = RunFolder.open(Path(arguments["resume"]))
    config = run.config
    options.refuse_changes(config, explicit, flag)
    if "dry_run" in arguments:
        done = max(checkpoint.steps(run.checkpoints), default=0)
        return _dry_run(config, run.spec, load(config.data), run.path, done)
    with run.lock():
        run.say = partial(print, flush=True)
        state, record = checkpoint.latest(run.checkpoints, run.log) or (
            State.initial(run.spec, config.seed),
            None,
        )
        if record:
            options.refuse_changes(
                Config.from_dict(record.options), vars(config), str(run.path / "options.json")
            )
        state.check(run.spec, str(run.checkpoints))
        if state.step >= config.steps:
            run.say(f"{run.path}: all {config.steps} steps are done, nothing to do")
            return 0
        data = load(config.data)
        if data.fingerprint() != run.facts.fingerprint:
            raise UserError(
                f"{flag}: --data {config.data}",
                "other data than the run began with",
                f"the same {run.facts.rows} rows of {run.facts.source}",
                "Start a new run for new data.",
            )
        engine, board = _engine(config, data, state), _board(arguments)
        run.clean()
        stats.cut(run.stats, state.step)
        return _run(run, engine, board, record)


def _engine(config: Config, data: Data, state: State) -> Engine:
    from fastgan import engines

    engine = engines.create(config, data)
    engine.load(state)
    return engine


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give PyTorch ``count`` threads meanwhile (0: as many as it likes)."""
    import torch

    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count:
            torch.set_num_threads(before)


def _board(arguments: dict[str, Any]) -> TensorBoard | None:
    if "tensorboard" not in arguments:
        return None
    from fastgan.board import TensorBoard

    return TensorBoard()


def _run(run: RunFolder, engine: Engine, board: TensorBoard | None, record: Record | None) -> int:
    from fastgan.progress import Progress
    from fastgan.trainer import Trainer

    step = record.step if record else 0
    with (
        _threads(run.config.threads),
        Progress(run.config.steps, step) as progress,
        contextlib.closing(board) if board else contextlib.nullcontext(),
    ):
        run.say = progress.message
        if board:
            board.open(run.path, step)
        run.log(
            f"{'continuing' if record else 'training'} {run.path} from step {step} of {run.config.steps}: "
            f"engine {engine.name}, fastgan {fastgan.__version__}, {run.facts.rows} rows of "
            f"{run.facts.source}"
        )
        run.log(f"{engine.name}: {engine.describe()}")
        if not run.is_image:
            run.log("the rows are no images: no sample grids, and samples.npy alone at the end")
        return Trainer(run, engine, progress, board).train(record)


def _dry_run(config: Config, spec: ModelSpec, data: Data, folder: Path, done: int) -> int:
    from fastgan import engines
    from fastgan.cost import estimate

    engine, cost = engines.create(config, data), estimate(config, spec, data.rows.nbytes)
    lines = {
        "data": f"{len(data)} rows of {data.source}, {cost.data_bytes / 1e6:,.1f} MB",
        "generator": f"{' -> '.join(map(str, spec.g_widths))}, {cost.g_parameters:,} parameters",
        "discriminator": f"{' -> '.join(map(str, spec.d_widths))}, {cost.d_parameters:,} parameters",
        "engine": engine.name,
        "steps": f"{config.steps - done} of {config.steps}, batch {config.batch}",
        "work": f"{cost.flops / 1e6:,.1f} Mflop per step: matrix products, a multiply-add counts as two",
        "memory": f"{(cost.data_bytes + cost.state_bytes + cost.step_bytes) / 1e6:,.1f} MB "
        "beside Python and PyTorch themselves (some 350 MB)",
        "folder": str(folder),
    }
    for name, text in lines.items():
        print(f"{name:<15}{text}")
    print("Dry run: nothing was written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
