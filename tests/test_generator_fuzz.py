"""Ten thousand damaged generator files: each is refused in one clear line, or loads and can be used."""

from __future__ import annotations

import json
import random
import tracemalloc

import numpy as np
import pytest
from helpers.generators import generator_of, spec_of

from fastgan import generator_file, info
from fastgan.data import idx
from fastgan.errors import UserError
from fastgan.sampler import Sampler
from fastgan.trained import TrainedGenerator, generator_shapes
from fastgan.virtual import VirtualTable
from fastgan.virtual.formats import FORMATS, Source

FILES = 10_000
DEEP = json.loads("[" * 900 + "]" * 900)
WORDS = [
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    1e308,
    -0.5,
    "",
    "x",
    "\0",
    "\ud800",
    None,
    True,
    [],
    {},
    [[]],
    "F64",
    "U8",
    float("inf"),  # is written as 1e999, which json reads as infinite without asking
    DEEP,
    "9" * 5000,
    "07",
]


def content_of(generator: TrainedGenerator) -> bytes:
    return generator_file._encode(generator)


WHOLE = [
    content_of(generator_of(spec_of(4, latent=2, g_hidden=(3,)))),
    content_of(generator_of(spec_of(12, 3, latent=1, g_hidden=(2, 2)), shape=(2, 2, 3))),
]


def flip(content: bytes, chance: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        # Mostly in the header; the tensors' bits are nearly all allowed.
        at = chance.randrange(8 if chance.random() < 0.1 else len(out))
        out[at] = chance.randrange(256)
    return bytes(out)


def cut(content: bytes, chance: random.Random) -> bytes:
    a, b = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return chance.choice(
        (content[:a], content[:a] + content[b:], content[:b] + content[a:], content + content[:a])
    )


def text_of(value: object) -> str:
    return json.dumps(value).replace("Infinity", "1e999")


def header(content: bytes, chance: random.Random) -> bytes:
    """Another value somewhere in the header of safetensors or in fastgan's JSON, its length set right."""
    length = int.from_bytes(content[:8], "little")
    outer = json.loads(content[8 : 8 + length])
    if chance.random() < 0.7:
        inner = json.loads(outer["__metadata__"]["fastgan"])
        mutate(inner, chance)
        outer["__metadata__"]["fastgan"] = text_of(inner)
    else:
        mutate(outer, chance)
    new = text_of(outer).encode()
    return len(new).to_bytes(8, "little") + new + content[8 + length :]


def mutate(value: dict | list, chance: random.Random) -> None:
    """Replace, remove, double or rename one item of a random object or list below ``value``."""
    places = []

    def collect(item):
        if isinstance(item, (dict, list)) and item:
            places.append(item)
            for child in item.values() if isinstance(item, dict) else item:
                collect(child)

    collect(value)
    place = chance.choice(places)
    key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
    action = chance.randrange(4)
    if action == 0:
        place[key] = chance.choice(WORDS)
    elif action == 1 and isinstance(place[key], int):
        place[key] += chance.choice((-1, 1, 2**20, 2**40))
    elif action == 2:
        del place[key]
    elif isinstance(place, dict):
        name = chance.choice(("", "x", "layers.0.weight", "layers.9.bias", key + "\n"))
        place[name] = place.pop(key)
    else:
        place.append(place[key])


@pytest.mark.parametrize("damage", [flip, cut, header])
def test_damaged_files_are_refused_in_one_line_or_load_whole(tmp_path, damage, capsys):
    chance = random.Random(damage.__name__)
    path = tmp_path / "generator.safetensors"
    outcomes = []
    for i in range(-(-FILES // 3)):
        path.write_bytes(damage(WHOLE[i % len(WHOLE)], chance))
        if i % 10:
            outcomes.append(load_or_refuse(path))
            if outcomes[-1] == "loaded":
                use(path)
                capsys.readouterr()
            continue
        tracemalloc.start()  # three times as slow
        try:
            outcomes.append(load_or_refuse(path))
            assert tracemalloc.get_traced_memory()[1] < 1e6
        finally:
            tracemalloc.stop()
    assert outcomes.count("refused") > outcomes.count("loaded")


def load_or_refuse(path) -> str:
    try:
        generator = generator_file.load(path)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return "refused"
    shapes = generator_shapes(generator.spec)
    assert {name: value.shape for name, value in generator.parameters.items()} == shapes
    for value in generator.parameters.values():
        assert value.dtype == np.float32 and np.isfinite(value).all()
    return "loaded"


def use(path):
    """Do with a file that loads what the commands do: none of it fails."""
    assert info.main([str(path)]) == 0
    generator = generator_file.load(path)
    schema, sampler = generator.schema, Sampler(generator)
    assert sampler.rows(0, 5).shape == (5, *schema.shape)
    table, labels = VirtualTable(generator, 5).to_table(), sampler.labels(0, 5)
    if labels is None:
        return
    assert [str(label) for label in table["label"].to_pylist()] == [schema.classes[i] for i in labels]
    if schema.kind == "image":
        format_ = FORMATS["idx"](Source(generator, sampler.seed, None, None, threads=1))
        written = path.with_name(format_.names("x")[0])
        format_.write(written, range(5), print)
        pairs = set(zip(idx.read(written, "x").tolist(), labels.tolist(), strict=True))
        assert len(pairs) == len({label for label, _ in pairs}) == len(set(labels.tolist()))
