from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan.data import load


@pytest.fixture
def save(tmp_path):
    def save(name, pixels, mode=None, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
        (image.convert(mode) if mode else image).save(path, **options)
        return path

    return save


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "gif", "tif", "tiff", "jpg", "jpeg", "webp"])
def test_formats(save, tmp_path, images, suffix):
    for i, image in enumerate(images):
        save(f"{i}.{suffix}", image, **({"lossless": True} if suffix == "webp" else {}))
    data = load(str(tmp_path))
    assert data.schema.kind == "image" and data.schema.shape == (4, 5) and data.schema.dtype == "uint8"
    if suffix not in ("jpg", "jpeg"):
        assert (data.rows == images.reshape(10, -1)).all()


def test_order_is_sorted_and_others_are_passed_over(save, tmp_path, images):
    for name in ("b.png", "a.png", "10.png", "9.png", ".hidden.png"):
        save(name, np.full((2, 2), ord(name[0]), np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    data = load(str(tmp_path))
    assert data.rows[:, 0].tolist() == [ord("1"), ord("9"), ord("a"), ord("b")]
    assert data.labels is None


@pytest.mark.parametrize("position", [0, 2])
def test_rgb_as_soon_as_one_image_has_colour(save, tmp_path, position):
    gray = np.arange(4, dtype=np.uint8).reshape(2, 2)
    colour = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for i in range(3):
        save(f"{i}.png", colour if i == position else gray)
    data = load(str(tmp_path))
    assert data.schema.shape == (2, 2, 3)
    assert (data.rows[position] == colour.reshape(-1)).all()
    assert (data.rows[1] == np.repeat(gray.reshape(-1), 3)).all()


def test_gray_stored_as_rgb_palette_or_bits_is_gray(save, tmp_path):
    pixels = np.array([[0, 255], [255, 0]], np.uint8)
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA"):
        save(f"{mode}.png", pixels, mode)
    data = load(str(tmp_path))
    assert data.schema.shape == (2, 2) and (data.rows == pixels.reshape(-1)).all()


def test_transparency_is_blended_over_black(save, tmp_path):
    save("a.png", np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], np.uint8))
    image = Image.new("L", (2, 1), 90)
    image.putpixel((0, 0), 10)
    save("b.png", image, transparency=90)
    rows = load(str(tmp_path)).rows.tolist()
    assert rows == [[200, 100, 50, 0, 0, 0], [10, 10, 10, 0, 0, 0]]


def test_first_frame_of_an_animation(save, tmp_path):
    frames = [Image.fromarray(np.full((2, 2), v, np.uint8)) for v in (10, 200)]
    save("a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert load(str(tmp_path)).rows.tolist() == [[10] * 4]


def test_subfolders_are_classes(save, tmp_path):
    for name, value in (("zebra/1.png", 1), ("ant/2.png", 2), ("ant/1.png", 3)):
        save(name, np.full((2, 2), value, np.uint8))
    (tmp_path / "empty").mkdir()
    data = load(str(tmp_path))
    assert data.schema.classes == ("ant", "zebra")
    assert data.labels.tolist() == [0, 0, 1] and data.rows[:, 0].tolist() == [3, 2, 1]


def test_images_beside_class_folders(save, tmp_path, refused):
    save("a.png", np.zeros((2, 2), np.uint8))
    save("c/a.png", np.zeros((2, 2), np.uint8))
    assert "1 images beside 1 images in subfolders" in refused(tmp_path)


def test_sizes_differ(save, tmp_path, refused):
    save("a.png", np.zeros((2, 3), np.uint8))
    save("b.png", np.zeros((2, 3), np.uint8))
    save("c.png", np.zeros((4, 5, 3), np.uint8))
    assert "'c.png' of 5x4 after 'a.png' of 3x2" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", "truncated"])
def test_corrupt_image(save, tmp_path, refused, content):
    save("k/a.png", np.zeros((40, 40), np.uint8))
    path = save("k/b.png", np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8))
    path.write_bytes(path.read_bytes()[:-500] if content == "truncated" else content)
    text = refused(tmp_path)
    assert "an image 'k/b.png' that cannot be read" in text


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tif"])
def test_damaged_images_never_leak_another_exception(save, tmp_path, suffix):
    from fastgan.errors import UserError

    random = np.random.default_rng(1)
    path = save(f"a.{suffix}", random.integers(0, 256, (9, 7, 3), np.uint8))
    whole = path.read_bytes()
    for _ in range(150):
        data = bytearray(whole)
        for at in random.integers(0, len(data), random.integers(1, 6)):
            data[at] = random.integers(0, 256)
        path.write_bytes(data[: random.integers(1, len(data) + 1)] if random.random() < 0.3 else data)
        try:
            load(str(tmp_path))
        except UserError as error:
            assert "\n" not in str(error)


def test_sixteen_bits_are_refused(save, tmp_path, refused):
    save("a.png", np.zeros((2, 2), np.uint16))
    assert "'a.png' with pixels of mode I;16" in refused(tmp_path)


def test_too_many_pixels(save, tmp_path, refused):
    save("a.png", Image.new("1", (4097, 4096)))
    assert "'a.png' of 4097x4096 pixels" in refused(tmp_path)


def test_a_decompression_bomb_is_refused_unread(save, tmp_path, refused):
    path = save("a.bmp", Image.new("1", (1, 1)))
    data = bytearray(path.read_bytes())
    data[18:26] = (30_000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    assert "cannot be read" in refused(tmp_path) and "decompression bomb" in refused(tmp_path)


def test_unreadable_folder(save, tmp_path, refused, monkeypatch):
    # tests may run as root, whom no permission stops
    save("c/a.png", np.zeros((2, 2), np.uint8))
    real = Path.iterdir

    def iterdir(self):
        if self.name == "c":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    for source in (tmp_path, tmp_path / "c"):
        assert "a folder that cannot be read (Permission denied)" in refused(source)


def test_a_class_folder_with_an_unprintable_name(save, tmp_path, refused):
    try:
        save("a\nb/a.png", np.zeros((2, 2), np.uint8))
    except OSError:
        pytest.skip("the file system refuses such names")
    assert "class name 'a\\nb'" in refused(tmp_path)
