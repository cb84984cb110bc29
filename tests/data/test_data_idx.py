import gzip
import struct
import time
import tracemalloc

import numpy as np
import pytest

from fastgan.data import load


def test_real_mnist_folder(real_mnist):
    data = load(str(real_mnist))
    assert data.rows.shape == (10_000, 784) and data.rows.dtype == np.uint8
    assert data.rows.flags.c_contiguous and data.rows.flags.writeable
    assert data.schema.kind == "image" and data.schema.shape == (28, 28)
    assert data.schema.classes == tuple("0123456789")
    assert data.labels.dtype == np.int64 and data.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.name == "mnist" and "t10k-images-idx3-ubyte.gz" in data.source


def test_real_mnist_file_finds_its_labels(real_mnist):
    file = load(str(real_mnist / "t10k-images-idx3-ubyte.gz"))
    assert file.name == "t10k"
    assert file.fingerprint() == load(str(real_mnist)).fingerprint()


def test_real_mnist_labels_are_refused_with_the_images_named(real_mnist, refused):
    text = refused(real_mnist / "t10k-labels-idx1-ubyte.gz")
    assert "10,000 labels" in text and "Name t10k-images-idx3-ubyte.gz." in text


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_gzip_is_told_by_content_not_by_name(tmp_path, write_idx, images, packed, suffix):
    path = write_idx(tmp_path / f"some-images-idx3-ubyte{suffix}", images, packed)
    data = load(str(path))
    assert (data.rows.reshape(10, 4, 5) == images).all()
    assert data.labels is None and data.name == "some" and data.schema.classes == ()


@pytest.mark.parametrize("images_gz", ["", ".gz"])
@pytest.mark.parametrize("labels_gz", ["", ".gz"])
@pytest.mark.parametrize("names", ["a-{}-idx{}-ubyte", "a-{}.idx{}-ubyte"])
def test_labels_beside_the_images(tmp_path, write_idx, images, images_gz, labels_gz, names):
    path = write_idx(tmp_path / (names.format("images", 3) + images_gz), images)
    labels = np.array([9, 3, 3, 5, 9, 9, 3, 3, 3, 3], np.uint8)
    write_idx(tmp_path / (names.format("labels", 1) + labels_gz), labels)
    data = load(str(path))
    assert data.schema.classes == ("3", "5", "9")
    assert data.labels.tolist() == [2, 0, 0, 1, 2, 2, 0, 0, 0, 0]


def test_folder_prefers_train_and_says_so(tmp_path, write_idx, images):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images[:3])
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images, packed=True)
    write_idx(tmp_path / "train-images-idx3-ubyte", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(10, dtype=np.uint8))
    data = load(str(tmp_path))
    assert len(data) == 10 and data.labels.tolist() == list(range(10))
    assert data.source == f"{tmp_path} (train-images-idx3-ubyte; not used: t10k-images-idx3-ubyte)"


def test_folder_with_several_files_is_refused(tmp_path, write_idx, images, refused):
    for name in "ab":
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", images)
    text = refused(tmp_path)
    assert "2 IDX files (a-images-idx3-ubyte, b-images-idx3-ubyte)" in text and "Name the file" in text


def test_folder_takes_a_file_with_a_free_name(tmp_path, write_idx, images):
    write_idx(tmp_path / "my.idx", images)
    assert len(load(str(tmp_path))) == 10


@pytest.mark.parametrize(
    "shape, kind, row",
    [
        ((3, 7), "array", (7,)),
        ((3, 2, 5), "image", (2, 5)),
        ((3, 2, 5, 3), "image", (2, 5, 3)),
        ((3, 2, 5, 1), "image", (2, 5)),
    ],
)
def test_dimensions(tmp_path, write_idx, shape, kind, row):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    data = load(str(write_idx(tmp_path / "x.idx", array)))
    assert (data.schema.kind, data.schema.shape, data.schema.dtype) == (kind, row, "uint8")
    assert (data.rows == array.reshape(3, -1)).all()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_other_integers_become_uint8_in_range(tmp_path, write_idx, refused, dtype):
    array = np.array([[0, 1], [2, 127]], dtype)
    data = load(str(write_idx(tmp_path / "x.idx", array)))
    assert data.rows.dtype == np.uint8 and (data.rows == array).all()
    array[0, 0] = -1
    assert f"{dtype} values from -1 to 127" in refused(write_idx(tmp_path / "x.idx", array))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_become_float32(tmp_path, write_idx, dtype):
    array = np.array([[0.5, -1.25], [2, 1e-3]], dtype)
    data = load(str(write_idx(tmp_path / "x.idx", array)))
    assert data.rows.dtype == np.float32 and (data.rows == array.astype(np.float32)).all()


