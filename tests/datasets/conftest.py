"""A small set of diatoms in the official layouts, which the tests copy and then damage; and the command line."""

from __future__ import annotations

import shutil
import sys
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

from dynconv_plugins import cli, datasets

sys.path.insert(0, str(Path(__file__).parent))

CLASSES, TRAIN, TEST = 3, 4, 2


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Path:
    pytest.importorskip("PIL")
    return datasets.diatoms.make(tmp_path_factory.mktemp("diatoms"), classes=CLASSES, train=TRAIN, test=TEST, size=32)


@pytest.fixture
def official(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the small set, to be damaged."""
    return Path(shutil.copytree(pristine, tmp_path / "official"))


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def dynconv(capfd, monkeypatch):
    """Runs ``dynconv ARGS...``, without a network."""
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    urllib.request.install_opener(None)  # it would remember the proxies of its first use

    def run(*args: str | int | Path) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(a) for a in args])
        return Done(ended.value.code, *capfd.readouterr())

    yield run
    urllib.request.install_opener(None)


@pytest.fixture
def fails(dynconv):
    """Runs a command that must end in one line on stderr and exit code 2; returns the line."""

    def run(*args: str | int | Path) -> str:
        done = dynconv(*args)
        lines = done.stderr.splitlines()
        assert done.returncode == 2, done
        assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
        return lines[0]

    return run


@pytest.fixture
def tiny(official) -> Path:
    return official / "tiny-imagenet-200"
