"""Virtual tables: what they hold, their parts, and what is computed for a scan."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from helpers.generators import generator_of, spec_of

from fastgan.errors import UserError
from fastgan.sampler import Sampler
from fastgan.virtual import VirtualTable, columns


@pytest.fixture
def computed(monkeypatch):
    """Count what samplers compute: numbers of values, by call."""
    calls = []
    for name in ("rows", "take"):
        real = getattr(Sampler, name)

        def counted(self, *arguments, real=real, **options):
            out = real(self, *arguments, **options)
            calls.append(out.size)
            return out

        monkeypatch.setattr(Sampler, name, counted)
    return calls


def test_a_table_holds_the_generators_rows(generator):
    table = VirtualTable(generator, 700)
    sampler = Sampler(generator)
    rows, labels = sampler.rows(0, 700), sampler.labels(0, 700)
    read = table.to_table()
    assert read.schema == table.schema and read.num_rows == len(table) == table.num_rows == 700
    assert read["row"].to_pylist() == list(range(700))
    if labels is None:
        assert "label" not in read.column_names
    else:
        names = [generator.schema.classes[i] for i in labels]
        assert [str(v) for v in read["label"].to_pylist()] == names
    if generator.schema.kind == "image":
        flat = read["image"].combine_chunks().values.to_numpy().reshape(rows.shape)
        np.testing.assert_array_equal(flat, rows)
        assert table.schema.field("image").metadata == {b"shape": str(list(generator.schema.shape)).encode()}
    else:
        for i in range(rows.shape[1]):
            np.testing.assert_array_equal(read[f"x{i}"].to_numpy(), rows[:, i])
    assert not any(field.nullable for field in table.schema)


def test_types_of_labels(labelled):
    assert VirtualTable(labelled, 1).schema.field("label").type == pa.int64()
    for names in (("a", "b", "c"), ("1", "2", "03"), ("1", "2", ""), ("1", "2", "9" * 19), ("1", "2", "٣")):
        table = VirtualTable(generator_of(spec_of(5, 3), names=names), 50)
        assert table.schema.field("label").type == pa.dictionary(pa.int16(), pa.string())
        assert set(table.to_table()["label"].to_pylist()) <= set(names)


def test_files_are_read_once(path):
    table = VirtualTable(path, 10)
    path.unlink()
    assert table.to_table().num_rows == 10 and "generator.safetensors" in repr(table)


def test_slices_keep_their_numbers(generator):
    table = VirtualTable(generator, 10_000)
    whole = table.to_table()
    for part, start, stop in (
        (table[10:20], 10, 20),
        (table[:], 0, 10_000),
        (table[-3:], 9997, 10_000),
        (table[5:3], 5, 5),
        (table[100:][50:60], 150, 160),
        (table[9_990:99_999], 9_990, 10_000),
    ):
        assert len(part) == stop - start
        assert part.to_table().equals(whole.slice(start, stop - start))


def test_far_rows(features):
    table = VirtualTable(features, 2**62)[2**61 :][2**40 : 2**40 + 3]
    assert table.to_table()["row"].to_pylist() == [2**61 + 2**40 + i for i in range(3)]


def test_seeds_and_threads(features):
    whole = VirtualTable(features, 2000, threads=1).to_table()
    assert VirtualTable(features, 2000, seed=3, threads=3).to_table().equals(whole)
    assert not VirtualTable(features, 2000, seed=4).to_table().equals(whole)


def test_take_is_any_order(generator):
    table = VirtualTable(generator, 500)[100:]
    index = [7, 3, 3, 399]
    assert table.take(index).equals(table.to_table().take(index).combine_chunks())
    assert table.take([]).equals(table[:0].to_table()) and table.take([]).num_rows == 0


def test_pickles(path):
    table = VirtualTable(path, 100, where={"label": 7})[20:40].select(["label", "row"])
    again = pickle.loads(pickle.dumps(table))
    path.unlink()
    assert again.to_table().equals(table.to_table()) and repr(again) == repr(table)


# ---- labels


def test_rows_of_one_label(labelled):
    table = VirtualTable(labelled, 900)
    drawn = table.to_table()
    for name in (7, "7", np.int64(7)):
        some = VirtualTable(labelled, 900, where={"label": name}).to_table()
        assert set(some["label"].to_pylist()) == {7}
        same = np.flatnonzero(drawn["label"].to_numpy() == 7)
        assert some.take(same).combine_chunks().equals(drawn.take(same).combine_chunks())


# ---- columns


def test_columns_in_the_order_given(features):
    table = VirtualTable(features, 300, columns=["x7", "row", "x0"])
    whole = VirtualTable(features, 300).to_table()
    assert table.to_table().equals(whole.select(["x7", "row", "x0"]))
    assert table.select(["x0"]).column_names == ["x0"]


def test_only_what_is_asked_for_is_computed(labelled, features, computed):
    table = VirtualTable(features, 1000)
    table.select(["x3", "x9"]).to_table()
    table.to_table(columns=["x3", "row"])
    assert sum(computed) == 3000
    images = VirtualTable(labelled, 1000)
    images.select(["row", "label"]).to_table()
    images.to_table(columns=["label"])
    assert images.count_rows() == 1000
    assert sum(computed) == 3000
    images[10:20].to_table()
    assert sum(computed) == 3120


def test_a_filter_computes_its_columns_too(features, computed):
    table = VirtualTable(features, 1000)
    whole = table.to_table()
    some = table.to_table(columns=["row"], filter=(ds.field("x3") > 0) & (ds.field("x12") > 0))
    wanted = (whole["x3"].to_numpy() > 0) & (whole["x12"].to_numpy() > 0)
    assert some["row"].to_pylist() == np.flatnonzero(wanted).tolist()
    # The text of the filter has x1 in x12: x1 is computed in vain, the other thirteen are not.
    assert sum(computed) == 16_000 + 3_000
    assert table.count_rows(ds.field("x3") > 0) == (whole["x3"].to_numpy() > 0).sum()
    named = table.to_table(columns={"double": ds.field("x0") * 2})
    np.testing.assert_array_equal(named["double"].to_numpy(), whole["x0"].to_numpy() * 2)


def test_stopping_early_computes_little(labelled, computed):
    table = VirtualTable(labelled, 2**40, columns=["image"])
    stream = table.batches()
    assert stream.read_next_batch().num_rows > 1000
    assert len(computed) == 1
    assert table.head(5).num_rows == 5
    assert len(computed) < 8


@pytest.mark.parametrize("kind", [tuple, np.array, iter])
def test_columns_in_any_list(features, kind):
    table = VirtualTable(features, 5, columns=kind(["x3", "row"]))
    assert table.to_table().column_names == ["x3", "row"]
    assert table.batches(kind(["row"])).read_all().column_names == ["row"]


def test_choices_of_columns_leave_no_threads_and_no_weights_behind(features):
    table = VirtualTable(features, 10, threads=2)
    before, whole = native_threads(), table.to_table()
    for names in itertools.combinations([f"x{i}" for i in range(9)], 2):
        assert table.select(names)[3:5].to_table().equals(whole.select(names).slice(3, 2))
        assert table.to_table(columns=list(names)).equals(whole.select(names))
    assert len(table._sampler._computers) == 4
    assert native_threads() <= before + 4


def native_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_many_columns_are_not_searched_one_by_one():
    generator = generator_of(spec_of(32_000, latent=1, g_hidden=(1,)), dtype="float32")
    begin = time.process_time()
    table = VirtualTable(generator, 3)
    assert table.select(table.column_names[::-1])[:1].to_table().num_columns == 32_001
    assert time.process_time() - begin < 4  # 0.5 s; 8.2 s where each name is looked for in a list


# ---- what pyarrow can do with a Dataset, beside scanning it


@pytest.mark.parametrize(
    "use",
    [
        lambda t: ds.dataset([t]).to_table(),
        lambda t: ds.Scanner.from_dataset(t).to_table(),
        lambda t: next(t.get_fragments()).to_table(),
        lambda t: t.replace_schema(t.schema).to_table(),
        lambda t: t.sort_by("row"),
        lambda t: t.join(t, "row"),
    ],
)
def test_pyarrow_reading_behind_its_back_gets_an_error_and_no_crash(features, use):
    with pytest.raises(UserError, match="a scan"):
        use(VirtualTable(features, 10))


# ---- without pyarrow


def test_without_pyarrow_the_extra_is_named():
    code = """
import sys
sys.modules["pyarrow"] = None
import fastgan.virtual
try:
    fastgan.virtual.VirtualTable
except ValueError as error:
    print(error)
fastgan.virtual.VirtualDataset
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the extra 'virtual'" in done.stdout and 'pip install "fastgan[virtual]"' in done.stdout


def test_reading_rows_needs_no_torch(path):
    if Sampler(VirtualTable(path, 1).generator).engine != "cpu":
        pytest.skip("PyTorch computes the rows")
    code = f"""
import sys
from fastgan.virtual import VirtualTable
VirtualTable({str(path)!r}, 100).to_table()
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_importing_the_package_needs_neither_torch_nor_pyarrow():
    code = "import fastgan.virtual, sys; print({'torch', 'pyarrow', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    with pytest.raises(ImportError):
        from fastgan.virtual import VirtualTabel  # noqa: F401


def test_every_kind_of_column_says_what_it_needs(generator):
    for column in columns.columns_of(generator).values():
        assert column.field().name == column.name
        assert set(column.outputs) <= set(range(generator.spec.features))
