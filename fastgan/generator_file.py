"""A trained generator as one file, ``generator.safetensors``: all its rows need, safe to take from anyone.

The file is safetensors: a length, a JSON header, float32 tensors. The tensors are the moving average of the
generator's parameters under the names of :class:`fastgan.models.Generator`, so that ``load_state_dict`` takes
what ``safetensors.torch.load_file`` reads. One entry of the header's metadata, ``fastgan``, holds everything
else as JSON text: spec, schema, label counts, seed, provenance, reports. Decoding tables of columns, where a
kind of schema needs some, are tensors under ``decoding.``; images and plain arrays need none, since an affine
map turns their values into stored ones (:meth:`fastgan.data.schema.Schema.affine`).

Reading believes nothing. The header is bounded before it is read and checked before a tensor is; the shapes
follow from the spec, whose numbers have bounds, and the file must be exactly as long as they say before
memory is taken for them. Nothing in the file is executed, looked up or opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastgan import config, files
from fastgan.config import Config
from fastgan.data.reading import parse_json, shown
from fastgan.data.rows import MAX_CLASSES
from fastgan.data.schema import Schema
from fastgan.errors import UserError
from fastgan.spec import ModelSpec
from fastgan.trained import Provenance, TrainedGenerator, generator_shapes

NAME = "generator.safetensors"
FORMAT = 1
MOST_HEADER = (
    2**20
)  # bytes: a JSON text of that length stays below 100 MB as Python objects, whatever it says
MOST_TENSORS = 2**31  # bytes
MOST_FEATURES = 2**22
_WANTED = "a generator file of fastgan"


def save(path: Path, generator: TrainedGenerator) -> None:
    """Write the file, atomically; the same generator gives the same bytes.

    Raises:
        UserError: it cannot be written, or would be beyond the bounds of this format.
    """
    content = _encode(generator)
    _check_bounds(generator.spec, str(path))
    length = int.from_bytes(content[:8], "little")
    if length > MOST_HEADER:
        raise UserError(str(path), "classes, options and reports too long", f"{MOST_HEADER:,} bytes of JSON")
    _metadata(content[8 : 8 + length], str(path))
    files.write_atomic(path, content)


def load(path: Path | str) -> TrainedGenerator:
    """Read a generator file.

    Raises:
        UserError: there is none, or it is damaged, too large, or no generator file. Memory use is bounded by
            twice the file's own size and 100 MB.
    """
    path = Path(path)
    if path.is_dir():
        hint = f"Take {path / NAME}." if (path / NAME).is_file() else ""
        raise UserError(str(path), "a folder", _WANTED, hint)
    try:
        if path.exists() and not path.is_file():
            raise UserError(str(path), "no regular file", _WANTED)
        with open(path, "rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size, shown(str(path)))
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(shown(str(path)), reason.lower(), _WANTED) from error


def digest(generator: TrainedGenerator) -> str:
    """Return the SHA-256, in hex, of a generator's content as a file: what tells two of them apart."""
    return hashlib.sha256(_encode(generator)).hexdigest()


def _encode(generator: TrainedGenerator) -> bytes:
    import safetensors.numpy

    values = {"format": FORMAT} | {
        f.name: getattr(generator, f.name) for f in fields(generator) if f.name != "parameters"
    }
    text = json.dumps(
        values | {k: asdict(values[k]) for k in ("spec", "schema", "provenance")}, allow_nan=False
    )
    tensors = {k: np.ascontiguousarray(v, np.float32) for k, v in generator.parameters.items()}
    return safetensors.numpy.save(tensors, {"fastgan": text})


def _read(file: BinaryIO, size: int, source: str) -> TrainedGenerator:
    from safetensors import SafetensorError
    from safetensors import numpy as tensor_files

    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= min(size - 8, MOST_HEADER):
        raise UserError(
            source, f"{size:,} bytes that are no safetensors file, or one with too long a header", _WANTED
        )
    header = file.read(length)
    values = _Values(source, _metadata(header, source))
    generator = values.generator()
    shapes = generator_shapes(generator.spec)
    wanted = 8 + length + sum(4 * math.prod(shape) for shape in shapes.values())
    if size != wanted:
        hint = "It may be cut short; copy it again."
        raise UserError(source, f"{size:,} bytes", f"the {wanted:,} bytes of its header and spec", hint)
    try:
        tensors = tensor_files.load(start + header + file.read(size - 8 - length))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            source, f"tensors that cannot be read ({shown(str(error)[:200])})", _WANTED
        ) from error
    for name in sorted(tensors.keys() ^ shapes.keys()):
        got = "no such tensor" if name in shapes else "a tensor that its spec does not have"
        raise UserError(f"{source}: {shown(name[:60])}", got, "the tensors of its spec")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            got = f"{tensor.dtype} {list(tensor.shape)}"
            raise UserError(f"{source}: {name}", got, f"float32 {list(shape)}")
        if not np.isfinite(tensor).all():
            raise UserError(f"{source}: {name}", "NaN or infinite values", "finite numbers")
    generator.parameters.update(tensors)
    return generator


def _metadata(header: bytes, source: str) -> dict[str, Any]:
    """Return the JSON object of fastgan from a safetensors header."""
    metadata = _json(header, f"{source}: header").get("__metadata__")
    text = metadata.get("fastgan") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise UserError(source, "safetensors without an entry 'fastgan'", _WANTED)
    return _json(text, f"{source}: fastgan")


