"""Writing files so that a crash, a full disk or a second process never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fastgan.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that the file is either the old or the new one, whatever happens.

    Raises:
        UserError: as :func:`replacing`.
    """
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that becomes ``path`` at the end of the block, whole, or leaves ``path`` as it was.

    A temporary file beside it is written, fsynced and renamed, and the folder is fsynced, so a power cut
    after the return does not undo it.

    Raises:
        UserError: the disk is full or the folder cannot be written; ``path`` is untouched and the temporary
            file removed.
    """
    temporary = _temporary(path)
    with disk_errors(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Make a folder that becomes ``path``, which must not be there, at the end of the block: as for files.

    Raises:
        UserError: as :func:`replacing`.
    """
    temporary = _temporary(path)
    with disk_errors(path):
        try:
            temporary.mkdir()
            yield temporary
            os.sync()  # once for all files: an fsync for each of many small ones takes far longer
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def append(path: Path, line: str) -> None:
    """Append ``line`` and a newline in one system call, so that a killed process leaves no half of it.

    Raises:
        UserError: the disk is full or the file cannot be written.
    """
    content = (line + "\n").encode()
    with disk_errors(path):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.write(file, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of files, to the disk itself."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def make_folder(path: Path) -> None:
    """Make ``path`` and its parents where they are missing.

    Raises:
        UserError: it cannot be made.
    """
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_temporary(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left in ``folder``, of the file ``name`` or of all.

    The caller holds the lock of whatever writes there.
    """
    with disk_errors(folder):
        for path in folder.glob(f".{name}.*.tmp"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``, made if missing; it ends with the process at the latest.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is false.
        UserError: the file cannot be made.
    """
    with disk_errors(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors while writing ``path`` into a :class:`UserError` that names the file."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "Free some space, then run it again." if error.errno in _FULL else ""
        raise UserError(str(path), f"'{reason}' while writing", "a writable place with room", hint) from error
