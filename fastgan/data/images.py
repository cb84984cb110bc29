"""A folder of images, or of one subfolder per class, read with Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastgan.data.reading import argument, decoding, shown, slug
from fastgan.data.rows import build
from fastgan.data.schema import Data
from fastgan.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MAX_PIXELS = 1 << 24
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def load_folder(folder: Path, source: str) -> Data | None:
    """Read all images of ``folder`` in sorted order; None where there are none.

    Images in immediate subfolders are labelled with the subfolder's name. The rows are gray ``(H, W)`` if no
    image has colour, else RGB ``(H, W, 3)``. Transparent pixels are blended over black; an animation gives
    its first frame. Hidden files and other suffixes are passed over.

    Raises:
        UserError: an unreadable folder or image, images of several sizes, more than 8 bits per channel,
            images both in the folder and in its subfolders, or as :func:`~fastgan.data.rows.build`.
    """
    front = argument(source)
    with decoding(front, "a folder"):
        files = _images(folder)
        classes = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
        inside = [p for c in classes for p in _images(c)]
    if not files and not inside:
        return None
    if files and inside:
        got = f"{len(files):,} images beside {len(inside):,} images in subfolders"
        raise UserError(front, got, "images in the folder, or one subfolder per class")
    files = files or inside
    labels = np.array([p.parent.name for p in files]) if inside else None
    array = _read(files, folder, front)
    name = slug(folder.resolve().name)
    return build(array, labels, argument=front, name=name, source=shown(source))


def _images(folder: Path) -> list[Path]:
    found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def _read(files: list[Path], folder: Path, front: str) -> np.ndarray:
    """Return all images as uint8 ``[N, H, W]``, or ``[N, H, W, 3]`` from the first colour on."""
    from PIL import Image

    array = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for i, path in enumerate(files):
            where = shown(str(path.relative_to(folder)))
            with decoding(front, f"an image '{where}'"), Image.open(path, formats=FORMATS) as image:
                pixels = _pixels(image, where, front)
            if array is None:
                array = np.empty((len(files), *pixels.shape), np.uint8)
            if pixels.shape[:2] != array.shape[1:3]:
                first = shown(str(files[0].relative_to(folder)))
                got = f"'{where}' of {_size(pixels)} after '{first}' of {_size(array[0])}"
                raise UserError(front, got, "images of one size", "Resize or crop them first.")
            if pixels.ndim > array.ndim - 1:
                array = np.repeat(array[..., None], 3, axis=3)
            array[i] = pixels if pixels.ndim == array.ndim - 1 else pixels[..., None]
    return array


def _pixels(image: Image.Image, where: str, front: str) -> np.ndarray:
    """Decode one image to uint8: ``[H, W]`` if it has no colour, else ``[H, W, 3]``."""
    from PIL import Image

    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UserError(front, f"'{where}' of {width}x{height} pixels", f"at most {MAX_PIXELS:,} pixels")
    if image.mode not in EIGHT_BIT:
        raise UserError(front, f"'{where}' with pixels of mode {image.mode}", "8 bits per channel")
    if "A" in image.getbands() or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    elif image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    pixels = np.asarray(image.convert("RGB"))
    gray = (pixels == pixels[..., :1]).all()
    return pixels[..., 0] if gray else pixels


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
