"""What one study does at a time in a folder that several share."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError


@contextmanager
def turn(path: Path, say: Callable[[str], None], what: str) -> Iterator[None]:
    """Waits until nobody else has the lock of a file, and holds it. It is gone with the process that has it.

    Args:
        path: The file; made where it is not there, and left.
        say: Takes a line if it has to wait.
        what: What the other one does.

    Raises:
        UserError: If the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another study, which {what}")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as e:  # some file systems of clusters
            raise UserError(f"no file can be locked in {path.parent} ({e.strerror}); choose another --out") from None
        yield