@pytest.mark.parametrize(
    "head", [b"\0\0\x07\x03", b"\0\0\x08\x00", b"\0\0\x08\x05", b"\0\1\x08\x03", b"\0", b"\0\0\x08"]
)
def test_wrong_magic(tmp_path, refused, head):
    (tmp_path / "x.idx").write_bytes(head + bytes(12) * (len(head) == 4))
    text = refused(tmp_path / "x.idx")
    assert f"starts with {head.hex(' ')}" in text


def test_cut_in_its_header(tmp_path, refused):
    (tmp_path / "x.idx").write_bytes(b"\0\0\x08\x03\0\0\0\x01")
    assert "cut short in its header" in refused(tmp_path / "x.idx")


@pytest.mark.parametrize("packed", [False, True])
def test_sizes_that_do_not_match(tmp_path, write_idx, images, refused, packed):
    def save(data):
        (tmp_path / "x.idx").write_bytes(gzip.compress(data) if packed else data)
        return refused(tmp_path / "x.idx")

    whole = write_idx(tmp_path / "x.idx", images).read_bytes()
    assert "only 199 bytes of data; wanted the 200 bytes of its IDX header 10 x 4 x 5" in save(whole[:-1])
    assert "more than 200 bytes of data" in save(whole + b"\0")


def test_truncated_and_damaged_gzip(tmp_path, write_idx, images, refused):
    path = write_idx(tmp_path / "x.idx", images, packed=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert "cannot be read (Compressed file ended before" in refused(path)
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    assert "CRC check failed" in refused(path)
    path.write_bytes(whole + b"garbage")
    assert "cannot be read (Not a gzipped file" in refused(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_lying_header_costs_neither_memory_nor_time(tmp_path, refused, packed):
    data = b"\0\0\x0e\x04" + struct.pack(">4I", *[2**32 - 1] * 4) + bytes(1000)
    (tmp_path / "x.idx").write_bytes(gzip.compress(data) if packed else data)
    tracemalloc.start()
    start = time.perf_counter()
    text = refused(tmp_path / "x.idx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "only 1,000 bytes" in text and peak < 8e6 and time.perf_counter() - start < 2


@pytest.mark.parametrize("shape", [(0, 28, 28), (3, 0, 28), (0, 0), (0, 4294967295, 4294967295, 4294967295)])
def test_no_images_or_no_pixels(tmp_path, refused, shape):
    (tmp_path / "x.idx").write_bytes(struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape))
    refused(tmp_path / "x.idx")


def test_zero_images_says_so(tmp_path, write_idx, refused):
    assert "has no rows" in refused(write_idx(tmp_path / "x.idx", np.zeros((0, 4, 5), np.uint8)))
    assert "rows are empty" in refused(write_idx(tmp_path / "x.idx", np.zeros((3, 0, 5), np.uint8)))


def test_bad_labels_beside_good_images_are_refused(tmp_path, write_idx, images, refused):
    write_idx(tmp_path / "a-images-idx3-ubyte", images)
    labels = write_idx(tmp_path / "a-labels-idx1-ubyte", np.zeros(9, np.uint8))
    for source in (tmp_path, tmp_path / "a-images-idx3-ubyte"):
        text = refused(source)
        assert "10 rows with 9 labels" in text and labels.name in text
    write_idx(labels, images)
    assert "labels of shape [10, 4, 5]" in refused(tmp_path)
    labels.write_bytes(labels.read_bytes()[:-1])
    assert "with a-labels-idx1-ubyte: got only 199 bytes" in refused(tmp_path)


def test_labels_without_their_images(tmp_path, write_idx, refused):
    path = write_idx(tmp_path / "a-labels-idx1-ubyte", np.zeros(9, np.uint8))
    assert "a file of 9 labels" in refused(path)
    assert "a folder with a-labels-idx1-ubyte" in refused(tmp_path)
