import io
import pickle
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from fastgan.data import load


@pytest.fixture
def npy(tmp_path):
    def save(array, name="my data.npy"):
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    return save


@pytest.fixture
def npz(tmp_path):
    def save(*unnamed, **named):
        np.savez(tmp_path / "x.npz", *unnamed, **named)
        return str(tmp_path / "x.npz")

    return save


@pytest.mark.parametrize(
    "shape, kind, row",
    [((3, 7), "array", (7,)), ((3, 2, 5), "image", (2, 5)), ((3, 2, 5, 3), "image", (2, 5, 3))],
)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint16", "float16", "float32", "float64", ">f8", ">i4"])
def test_layouts_and_dtypes(npy, shape, kind, row, dtype):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    data = load(npy(array))
    stored = "float32" if np.dtype(dtype).kind == "f" else "uint8"
    assert (data.schema.kind, data.schema.shape, data.schema.dtype) == (kind, row, stored)
    assert data.rows.dtype == stored and (data.rows == array.reshape(3, -1)).all()
    assert data.rows.flags.c_contiguous and data.rows.flags.writeable
    assert data.labels is None and data.name == "my-data"


def test_bool_becomes_black_and_white(npy):
    assert load(npy(np.array([[True, False]]))).rows.tolist() == [[255, 0]]


def test_fortran_order(npy):
    array = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    data = load(npy(array))
    assert (data.rows == array).all() and data.rows.flags.c_contiguous


@pytest.mark.parametrize("value, shown", [(-1, "-1 to 5"), (256, "0 to 256"), (2**62, f"0 to {2**62}")])
def test_integers_out_of_range(npy, refused, value, shown):
    text = refused(npy(np.array([[0, 5], [value, 1]])))
    assert f"int64 values from {shown}" in text and "float32" in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(npy, refused, bad):
    array = np.zeros((4, 3, 2), np.float32)
    array[2, 1, 0] = array[3, 0, 0] = bad
    assert "2 NaN or infinite values, the first at [2, 1, 0]" in refused(npy(array))


def test_overflow_of_float32(npy, refused):
    assert "1 values too large for float32, the first at [0, 1]" in refused(npy(np.array([[0, 1e39]])))


def test_values_below_float32_are_fine(npy):
    assert load(npy(np.array([[1e-300, 1.0]]))).rows.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "array, words",
    [
        (np.array([[1, "a"], [None, 2]], object), "run code"),
        (np.zeros((2, 2), complex), "an array of complex128"),
        (np.zeros((2, 2), "M8[s]"), "an array of datetime64[s]"),
        (np.array([["a"]]), "an array of <U1"),
        (np.zeros(3, [("a", "f4")]), "an array of [('a'"),
        (np.float32(3), "shape []"),
        (np.zeros(3), "reshape(-1, 1)"),
        (np.zeros((1, 2, 3, 3, 3)), "shape [1, 2, 3, 3, 3]"),
        (np.zeros((2, 3, 8, 8)), "transpose(0, 2, 3, 1)"),
        (np.zeros((2, 8, 8, 4)), "alpha"),
        (np.zeros((0, 3)), "has no rows"),
        (np.zeros((3, 0)), "rows are empty"),
    ],
)
def test_refused_arrays(npy, refused, array, words):
    assert words in refused(npy(array))


def test_nothing_is_unpickled(tmp_path, refused):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('unpickled')",)

    np.save(tmp_path / "x.npy", np.array([Bomb()], object), allow_pickle=True)
    refused(tmp_path / "x.npy")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / "x.pkl")


