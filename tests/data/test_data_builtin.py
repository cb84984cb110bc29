import functools
import gc
import hashlib
import http.server
import logging
import threading
import time

import numpy as np
import pytest

from fastgan.data import builtin, load

NAMES = list(builtin.MNIST_SHA256)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no proxy between the tests and this machine."""
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def server(tmp_path, monkeypatch, write_idx, images):
    """A small MNIST on a local server, with its checksums; returns its folder and the paths asked for."""
    folder, asked = tmp_path / "www", []
    for name, array in zip(NAMES, (images, np.arange(10, dtype=np.uint8)) * 2, strict=True):
        write_idx(folder / name, array, packed=True)
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(builtin, "MNIST_URL", f"http://127.0.0.1:{running.server_port}/")
        monkeypatch.setattr(builtin, "MNIST_SHA256", sums)
        yield folder, asked
        running.shutdown()
        thread.join()


def test_digits():
    data = load("digits")
    assert data.rows.shape == (1797, 784) and data.rows.dtype == np.uint8
    assert data.schema.kind == "image" and data.schema.shape == (28, 28)
    assert data.schema.classes == tuple("0123456789") and data.name == "digits"
    assert data.labels.dtype == np.int64 and data.labels[:10].tolist() == list(range(10))
    assert data.rows.min() == 0 and data.rows.max() == 255
    assert data.rows.flags.c_contiguous and data.rows.flags.writeable


def test_digits_are_the_small_ones_enlarged():
    from sklearn.datasets import load_digits

    small = load_digits().images.reshape(-1, 64)
    # 8x8 points of the 28x28 grid, each at the middle of a small pixel
    at = np.rint(np.arange(8) * 3.5 + 1.25).astype(int)
    large = load("digits").rows.reshape(-1, 28, 28)[:, at][:, :, at].reshape(-1, 64)
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.97


def test_checksums_are_those_of_the_real_files(real_mnist):
    for name in NAMES[2:]:
        digest = hashlib.sha256((real_mnist / name).read_bytes()).hexdigest()
        assert digest == builtin.MNIST_SHA256[name]


def test_mnist_downloads_once(cache, server, images, capfd, caplog):
    data = load("mnist")
    assert (data.rows.reshape(10, 4, 5) == images).all() and data.labels.tolist() == list(range(10))
    assert data.name == "mnist" and str(cache) in data.source
    assert sorted(p.name for p in cache.iterdir()) == sorted(NAMES[:2])
    asked = list(server[1])
    assert len(asked) == 2
    assert load("mnist").fingerprint() == data.fingerprint()
    assert server[1] == asked
    assert capfd.readouterr() == ("", "") and not [r for r in caplog.records if r.name == "pooch"]


def test_a_download_with_another_checksum_leaves_nothing(cache, server, refused):
    (server[0] / NAMES[0]).write_bytes(b"a captive portal's page")
    assert "with another SHA-256" in refused("mnist")
    assert list(cache.iterdir()) == []


def test_a_cached_file_with_another_checksum_is_not_downloaded_again(cache, server, refused):
    cache.mkdir(parents=True)
    (cache / NAMES[0]).write_bytes(b"half a file")
    text = refused("mnist")
    assert f"{cache / NAMES[0]} with another SHA-256" in text and "Delete it" in text
    assert (cache / NAMES[0]).read_bytes() == b"half a file" and server[1] == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_missing_file_on_the_server(cache, server, refused):
    (server[0] / NAMES[0]).unlink()
    assert "(HTTPError)" in refused("mnist")
    gc.collect()  # pooch leaves the refused connection to the collector: not to warn in some later test


def test_offline_names_four_files_and_their_folder_at_once(cache, monkeypatch, refused, capfd):
    monkeypatch.setattr(builtin, "MNIST_URL", "http://127.0.0.1:9/")
    level = logging.getLogger("pooch").level
    start = time.perf_counter()
    text = refused("mnist")
    assert time.perf_counter() - start < 5
    assert all(name in text for name in NAMES) and f"these four files in {cache}" in text
    assert "--data digits" in text
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("pooch").level == level


def test_a_useless_proxy_is_no_wrong_checksum(cache, monkeypatch, refused):
    monkeypatch.setattr(builtin, "MNIST_URL", "http://mnist.invalid/")
    monkeypatch.setenv("http_proxy", "http://[")
    assert "these four files" in refused("mnist")


def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch, refused):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "file"))
    assert "these four files" in refused("mnist")


def test_files_put_there_by_hand_need_no_network(cache, server, write_idx, images, monkeypatch):
    cache.mkdir(parents=True)
    for name in NAMES:
        (cache / name).write_bytes((server[0] / name).read_bytes())
    monkeypatch.setattr(builtin, "MNIST_URL", "http://127.0.0.1:9/")
    assert len(load("mnist")) == 10


def test_the_usual_cache_folder(monkeypatch):
    import pooch

    monkeypatch.delenv("FASTGAN_CACHE", raising=False)
    assert builtin.mnist_folder() == pooch.os_cache("fastgan") / "mnist"
