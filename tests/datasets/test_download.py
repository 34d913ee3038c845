"""Downloads that succeed: from a server on this machine, and through a stand-in for tsai's downloader."""

from __future__ import annotations

import hashlib
import sys
import threading
import types
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from tiny_sources import as_zip, content

from dynconv_plugins.datasets import download, tiny_imagenet, ucr, ucr_download
from dynconv_plugins.errors import UserError


class Quiet(SimpleHTTPRequestHandler):
    """Notes what it is asked for instead of printing it."""

    asked: list[str] = []

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and its address."""
    pytest.importorskip("torchvision")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(Quiet, "asked", [])
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_an_archive_is_downloaded_once(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "made.zip").write_bytes(bytes(range(256)) * 99)
    words = (f"{address}/made.zip", md5(folder / "made.zip"), tmp_path / "out")
    archive = download.fetch(*words)
    assert archive.parent == tmp_path / "out" / ".download"
    assert archive.read_bytes() == (folder / "made.zip").read_bytes()
    assert sorted(p.name for p in archive.parent.iterdir()) == ["made.zip", "made.zip.md5"]
    assert set(Quiet.asked) == {"/made.zip"}
    Quiet.asked.clear()
    assert download.fetch(*words) == archive and not Quiet.asked


def test_what_came_wrong_is_not_kept(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "made.zip").write_bytes(b"something else")
    with pytest.raises(UserError, match="does not have the checksum 0123"):
        download.fetch(f"{address}/made.zip", "0123" * 8, tmp_path / "out")
    with pytest.raises(UserError, match="cannot reach .*other.zip .*place other.zip as "):
        download.fetch(f"{address}/other.zip", "0123" * 8, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tiny_imagenet_from_the_server(
    served: tuple[Path, str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    archive = as_zip(tiny, folder)
    monkeypatch.setattr(tiny_imagenet, "URL", f"{address}/{archive.name}")
    monkeypatch.setattr(tiny_imagenet, "MD5", md5(archive))
    downloaded = tiny_imagenet.prepare(None, tmp_path / "downloaded", download=True)
    assert content(downloaded) == content(tiny_imagenet.prepare(tiny, tmp_path / "copied"))


def test_series_that_tsai_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its ``get_UCR_data`` returns them: ``[N, 1, L]`` in float64 and labels as words, to train, then to test."""
    rng = np.random.default_rng(0)
    x = {"train": rng.normal(size=(4, 1, 6)), "test": rng.normal(size=(3, 1, 6))}
    y = {"train": np.array(["1", "2", "1", "3"]), "test": np.array(["3", "2", "2"])}
    asked = []

    def get(name: str, **_: object) -> tuple[np.ndarray, ...]:
        asked.append(name)
        return x["train"], y["train"], x["test"], y["test"]

    external = types.ModuleType("tsai.data.external")
    external.get_UCR_data, external.get_UCR_univariate_list = get, lambda: ["Waves", "Adiac"]
    for name in ("tsai", "tsai.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "tsai.data.external", external)

    for _ in range(2):  # the second time from what lies there
        prepared = ucr.prepare(None, tmp_path / "out", names=["Waves"], download=True)
        series, labels, (train, test) = ucr.load(prepared, "Waves")
        for part, rows in (("train", train), ("test", test)):
            assert np.array_equal(series[rows], x[part].astype(np.float32)), part
            assert list(labels[rows]) == list(y[part]), part
    assert asked == ["Waves"]
    x["train"] = np.zeros((4, 2, 6))
    with pytest.raises(UserError, match="multivariate"):
        ucr_download.fetch(["Adiac"], tmp_path / "other")
