"""The compiled library: made once, kept where nobody else writes, and said why not where it cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dynconv_plugins.native.library import _temporary, library, unavailable

pytestmark = pytest.mark.skipif(
    unavailable(torch.float32) is not None, reason=f"needs a C compiler: {unavailable(torch.float32)}"
)

SCRIPT = """
import os, torch, dynconv_plugins as dc
from pathlib import Path
from dynconv_plugins.native.library import unavailable
conv = dc.ODConv2d(8, 8, 3, padding=1)
print(unavailable(torch.float32))
print(dc.explain_backends(conv, (2, 8, 6, 6)))
for folder in Path(os.environ.get("SHOW", "nowhere")).glob("dynconv*"):
    print(folder, oct(folder.stat().st_mode & 0o777))
"""


def explained(**env) -> list[str]:
    """What a process with `env` prints."""
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_switched_off():
    reason, *lines = explained(DYNCONV_NATIVE="0")
    assert reason == "switched off by DYNCONV_NATIVE=0"
    assert any(reason in line for line in lines)


def test_without_a_compiler(tmp_path):
    reason, *lines = explained(PATH=str(tmp_path), CC="nothing")
    assert reason == "no C compiler (cc, gcc or clang) was found"
    assert any("grouped" in line or "mixture" in line for line in lines)


def test_with_a_compiler_that_fails(tmp_path):
    bad = tmp_path / "cc"
    bad.write_text("#!/bin/sh\necho 'out of licences' >&2\nexit 3\n")
    bad.chmod(0o755)
    reason = explained(CC=str(bad), XDG_CACHE_HOME=str(tmp_path / "cache"))[0]
    assert reason == f"{bad} cannot compile it: out of licences"
    assert not list((tmp_path / "cache" / "dynconv_plugins").iterdir())


def test_compiled_once(tmp_path):
    folder = tmp_path / "dynconv_plugins"
    assert explained(XDG_CACHE_HOME=str(tmp_path))[0] == "None"
    (library,) = folder.iterdir()
    before = library.stat().st_mtime_ns
    assert explained(XDG_CACHE_HOME=str(tmp_path))[0] == "None"
    assert [library] == list(folder.iterdir()) and library.stat().st_mtime_ns == before


def test_where_nothing_can_be_kept(tmp_path):
    """It lies in the temporary folder then, where nobody else can have put it before, and goes with the process."""
    (tmp_path / "file").write_text("")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    said = explained(XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(temporary), SHOW=str(temporary))
    assert said[0] == "None"
    folder, mode = said[-1].split()
    assert Path(folder).parent == temporary and mode == "0o700"
    assert not list(temporary.iterdir())


def test_without_a_home(monkeypatch):
    """As in a container whose user has no entry anywhere."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    library.cache_clear(), _temporary.cache_clear()
    try:
        assert library(torch.float32).convolve
    finally:
        library.cache_clear(), _temporary.cache_clear()
