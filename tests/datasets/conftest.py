"""A small set of diatoms in the official layouts, which the tests copy and then damage; and the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dynconv_plugins import datasets

CLASSES, TRAIN, TEST = 3, 4, 2


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Path:
    pytest.importorskip("PIL")
    return datasets.diatoms.make(tmp_path_factory.mktemp("diatoms"), classes=CLASSES, train=TRAIN, test=TEST, size=32)


@pytest.fixture
def official(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the small set, to be damaged."""
    return Path(shutil.copytree(pristine, tmp_path / "official"))


@pytest.fixture
def dynconv():
    """Runs ``dynconv ARGS...`` in a process of its own, without a network."""

    def run(*args: str | Path, **env: str) -> subprocess.CompletedProcess:
        dead = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
        return subprocess.run(
            [sys.executable, "-m", "dynconv_plugins.cli", *map(str, args)],
            env={**os.environ, **dead, **env},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def fails(dynconv):
    """Runs a command that must end in one line on stderr and exit code 2; returns the line."""

    def run(*args: str | Path, **env: str) -> str:
        done = dynconv(*args, **env)
        lines = done.stderr.splitlines()
        assert done.returncode == 2, done
        assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
        return lines[0]

    return run
