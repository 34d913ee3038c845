"""Small studies, run by the command; lets the tests import the modules beside them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from studies import STUDY, command, environment, write_plan

from dynconv_plugins import cli


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs ``dynconv study`` in this process, which has imported all that it needs; the trainers have their own."""

    def run(*args: object) -> Done:
        before, threads = [(n, signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGHUP)], torch.get_num_threads()
        capsys.readouterr()
        try:
            with monkeypatch.context() as m, pytest.raises(SystemExit) as ended:
                m.chdir(tmp_path)
                m.delenv("DYNCONV_DATA", raising=False)
                for name in ("OMP_NUM_THREADS", "COLUMNS"):
                    m.setenv(name, environment()[name])
                cli.main(["study", *map(str, args)])
        finally:
            for number, handler in before:
                signal.signal(number, handler)
            torch.set_num_threads(threads)
        return Done(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a study that ran undisturbed, in a process of its own, and its seconds; to be copied.

    One for all of pytest's workers, whose folders lie side by side.
    """
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, took = root / "finished", root / "finished.seconds"
    with open(root / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not took.exists():
            words = command(write_plan(folder / "p.yaml", **STUDY), "--out", folder / "out", "--no-costs")
            started = time.monotonic()
            done = subprocess.run(words, env=environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            took.write_text(str(time.monotonic() - started))
    return folder, float(took.read_text())