def _json(text: bytes | str, where: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise UserError(where, f"damaged JSON ({shown(str(error)[:200])})", "a JSON object") from None
    if not isinstance(value, dict):
        raise UserError(where, type(value).__name__, "a JSON object")
    return value


def _check_bounds(spec: ModelSpec, source: str) -> None:
    if spec.features > MOST_FEATURES:
        raise UserError(f"{source}: features", f"{spec.features:,}", f"at most {MOST_FEATURES:,}")
    size = sum(4 * math.prod(shape) for shape in generator_shapes(spec).values())
    if size > MOST_TENSORS:
        raise UserError(f"{source}: parameters", f"{size:,} bytes", f"at most {MOST_TENSORS:,}")


class _Values:
    """Reads the JSON of a file into what it stands for, each value checked."""

    def __init__(self, source: str, values: dict[str, Any]) -> None:
        self.source, self.values = source, values

    def generator(self) -> TrainedGenerator:
        """Return the generator, without its parameters."""
        if (version := self.values.get("format")) != FORMAT:
            newer = isinstance(version, int) and version > FORMAT
            hint = "Install a newer fastgan." if newer else ""
            raise self._bad("format", version, f"{FORMAT}", hint)
        names = {"format"} | {f.name for f in fields(TrainedGenerator)} - {"parameters"}
        values = self._object("fastgan", self.values, names)
        schema = self._schema(values["schema"])
        spec = self._spec(values["spec"], schema)
        _check_bounds(spec, self.source)
        seed = self._whole("seed", values["seed"], 0, 2**63 - 1)
        counts = tuple(
            self._whole("label_counts", n, 0, 2**40)
            for n in self._list("label_counts", values["label_counts"], spec.classes, spec.classes)
        )
        if counts and not sum(counts):
            raise self._bad("label_counts", 0, "at least one row")
        reports = values["reports"]
        if not isinstance(reports, dict):
            raise self._bad("reports", reports, "a JSON object")
        return TrainedGenerator(
            spec, schema, counts, seed, {}, self._provenance(values["provenance"]), reports
        )

    def _schema(self, value: Any) -> Schema:
        value = self._object("schema", value, {f.name for f in fields(Schema)})
        kind = self._text("schema.kind", value["kind"], ("image", "array"))
        dtype = self._text("schema.dtype", value["dtype"], ("uint8", "float32"))
        least, most = (2, 3) if kind == "image" else (1, 1)
        shape = tuple(
            self._whole("schema.shape", n, 1, MOST_FEATURES)
            for n in self._list("schema.shape", value["shape"], least, most)
        )
        if len(shape) == 3 and shape[2] != 3:
            raise self._bad("schema.shape", list(shape), "3 channels, or none")
        names = self._list("schema.classes", value["classes"], 0, MAX_CLASSES)
        classes = tuple(self._text("schema.classes", name) for name in names)
        if len(set(classes)) != len(classes):
            raise self._bad("schema.classes", "a name twice", "different names")
        return Schema(kind, shape, dtype, classes)

    def _spec(self, value: Any, schema: Schema) -> ModelSpec:
        value = self._object("spec", value, {f.name for f in fields(ModelSpec)})
        features = self._whole("spec.features", value["features"], 1, MOST_FEATURES)
        if features != math.prod(schema.shape):
            raise self._bad(
                "spec.features", features, f"the {math.prod(schema.shape):,} values of its schema"
            )
        classes = self._whole("spec.classes", value["classes"], 0, MAX_CLASSES)
        if classes not in (0, len(schema.classes)):
            raise self._bad("spec.classes", classes, f"0 or the {len(schema.classes)} of its schema")
        options = {f.name: f for f in fields(Config)}
        checked = {}
        for name in ("latent", "g_hidden", "d_hidden", "slope", "head"):
            try:
                checked[name] = config.check(options[name], value[name])
            except UserError as error:
                raise UserError(f"{self.source}: spec", shown(str(error)[:300]), _WANTED) from error
        return ModelSpec(features=features, classes=classes, **checked)

    def _provenance(self, value: Any) -> Provenance:
        value = self._object("provenance", value, {f.name for f in fields(Provenance)})
        if not isinstance(value["options"], dict):
            raise self._bad("provenance.options", value["options"], "a JSON object")
        for name in ("version", "data", "fingerprint"):
            self._text(f"provenance.{name}", value[name])
        for name in ("step", "rows"):
            self._whole(f"provenance.{name}", value[name], 0, 2**63 - 1)
        return Provenance(**value)

    def _object(self, name: str, value: Any, names: set[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._bad(name, value, "a JSON object")
        for key in sorted(value.keys() ^ names):
            got = "nothing" if key in names else "a name that this version does not know"
            raise UserError(f"{self.source}: {name}: {shown(key[:60])}", got, "the names of this format")
        return value

    def _list(self, name: str, value: Any, least: int, most: int) -> list[Any]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise self._bad(name, value, f"a list of {least} to {most} values")
        return value

    def _whole(self, name: str, value: Any, low: int, high: int) -> int:
        if type(value) is not int or not low <= value <= high:
            raise self._bad(name, value, f"a whole number from {low} to {high}")
        return value

    def _text(self, name: str, value: Any, choices: tuple[str, ...] = ()) -> str:
        if not isinstance(value, str) or not value.isprintable() or (choices and value not in choices):
            raise self._bad(name, value, "one of " + ", ".join(choices) if choices else "printable text")
        return value

    def _bad(self, name: str, value: Any, wanted: str, hint: str = "") -> UserError:
        """Return the error for a value, however long or strange it is."""
        brief = (
            ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
        )
        return UserError(f"{self.source}: {name}", brief[:80], wanted, hint)