def test_sizes_that_do_not_match(tmp_path, npy, refused):
    path = tmp_path / "my data.npy"
    npy(np.zeros((2, 2), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "only 15 bytes" in refused(path) and "cut short" in refused(path)
    path.write_bytes(whole + b"\0")
    assert "more than 16 bytes" in refused(path)
    path.write_bytes(whole[:30])
    assert "cannot be read" in refused(path)


@pytest.mark.parametrize("shape", [(10**11, 1000), (10**300, 1), (-1, 4), (0, 10**14, 10**14)])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_lying_header_costs_neither_memory_nor_time(tmp_path, refused, shape, zipped):
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    path = tmp_path / "x"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("rows.npy", stream.getvalue())
    else:
        path.write_bytes(stream.getvalue())
    tracemalloc.start()
    start = time.perf_counter()
    refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6 and time.perf_counter() - start < 2


@pytest.mark.parametrize("key", ["images", "x", "data", "rows", "anything"])
@pytest.mark.parametrize("label_key", ["labels", "y"])
def test_npz_keys(npz, images, key, label_key):
    labels = np.array([5, 5, 7, 5, -2, 5, 5, 5, 5, 5])
    data = load(npz(**{key: images, label_key: labels}))
    assert (data.rows == images.reshape(10, -1)).all()
    assert data.schema.classes == ("-2", "5", "7")
    assert data.labels.dtype == np.int64 and data.labels.tolist() == [1, 1, 2, 1, 0, 1, 1, 1, 1, 1]


def test_npz_unnamed_and_compressed(npz, images, tmp_path):
    assert load(npz(images)).labels is None
    np.savez_compressed(tmp_path / "c.npz", images)
    assert load(str(tmp_path / "c.npz")).fingerprint() == load(npz(images)).fingerprint()


def test_npz_named_rows_win_over_other_arrays(npz, images):
    assert len(load(npz(images=images, extra=np.zeros(3)))) == 10


def test_npz_without_a_clear_choice(npz, images, refused):
    for arrays in ({}, {"a": images, "b": images}, {"x": images, "data": images}, {"labels": images}):
        text = refused(npz(**arrays))
        assert "one of images, x, data, rows" in text
    assert "at most one of labels, y" in refused(npz(x=images, y=np.zeros(10), labels=np.zeros(10)))


@pytest.mark.parametrize("kind", ["U", "S"])
def test_text_labels(npz, images, kind):
    data = load(
        npz(x=images, y=np.array(["dög", "cat"] * 5).astype("U") if kind == "U" else [b"d", b"c"] * 5)
    )
    assert data.schema.classes == (("cat", "dög") if kind == "U" else ("c", "d"))
    assert data.labels.tolist() == [1, 0] * 5


def test_labels_in_a_column(npz, images):
    assert load(npz(x=images, y=np.arange(10).reshape(10, 1))).labels.tolist() == list(range(10))


@pytest.mark.parametrize(
    "labels, words",
    [
        (np.zeros(9, int), "10 rows with 9 labels"),
        (np.eye(10, dtype=int), "argmax"),
        (np.zeros(10), "labels of float64"),
        (np.array([None] * 10), "pickle"),
        (np.array(["a\nb"] * 10), "class name 'a\\nb'"),
        (np.array([b"\xff"] * 10), "not valid text"),
    ],
)
def test_refused_labels(npz, images, refused, labels, words):
    assert words in refused(npz(x=images, y=labels))


def test_at_most_1024_classes(npz, refused):
    rows = np.zeros((1025, 1), np.float32)
    assert len(load(npz(x=rows[:1024], y=np.arange(1024))).schema.classes) == 1024
    assert "1,025 different labels; wanted at most 1,024" in refused(npz(x=rows, y=np.arange(1025)))


def test_damaged_zip(npz, images, tmp_path, refused):
    path = tmp_path / "x.npz"
    npz(images=images)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert "cannot be read (File is not a zip file)" in refused(path)
    middle = whole.index(images.tobytes()[:20])
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert "Bad CRC-32" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays here")
    assert "got no arrays" in refused(path)


def test_suffix_does_not_matter(npy, tmp_path, images):
    npy(images)
    (tmp_path / "my data.npy").rename(tmp_path / "plain")
    assert len(load(str(tmp_path / "plain"))) == 10
