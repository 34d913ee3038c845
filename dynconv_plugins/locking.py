"""A folder that one run at a time writes to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

# Processes that load data for a run outlive its sudden death by a moment, and hold what it held.
PATIENCE = 10.0


@contextmanager
def sole(folder: Path, option: str) -> Iterator[None]:
    """Holds `folder` until the end of the block, or of the process; where there are no locks it does nothing.

    Args:
        folder: Is there.
        option: What a user would change to write elsewhere.

    Raises:
        UserError: If another run still holds it after `PATIENCE` seconds.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    told = f"another run writes to {folder}: wait for its end, or choose another {option}"
                    raise UserError(told) from None
                time.sleep(0.1)
            except OSError:  # some file systems of clusters have no locks
                break
        yield
    finally:
        os.close(handle)
