"""Runs a function in a process of its own, so that one that is killed for its memory ends nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A server that has imported everything is forked from: a process then starts in milliseconds, and holds no threads.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class Failed(Exception):
    """The function raised or its process died; ``str`` is one line."""


def call(function: Callable[..., Any], *args: Any, preload: tuple[str, ...] = ()) -> Any:
    """Returns ``function(*args)``, computed in a new process; `preload` names modules worth importing once for all.

    Raises:
        Failed: If it raised, or was killed.
    """
    context = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(list(preload))
        # torch's profiler writes lines to stderr; the server passes on what is set before it starts.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, function, args), daemon=True)
    process.start()
    sender.close()
    try:
        good, value = receiver.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise Failed(why + (", probably for its memory" if code == -signal.SIGKILL else "")) from None
    finally:
        # Nothing is left running when this is interrupted.
        process.kill()
        process.join()
    if not good:
        raise Failed(value)
    return value


def _run(sender, function: Callable[..., Any], args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this process
    with contextlib.suppress(OSError):
        # When memory runs out the kernel is to take this process, not its parent or another program.
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        sender.send((True, function(*args)))
    except Exception as e:  # whatever it is, it becomes a line in a table
        text = str(e).strip().splitlines()
        reason = "does not fit in memory" if _out_of_memory(e) else f"{type(e).__name__}: {text[0] if text else ''}"
        sender.send((False, reason))


def _out_of_memory(error: Exception) -> bool:
    words = ("out of memory", "can't allocate memory", "bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
