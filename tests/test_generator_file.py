"""Generator files: the same content back, the same bytes each time, and one clear line for anything else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from helpers.generators import generator_of, spec_of

from fastgan import generator_file
from fastgan.errors import UserError
from fastgan.models import Generator

PLAIN = generator_of(spec_of())
IMAGES = generator_of(spec_of(12, 3), shape=(2, 2, 3), counts=(5, 0, 9), names=("a", "b", "ü"))


def parts(generator) -> tuple[dict, dict[str, np.ndarray]]:
    """The JSON and the tensors of a file."""
    content = generator_file._encode(generator)
    length = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + length])["__metadata__"]["fastgan"]
    return json.loads(text), dict(generator.parameters)


def write(path, values, tensors, name="fastgan"):
    text = values if isinstance(values, str) else json.dumps(values)
    path.write_bytes(safetensors.numpy.save(tensors, {name: text}))
    return path


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        generator_file.load(path)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 1000
    return text


@pytest.mark.parametrize("generator", [PLAIN, IMAGES, replace(PLAIN, reports={"quality": {"fid": 1.5}})])
def test_what_was_saved_comes_back(tmp_path, generator):
    path = tmp_path / "g.safetensors"
    generator_file.save(path, generator)
    loaded = generator_file.load(path)
    for name in ("spec", "schema", "label_counts", "seed", "provenance", "reports"):
        assert getattr(loaded, name) == getattr(generator, name)
    assert loaded.parameters.keys() == generator.parameters.keys()
    for name, value in generator.parameters.items():
        assert loaded.parameters[name].dtype == np.float32
        np.testing.assert_array_equal(loaded.parameters[name], value)


def test_the_same_generator_is_the_same_bytes_and_another_is_not(tmp_path):
    one, other = tmp_path / "1", tmp_path / "2"
    generator_file.save(one, IMAGES)
    generator_file.save(other, generator_file.load(one))
    assert one.read_bytes() == other.read_bytes()
    digests = [generator_file.digest(g) for g in (generator_file.load(one), IMAGES, replace(IMAGES, seed=4))]
    assert digests[0] == digests[1] != digests[2]


def test_plain_pytorch_reads_the_parameters(tmp_path):
    generator_file.save(tmp_path / "g", IMAGES)
    model = Generator(IMAGES.spec)
    model.load_state_dict(safetensors.torch.load_file(tmp_path / "g"))
    assert torch.equal(model.layers[0].bias, torch.from_numpy(IMAGES.parameters["layers.0.bias"]))


# ---- what is refused


def test_other_places(tmp_path):
    assert "no such file" in refused(tmp_path / "nothing")
    assert "a folder" in refused(tmp_path)
    generator_file.save(tmp_path / generator_file.NAME, PLAIN)
    assert str(tmp_path / generator_file.NAME) in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    assert "no regular file" in refused(tmp_path / "pipe")
    assert "null" in refused("a\0b")


@pytest.mark.parametrize(
    "content", [b"", b"\2\0\0\0\0\0\0", b"\xff" * 8, b"\xff\xff\xff\0\0\0\0\0", b"PK\3\4" * 99]
)
def test_other_files(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    assert "no safetensors file" in refused(tmp_path / "f")


def test_safetensors_of_others(tmp_path):
    assert "without an entry 'fastgan'" in refused(write(tmp_path / "f", {}, {}, "other"))
    (tmp_path / "f").write_bytes(safetensors.numpy.save({"x": np.zeros(3)}))
    assert "without an entry 'fastgan'" in refused(tmp_path / "f")


def change(**values):
    return lambda v: v | values


def within(name, **values):
    return lambda v: v | {name: v[name] | values}


def without(name):
    return lambda v: {k: x for k, x in v.items() if k != name}


@pytest.mark.parametrize(
    ("changed", "parts_of_message"),
    [
        (change(format=2), ["format", "2", "newer fastgan"]),
        (change(format="1"), ["format", "'1'"]),
        (without("seed"), ["seed", "nothing"]),
        (change(extra=1), ["extra", "does not know"]),
        (change(seed=-1), ["seed", "-1"]),
        (change(seed=1.5), ["seed", "1.5"]),
        (change(seed=True), ["seed", "True"]),
        (change(seed=2**63), ["seed"]),
        (change(label_counts=[1, 2]), ["label_counts", "list"]),
        (change(label_counts=[0, 0, 0]), ["label_counts", "at least one row"]),
        (change(label_counts=[1, 2, -3]), ["label_counts", "-3"]),
        (change(spec=[]), ["spec", "list"]),
        (within("spec", latent=0), ["spec", "latent", "0"]),
        (within("spec", latent=2**40), ["spec", "latent", str(2**40)]),
        (within("spec", g_hidden=[]), ["spec", "g-hidden"]),
        (within("spec", g_hidden=[4096] * 17), ["spec", "g-hidden"]),
        (within("spec", slope=float("1e999")), ["JSON"]),
        (within("spec", slope="x"), ["spec", "slope"]),
        (within("spec", head="relu"), ["spec", "head", "relu"]),
        (within("spec", features=13), ["spec.features", "13", "12"]),
        (within("spec", classes=2), ["spec.classes", "2", "0 or the 3"]),
        (within("spec", depth=2), ["spec", "depth"]),
        (within("schema", kind="table"), ["schema.kind", "'table'", "image, array"]),
        (within("schema", kind="array"), ["schema.shape"]),
        (within("schema", dtype="object"), ["schema.dtype", "'object'"]),
        (within("schema", shape=[2, 6, 1]), ["schema.shape", "channels"]),
        (within("schema", shape=[2**22, 2**22]), ["spec.features"]),
        (within("schema", classes=["a", "a", "b"]), ["schema.classes", "different"]),
        (within("schema", classes=["a", "b", "\x1b[2J"]), ["schema.classes", "printable"]),
        (within("schema", classes=["a", "b", "\ud800"]), ["schema.classes", "printable"]),
        (within("schema", classes=["a"] * 1025), ["schema.classes"]),
        (within("provenance", step="7"), ["provenance.step"]),
        (within("provenance", data="\n"), ["provenance.data"]),
        (within("provenance", options=[]), ["provenance.options"]),
        (change(provenance={}), ["provenance", "nothing"]),
        (change(reports=[1]), ["reports", "list"]),
    ],
)
def test_values_out_of_bounds_are_named(tmp_path, changed, parts_of_message):
    values, tensors = parts(IMAGES)
    message = refused(write(tmp_path / "g", changed(values), tensors))
    for part in parts_of_message:
        assert part in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        '{"format": 1, "format": 1}',
        "[" * 10_000,
        '{"a":' * 10_000,
        '{"seed": ' + "9" * 5000 + "}",
        '{"x": NaN}',
        '{"x": 1e999}',
        '{"x": -1e999}',
        '{"x": ' + "[" * 32 + "]" * 32 + "}",
    ],
)
def test_damaged_json(tmp_path, text):
    assert "JSON" in refused(write(tmp_path / "g", text, PLAIN.parameters))


def test_reports_may_be_nested_but_not_deep(tmp_path):
    deep = json.loads('{"x": ' * 31 + "[]" + "}" * 31)  # 32 levels with the list, and the file's own object
    values, tensors = parts(PLAIN)
    path = write(tmp_path / "g", values | {"reports": deep["x"]}, tensors)
    assert generator_file.load(path).reports == deep["x"]
    assert "nested more than 32 deep" in refused(write(path, values | {"reports": deep}, tensors))
    path.unlink()
    with pytest.raises(UserError, match="nested more than 32 deep"):
        generator_file.save(path, replace(PLAIN, reports=deep))
    assert not path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t | {"extra": np.zeros(2, np.float32)},
        lambda t: {k: v for k, v in t.items() if k != "layers.0.bias"},
        lambda t: t | {"layers.0.weight": t["layers.0.weight"].T.copy()},
        lambda t: t | {"layers.0.bias": t["layers.0.bias"].view(np.int32)},
        lambda t: t | {"layers.0.bias": t["layers.0.bias"].astype(np.float64)},
        lambda t: t | {"layers.0.bias": np.full_like(t["layers.0.bias"], np.nan)},
        lambda t: t | {"layers.2.weight": np.full_like(t["layers.2.weight"], np.inf)},
    ],
)
def test_tensors_that_do_not_fit_the_spec(tmp_path, damage):
    values, tensors = parts(PLAIN)
    refused(write(tmp_path / "g", values, damage(tensors)))


def test_a_renamed_tensor_of_the_same_size_is_named(tmp_path):
    values, tensors = parts(PLAIN)
    tensors["layers.0.bi\tas"] = tensors.pop("layers.0.bias")
    message = refused(write(tmp_path / "g", values, tensors))
    assert "layers.0.bi\\tas" in message and "does not have" in message


def test_a_file_cut_short_or_with_more_behind_it(tmp_path):
    generator_file.save(tmp_path / "g", PLAIN)
    content = (tmp_path / "g").read_bytes()
    for damaged in (content[:-1], content + b"\0", content[:-400]):
        (tmp_path / "g").write_bytes(damaged)
        assert f"{len(content):,} bytes" in refused(tmp_path / "g")


def test_nothing_beyond_the_bounds_is_written(tmp_path):
    huge = replace(PLAIN, spec=spec_of(2**22 + 1))
    with pytest.raises(UserError, match="features"):
        generator_file.save(tmp_path / "g", huge)
    with pytest.raises(UserError, match="too long"):
        generator_file.save(tmp_path / "g", replace(PLAIN, reports={"x": "y" * 2**20}))
    with pytest.raises(ValueError, match="JSON"):
        generator_file.save(tmp_path / "g", replace(PLAIN, reports={"x": float("nan")}))
    assert list(tmp_path.iterdir()) == []


# ---- memory, and other files


@pytest.fixture
def peak():
    """Return the most memory that Python held during a call, in MB."""

    def measure(call, *arguments):
        tracemalloc.start()
        try:
            call(*arguments)
            return tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()

    return measure


def test_what_a_header_claims_takes_no_memory(tmp_path, peak):
    values, tensors = parts(PLAIN)
    values["spec"] |= dict(latent=4096, g_hidden=[4096] * 8)
    path = write(tmp_path / "g", values, tensors)
    assert peak(refused, path) < 1
    with open(path, "r+b") as file:
        file.truncate(2**40)  # a file with a hole: nothing on the disk
    assert peak(refused, path) < 1


def test_a_file_with_a_hole_of_all_it_claims_is_not_read(tmp_path, peak):
    values, tensors = parts(PLAIN)
    values["spec"] |= dict(features=2**17, g_hidden=[4096], latent=1)
    values["schema"]["shape"] = [2**17]
    path = write(tmp_path / "g", values, tensors)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    with open(path, "r+b") as file:
        file.truncate(header + 4 * (2 * 4096 + (4096 + 1) * 2**17))
    assert peak(refused, path) < 1
    assert "parameters" in refused(path)


@pytest.mark.parametrize("item", ["[],", "{},", '"",', '{"a":1},', "1,"])
def test_a_header_full_of_small_values_stays_small(tmp_path, peak, item):
    size = generator_file.MOST_HEADER - 100
    header = b'{"__metadata__":[' + (item * (size // len(item))).encode() + b"0]}"
    (tmp_path / "g").write_bytes(len(header).to_bytes(8, "little") + header)
    assert peak(refused, tmp_path / "g") < 100


def test_loading_opens_the_file_alone_and_runs_nothing(tmp_path):
    generator_file.save(tmp_path / "g", IMAGES)
    code = f"""
import sys
import numpy, safetensors.numpy
from fastgan import generator_file
generator_file.load({str(tmp_path / "g")!r})
seen = []
sys.addaudithook(lambda event, arguments: seen.append((event, str(arguments[:1]))))
generator_file.load({str(tmp_path / "g")!r})
kinds = "open import exec compile subprocess socket os ctypes shutil marshal pickle".split()
print([s for s in seen if s[0].split(".")[0] in kinds])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\[\('open', \"\('[^']*/g',\)\"\)\]\n", done.stdout), done.stdout
