"""The sources known by name: scikit-learn's digits, which need no network, and MNIST, downloaded once."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import numpy as np

from fastgan.data.idx import load_pair
from fastgan.data.reading import shown
from fastgan.data.rows import build
from fastgan.data.schema import Data
from fastgan.errors import UserError

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
TIMEOUT = (3.0, 10.0)  # seconds to connect and between two packets: offline must be told soon


def digits() -> Data:
    """Return scikit-learn's bundled digits: 1,797 images of 8x8, resized to uint8 28x28, ten classes."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.empty((len(bunch.images), 28, 28), np.uint8)
    for target, image in zip(images, bunch.images.astype(np.float32) * (255 / 16), strict=True):
        # resized as floats and rounded once; bicubic overshoots at edges, hence the clip
        large = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC))
        target[:] = np.clip(np.rint(large), 0, 255)
    source = "digits (scikit-learn's 8x8 digits resized to 28x28)"
    return build(images, bunch.target, argument="--data digits", name="digits", source=source)


def mnist() -> Data:
    """Return MNIST's 60,000 training images, uint8 28x28, ten classes; downloaded on the first call.

    The files stay in ``mnist`` below the user's cache folder (``FASTGAN_CACHE`` names another one), and their
    checksums are verified at each call.

    Raises:
        UserError: no download possible, telling which files to put where; a file with a wrong checksum.
    """
    folder = mnist_folder()
    images, labels = (_fetch(folder, name) for name in list(MNIST_SHA256)[:2])
    source = f"mnist (60,000 training images in {shown(str(folder))})"
    return load_pair(images, labels, "--data mnist", "mnist", source)


def mnist_folder() -> Path:
    """Return the folder in which MNIST's files are looked for and kept."""
    import pooch

    return Path(os.path.expanduser(os.environ.get("FASTGAN_CACHE") or pooch.os_cache("fastgan"))) / "mnist"


def _fetch(folder: Path, name: str) -> Path:
    """Return the path of one verified file, downloading it if it is not there."""
    import pooch

    path, known = folder / name, MNIST_SHA256[name]
    try:
        if not path.exists():
            _download(MNIST_URL + name, known, path)
        elif pooch.file_hash(str(path)) != known:
            hint = f"Delete it to download it again, or pass --data {shown(str(folder))} to use it as it is."
            raise UserError("--data mnist", f"{shown(str(path))} with another SHA-256", known, hint)
    except OSError as error:  # a cache folder that cannot be used, or any of requests' exceptions
        files = ", ".join(MNIST_SHA256)
        got = f"no {name} ({type(error).__name__})"
        wanted = f"a download from {MNIST_URL}, or these four files in {shown(str(folder))}: {files}"
        raise UserError("--data mnist", got, wanted, "--data digits needs no download.") from error
    return path


def _download(url: str, known: str, path: Path) -> None:
    """Download quietly but for a bar on a terminal; the file appears only when its checksum is right."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        bar = sys.stderr.isatty()
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT)
        pooch.retrieve(url, known, fname=path.name, path=path.parent, downloader=downloader)
    except ValueError as error:  # pooch's word for a wrong hash
        if isinstance(error, OSError):  # requests' InvalidProxyURL and the like are both
            raise
        hint = f"Put the right file into {shown(str(path.parent))} by hand."
        raise UserError("--data mnist", f"a download of {url} with another SHA-256", known, hint) from error
    finally:
        logger.setLevel(level)
