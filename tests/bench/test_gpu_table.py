"""The gate on what compiled Triton kernels take: it can fail, its record is whole, a part is renewed."""

from __future__ import annotations

import copy
import json

import pytest

pytest.importorskip("triton", reason="no Triton")

from fastgan.kernels import triton as kernels

if kernels.interpreted():
    pytest.skip("kernels are interpreted here", allow_module_level=True)

import triton

from bench import gpu_table
from bench.gpu_cases import cases
from bench.gpu_compile import TARGETS

RECORD = json.loads(gpu_table.RECORD.read_text())
ALL = [(case, target) for target in TARGETS for case in cases(target)]
STEPS = [one for one in ALL if one[0].startswith(("step | ", "rows | "))]
WHOLE = [("step | tf32 | default", "sm_90"), ("rows | tf32 | default", "sm_90")]
PART = [*[one for one in ALL if one not in STEPS][::37], *WHOLE]
"""CI compiles these; everything: ``python -m bench.gpu_table --check``."""


def test_the_record_covers_every_case():
    recorded = {name.split(" | ", 1)[1] for name in RECORD["rows"]}
    assert recorded == {f"{case.split(' | ', 1)[1]} | {target}" for case, target in ALL}


def test_the_record_has_no_faults():
    assert gpu_table.faults(RECORD["rows"], {"triton": "none"}) == []


def test_the_readme_shows_the_record():
    text = gpu_table.README.read_text()
    assert gpu_table.readme_with(text, RECORD) == text


def test_a_part_compiled_anew_is_no_worse(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    rows = gpu_table.measure_all(PART, processes=2)
    assert len(rows) >= len(PART)
    assert gpu_table.faults(rows, RECORD) == []


NAME = "_linear_leaky_relu_fwd_kernel | bfloat16 | large | sm_90"
WORSE = {
    "stack": (8, "8 bytes of stack; wanted none"),
    "shared": (228 << 10, "233472 bytes of shared memory; the limit is 232448"),
    "registers": (255, "registers 255, recorded"),
    "tensor": ({}, "no tensor-core instruction"),
}


@pytest.mark.parametrize("field", WORSE)
def test_worse_is_told(field, monkeypatch):
    monkeypatch.setattr(triton, "__version__", RECORD["triton"])
    value, message = WORSE[field]
    rows = copy.deepcopy({NAME: RECORD["rows"][NAME]})
    assert gpu_table.faults(rows, RECORD) == []
    rows[NAME][field] = value
    assert any(message in line for line in gpu_table.faults(rows, RECORD))


def test_a_row_has_the_most_of_a_kernels_launches():
    one = dict(registers=40, stack=0, shared=9, tensor={"HMMA": 4, "HGMMA": 1})
    other = dict(registers=30, stack=8, shared=10, tensor={"HMMA": 2})
    assert gpu_table.worst(one, other) == dict(registers=40, stack=8, shared=10, tensor={"HMMA": 2})
    assert gpu_table.worst(one, one | {"tensor": {}})["tensor"] == {}  # one launch without is a fault


@pytest.mark.parametrize("kernel", ["step_update_kernel", "step_layer_fwd_kernel"])
def test_products_of_a_step_without_tensor_cores_are_told(kernel):
    name = f"{kernel} | tf32 | default | sm_90"
    row = RECORD["rows"][name] | {"tensor": {}}
    assert gpu_table.faults({name: row}, {"triton": "none"}) == [f"{name}: no tensor-core instruction"]


def test_other_tensor_cores_are_told(monkeypatch):
    monkeypatch.setattr(triton, "__version__", RECORD["triton"])
    rows = copy.deepcopy({NAME: RECORD["rows"][NAME]})
    rows[NAME]["tensor"] = {"HMMA.16816.F32.BF16": 8}
    assert gpu_table.faults(rows, RECORD) == [f"{NAME}: tensor-core instructions HMMA, recorded HGMMA"]


def test_a_row_without_a_record_is_told(monkeypatch):
    monkeypatch.setattr(triton, "__version__", RECORD["triton"])
    rows = {NAME.replace("fwd", "new"): RECORD["rows"][NAME]}
    assert any("not in the record" in line for line in gpu_table.faults(rows, RECORD))


def test_another_triton_is_held_to_the_limits_only(monkeypatch):
    monkeypatch.setattr(triton, "__version__", "3.99.0")
    rows = copy.deepcopy({NAME: RECORD["rows"][NAME]})
    rows[NAME]["registers"] = 255
    assert gpu_table.faults(rows, RECORD) == []
    rows[NAME]["stack"] = 8
    assert len(gpu_table.faults(rows, RECORD)) == 1


def test_a_tile_that_is_too_large_spills(tmp_path, monkeypatch):
    from fastgan.kernels.triton import tiles

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(tiles.TILES, "ieee", (tiles.Tile(64, 64, 32),) * 2)
    rows = gpu_table.measure("linear_leaky_relu_bwd_input | ieee | odd", "sm_80")
    assert any("bytes of stack" in line for line in gpu_table.faults(rows, {"triton": "none"})), rows


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A record and a README that may be written."""
    for name in ("RECORD", "README"):
        path = tmp_path / getattr(gpu_table, name).name
        path.write_text(getattr(gpu_table, name).read_text())
        monkeypatch.setattr(gpu_table, name, path)
    row = RECORD["rows"][NAME] | {"registers": 12}
    monkeypatch.setattr(gpu_table, "measure_all", lambda wanted, processes: {NAME: row})
    monkeypatch.setattr(gpu_table, "counts", lambda: RECORD["launches"])


def test_a_part_is_written_beside_the_rest(written, monkeypatch):
    monkeypatch.setattr(triton, "__version__", RECORD["triton"])
    assert gpu_table.main(["--write", "--check", "--only", "fwd", "--targets", "sm_90"]) == 0
    new = json.loads(gpu_table.RECORD.read_text())
    assert new["rows"].pop(NAME)["registers"] == 12
    assert new["rows"] == {k: v for k, v in RECORD["rows"].items() if k != NAME}
    assert new["inputs"] == RECORD["inputs"]
    assert gpu_table.main(["--write"]) == 0
    new = json.loads(gpu_table.RECORD.read_text())
    assert set(new["rows"]) == {NAME} and new["inputs"] == RECORD["inputs"]


def test_rows_of_two_tritons_are_not_mixed(written, monkeypatch, capsys):
    monkeypatch.setattr(triton, "__version__", "3.99.0")
    with pytest.raises(SystemExit):
        gpu_table.main(["--write", "--only", "dense"])
    assert "without these, all rows are renewed" in capsys.readouterr().err
    assert json.loads(gpu_table.RECORD.read_text()) == RECORD


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        gpu_table, "measure_all", lambda wanted, processes: {NAME: RECORD["rows"][NAME] | {"stack": 8}}
    )
    assert gpu_table.main(["--only", "fwd", "--targets", "sm_90"]) == 0
    assert gpu_table.main(["--only", "fwd", "--targets", "sm_90", "--check"]) == 1
    out = capsys.readouterr()
    assert "**8 bytes of stack**" in out.out and "wanted none" in out.err
    with pytest.raises(SystemExit):
        gpu_table.main(["--only", "nothing like this"])
