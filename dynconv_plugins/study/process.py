"""One command as a child process: its own group, its output in a file, its time and memory, and a lock on its folder.

The child inherits the lock. So a study that was killed leaves the folder locked for as long as its trainer lives on,
and the next study knows whom to stop before it goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"
GRACE = 60.0  # seconds a trainer has to save what it saves


class Busy(RuntimeError):
    """Another study, which is alive, runs this cell."""


@dataclass(frozen=True)
class Usage:
    """What a command took: seconds of wall clock and of processors, and the largest resident memory of one process; 0
    where the system does not tell it."""

    seconds: float
    processor_seconds: float
    memory_mb: float


@contextmanager
def claimed(folder: Path) -> Iterator[int]:
    """Locks a cell's folder, after stopping what a killed study has left running there; yields the descriptor.

    Raises:
        Busy: If somebody else is at it.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _locked(handle):
            _stop_orphan(folder, handle)
        _note(handle, {"study": os.getpid(), "machine": socket.gethostname()})
        yield handle
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _note(handle: int, value: Mapping) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(value).encode(), 0)


def _stop_orphan(folder: Path, handle: int) -> None:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        owner = {}
    here = owner.get("machine") == socket.gethostname()
    if not here or _alive(owner.get("study")) or "group" not in owner:
        raise Busy(f"is being run by another study, process {owner.get('study', '?')} on {owner.get('machine', '?')}")
    for number in (signal.SIGTERM, signal.SIGKILL):
        with _ignored(ProcessLookupError):
            os.killpg(owner["group"], number)
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            if _locked(handle):
                return
            time.sleep(0.1)
    raise Busy(f"is held by process group {owner['group']}, which cannot be stopped")


def _alive(pid: int | None) -> bool:
    if not pid or pid == os.getpid():
        return bool(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _ignored(*errors: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except errors:
        pass


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    log: BinaryIO,
    lock: int,
    watch: Callable[[], None],
    stopped: Callable[[], bool],
) -> tuple[int, Usage]:
    """Runs a command to its end.

    Args:
        command: Program and arguments.
        env: The whole environment.
        log: Where its output goes.
        lock: What `claimed` gave.
        watch: Called about twice a second.
        stopped: Whether to stop; then the command gets an interrupt, and time to save.

    Returns:
        Its exit code, negative for a signal, and what it took.
    """
    started = time.monotonic()
    child = subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=env,
        pass_fds=(lock,),
        start_new_session=True,
    )
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        del signals[0]  # a study that a script has put into the background ignores it, and so do its children
    due, looked, peak = 0.0, 0.0, 0.0
    try:
        _note(lock, {"study": os.getpid(), "machine": socket.gethostname(), "group": child.pid})
        while True:
            if time.monotonic() >= looked:
                peak, looked = max(peak, _peak(child.pid)), time.monotonic() + 1
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if stopped() and signals and time.monotonic() >= due:
                with _ignored(ProcessLookupError):
                    os.killpg(child.pid, signals.pop(0))
                due = time.monotonic() + GRACE
            time.sleep(0.25)
            watch()
    except BaseException:
        with _ignored(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        raise
    child.returncode = os.waitstatus_to_exitcode(status)
    # What it left behind in its group (loaders of a trainer that was killed) must not go on writing.
    with _ignored(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return child.returncode, Usage(time.monotonic() - started, used.ru_utime + used.ru_stime, peak)


def _peak(group: int) -> float:
    """The most memory in MiB that a process of a group has held since it was started.

    Not what `os.wait4` tells: Linux counts there what the child had in common with this process before it became
    another program.
    """
    peak = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == group:
                lines = (entry / "status").read_text().splitlines()
                peak = max(peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
        except OSError:
            continue  # it has ended meanwhile
    return peak / 1024
