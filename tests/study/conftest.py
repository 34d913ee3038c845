"""Small studies, run by the real command; lets the tests import the modules beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from studies import command, environment


@pytest.fixture
def study(tmp_path: Path):
    """Runs ``dynconv study`` in a process of its own and returns what it did."""

    def run(*args: object, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command(*args), capture_output=True, text=True, timeout=500, env=environment() | env, cwd=tmp_path
        )

    return run
