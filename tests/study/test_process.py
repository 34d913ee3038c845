"""One command as a child process: how it is stopped, and what is left of it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynconv_plugins.errors import UserError
from dynconv_plugins.study import process


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_a_command_is_stopped_at_once(tmp_path: Path, handler) -> None:
    """Also by a study that a script has put into the background, where interrupts are ignored."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        with process.claimed(tmp_path) as lock, open(tmp_path / "log", "ab") as log:
            words = (sys.executable, "-c", "import time; time.sleep(100)")
            code, used = process.run(words, dict(os.environ), log, lock, lambda: None, lambda: True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code != 0 and used.seconds < process.GRACE / 2


def alive(word: str) -> list[int]:
    """Processes whose command line holds a word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="this system does not tell who started whom")
@pytest.mark.parametrize("session", [False, True], ids=["its-group", "a-session-of-its-own-as-torchrun's-workers"])
def test_nothing_that_a_command_has_started_is_left(tmp_path: Path, session: bool) -> None:
    words = [sys.executable, "-c", "import time; time.sleep(1000)", str(tmp_path / "left")]
    script = f"import subprocess, time; subprocess.Popen({words!r}, start_new_session={session}); time.sleep(2)"
    with process.claimed(tmp_path) as lock, open(tmp_path / "log", "ab") as log:
        code, _ = process.run((sys.executable, "-c", script), dict(os.environ), log, lock, _nothing, _never)
    assert code == 0
    time.sleep(0.5)
    assert not alive(str(tmp_path / "left"))


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="this system does not tell who started whom")
def test_a_name_that_is_cut_within_a_character(tmp_path: Path) -> None:
    """Of any process on the machine: all are looked through."""
    name = b"fourteen bytes\xc3\xa9"  # of which Linux keeps 15
    script = f"import ctypes, time; ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0); time.sleep(2)"
    with process.claimed(tmp_path) as lock, open(tmp_path / "log", "ab") as log:
        code, used = process.run((sys.executable, "-c", script), dict(os.environ), log, lock, _nothing, _never)
    assert code == 0 and used.memory_mb > 1


def _nothing() -> None: ...


def _never() -> bool:
    return False


KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from dynconv_plugins.study import process

start = subprocess.Popen

def killed(*args, **kwargs):
    start(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

subprocess.Popen = killed
with process.claimed(Path(sys.argv[1])) as lock, open(os.devnull, "ab") as log:
    words = (sys.executable, "-c", "import time; time.sleep(1000)", sys.argv[1])
    process.run(words, dict(os.environ), log, lock, lambda: None, lambda: False)
"""


def test_a_study_killed_the_moment_it_has_started_a_trainer(tmp_path: Path) -> None:
    """Nobody but the trainer itself can then say who has the lock."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    until = time.monotonic() + 20
    while "group" not in (tmp_path / process.LOCK).read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(str(tmp_path)), "its trainer lives on"
    with process.claimed(tmp_path):
        assert not alive(str(tmp_path))


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="this system does not tell when who was started")
def test_a_dead_studys_number_may_be_anothers(tmp_path: Path) -> None:
    with open(tmp_path / process.LOCK, "w") as file:
        process.fcntl.flock(file, process.fcntl.LOCK_EX)
        left = subprocess.Popen(["sleep", "1000"], pass_fds=(file.fileno(),), start_new_session=True)
        owner = {"study": os.getppid(), "started": "1", "machine": socket.gethostname(), "group": left.pid}
        file.write(json.dumps(owner))
    with process.claimed(tmp_path):
        assert left.wait(10) == -signal.SIGTERM


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(process.fcntl, "flock", unsupported)
    with pytest.raises(UserError, match=r"no file can be locked.*choose another --out"), process.claimed(tmp_path):
        pass


def test_memory_is_the_commands_own(tmp_path: Path) -> None:
    """Not that of the study, which Linux counts to its children as well."""
    import numpy as np

    held = np.ones(200 * 2**17)  # 200 MiB that a child has nothing to do with
    with process.claimed(tmp_path) as lock, open(tmp_path / "log", "ab") as log:
        run = (dict(os.environ), log, lock, _nothing, _never)
        _, small = process.run((sys.executable, "-S", "-c", "import time; time.sleep(1.5)"), *run)
        words = (sys.executable, "-S", "-c", "import time; a = b'x' * 100 * 2**20; time.sleep(1.5)")
        _, large = process.run(words, *run)
    assert held.nbytes and 0 < small.memory_mb < 60 < 100 < large.memory_mb < 160
