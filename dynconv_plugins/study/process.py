"""One command as a child process: its own group, its output in a file, its time and memory, and a lock on its folder.

The child inherits the lock. So a study that was killed leaves the folder locked for as long as its trainer lives on,
and the next study knows whom to stop before it goes on. (torchrun's workers do not inherit it; they end with it.)
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError

LOCK = ".lock"
GRACE = 60.0  # seconds a trainer has to save what it saves
# The child itself says who it is, before it becomes the command: a study may be killed the moment it has started one.
_CHILD = """printf '%s, "group": %d}' "$0" $$ >"/dev/fd/$1"; shift; exec "$@\""""


class Busy(UserError):
    """Another study runs this cell."""


class Stuck(UserError):
    """What a killed study has left in this cell cannot be stopped."""


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
        Busy: If another study is at it.
        Stuck: If what a killed one has left there cannot be stopped.
        UserError: If the file system has no locks.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _locked(handle):
            _stop_orphan(folder, handle)
        _note(handle)
        yield handle
    finally:
        os.close(handle)


def held(folder: Path) -> bool:
    """Whether somebody has locked a cell's folder at this moment."""
    with _ignored(FileNotFoundError), open(folder / LOCK, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:  # some file systems of clusters
        raise UserError(f"no file can be locked there ({e.strerror}); choose another --out") from None
    return True


def _note(handle: int) -> str:
    """Writes down who has the lock, and returns it."""
    told = json.dumps({"study": os.getpid(), "started": _started(os.getpid()), "machine": socket.gethostname()})
    os.ftruncate(handle, 0)
    os.pwrite(handle, told.encode(), 0)
    return told


def _stop_orphan(folder: Path, handle: int) -> None:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        owner = {}
    here = owner.get("machine") == socket.gethostname()
    if not here or _alive(owner.get("study"), owner.get("started")) or "group" not in owner:
        who = f"process {owner.get('study', '?')} on {owner.get('machine', '?')}"
        raise Busy(f"{folder} is being run by another study, {who}")
    for number in (signal.SIGTERM, signal.SIGKILL):
        with _ignored(ProcessLookupError):
            os.killpg(owner["group"], number)
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            if _locked(handle):
                return
            time.sleep(0.1)
    raise Stuck(f"{folder} is held by process group {owner['group']}, which cannot be stopped")


def _alive(pid: int | None, started: str | None) -> bool:
    """Whether a process is still there, and no other that was given its number."""
    if not pid or pid == os.getpid():
        return bool(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started is None or _started(pid) == started


def _started(pid: int) -> str | None:
    """When a process was started; None where the system does not tell."""
    with _ignored(OSError):
        return _stat(pid)[2]
    return None


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
        ["/bin/sh", "-c", _CHILD, _note(lock).removesuffix("}"), str(lock), *command],
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
    due, looked, peak, family = 0.0, 0.0, 0.0, dict[int, str]()
    try:
        while True:
            if time.monotonic() >= looked:
                family |= _family(child.pid)
                peak, looked = max(peak, _peak(family)), time.monotonic() + 1
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
        _kill(child.pid, family)
        raise
    child.returncode = os.waitstatus_to_exitcode(status)
    # What it left behind (loaders of a trainer that was killed) must not go on writing.
    _kill(child.pid, family)
    return child.returncode, Usage(time.monotonic() - started, used.ru_utime + used.ru_stime, peak)


def _family(group: int) -> dict[int, str]:
    """The processes of a group and all that come from them, torchrun's in groups of their own, with the moment each was
    started: numbers are used again."""
    found: dict[int, tuple[int, int, str]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with _ignored(OSError):  # it has ended meanwhile
            found[int(entry.name)] = _stat(int(entry.name))
    ours = {pid for pid, (_, of, _) in found.items() if of == group}
    while more := {pid for pid, (parent, _, _) in found.items() if parent in ours} - ours:
        ours |= more
    return {pid: found[pid][2] for pid in ours}


def _stat(pid: int) -> tuple[int, int, str]:
    """Parent, group and start of a process."""
    # A name may hold anything, also half of a character: it is cut after 15 bytes.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[1]), int(fields[2]), fields[19].decode()


def _kill(group: int, family: Mapping[int, str]) -> None:
    with _ignored(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for pid, started in family.items():
        with _ignored(OSError):
            if _stat(pid)[2] == started:
                os.kill(pid, signal.SIGKILL)


def _peak(pids: Iterable[int]) -> float:
    """The most memory in MiB that one of these processes has held since it was started.

    Not what `os.wait4` tells: Linux counts there what the child had in common with this process before it became
    another program.
    """
    peak = 0
    for pid in pids:
        with _ignored(OSError):
            lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
            peak = max(peak, *(int(line.split()[1]) for line in lines if line.startswith(b"VmHWM:")), 0)
    return peak / 1024
