"""The README's commands and code run, in their order, as a newcomer would run them.

``sh`` blocks: every ``python -m fastgan...`` command is run; new training runs get ``SHORT`` appended, which
overrides what the README says. Everything else (pip, git, pytest, make) is left out, since running it is what
.ci/run is for. ``python run`` blocks are executed; other blocks are for reading. All of it happens in one
temporary folder with the repository's ``../shared`` beside it, so a command may use what an earlier one made.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SHARED = ROOT.parent / "shared"
SHORT = ["--steps", "20", "--log-every", "10", "--sample-every", "10", "--checkpoint-every", "10"]

Block = tuple[str, str]  # the words after the fence, and the text


def blocks(text: str) -> list[Block]:
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[list[str]]:
    """Return the ``python -m fastgan...`` commands of a shell block as argument lists."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            if command[:2] == ["python", "-m"] and command[2].split(".")[0] == "fastgan":
                found.append(command)
    return found


def shortened(command: list[str]) -> list[str]:
    """Cut a new training run short; a resumed one keeps its options and a dry run is short already."""
    new_run = command[2] == "fastgan.train" and not {"--resume", "--dry-run", "--help"} & set(command)
    return command + SHORT if new_run else command


def offline(command: list[str]) -> bool:
    """Whether a command needs nothing that this machine may lack: a download, or the shared folder."""
    downloads = any(pair == ("--data", "mnist") for pair in pairwise(command))
    return not downloads and (SHARED.is_dir() or not any("../shared" in word for word in command))


def run(command: list[str], folder: Path) -> None:
    paths = os.environ.get("PYTHONPATH")
    environment = dict(os.environ)
    if paths:  # a source tree that is not installed, named relative to where pytest runs
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(p).resolve()) for p in paths.split(os.pathsep))
    done = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\nexit code {done.returncode}\n{done.stdout}"


# ---- this test's own parts


def test_blocks_and_commands_are_found():
    text = (
        'Words.\n```sh\n$ pip install -e . && python -m fastgan.train --steps 9 \\\n  --out "a b"  # why\n'
        "git x\npython -m fastgan.info\npython -m http.server\n```\n"
        "```python run\nx = 1\n```\n```\nfree text\n```\n"
    )
    assert [kind for kind, _ in blocks(text)] == ["sh", "python run", ""]
    train, info = commands(blocks(text)[0][1])
    assert train == ["python", "-m", "fastgan.train", "--steps", "9", "--out", "a b"]
    assert shortened(train) == train + SHORT
    assert info == shortened(info) == ["python", "-m", "fastgan.info"]
    assert blocks(text)[1][1] == "x = 1\n"


def test_what_is_left_as_it_is():
    for command in ("fastgan.train --resume runs/x", "fastgan.train --dry-run", "fastgan.sample runs/x"):
        words = ["python", "-m", *command.split()]
        assert shortened(words) == words
    assert not offline(["python", "-m", "fastgan.train", "--data", "mnist"])
    assert offline(["python", "-m", "fastgan.train", "--data", "digits"])


def test_a_failing_command_is_seen(tmp_path):
    with pytest.raises(AssertionError, match=r"exit code 3\s+out"):
        run(["python", "-c", "print('out'); exit(3)"], tmp_path)


# ---- the README


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


def test_the_two_commands_are_there(readme):
    shell = "\n".join(text for kind, text in blocks(readme) if kind == "sh")
    assert "pip install -e . -c constraints.txt && python -m fastgan.train\n" in shell
    assert 'pip install -e ".[test]" -c constraints.txt && pytest -n auto\n' in shell


def test_commands_and_code_run(readme, tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    if SHARED.is_dir():
        (tmp_path / "shared").symlink_to(SHARED)
    for kind, text in blocks(readme):
        if kind == "sh":
            for command in commands(text):
                if offline(command):
                    run(shortened(command), folder)
        elif kind == "python run":
            run(["python", "-c", text], folder)


def test_local_links_lead_somewhere(readme):
    prose = re.sub(r"^```.*?^```$", "", readme, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose) + re.findall(r'(?:src|href)="([^"#]+)"', prose)
    missing = [t for t in targets if "://" not in t and not (ROOT / t).exists()]
    assert not missing
