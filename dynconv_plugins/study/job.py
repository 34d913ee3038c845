"""What a cluster's job does: one cell, stopped in time when the machine is taken away, and put back into the queue."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

GRACE = 60.0  # seconds for a cell to save; Slurm gives 90 before the end of a job's time


class CellJob:
    """Runs one cell; picklable, and made for submitit: `checkpoint` is what it calls before the machine is gone.

    The cell runs in a second thread, because the signals that announce the end interrupt the first. A local job is
    ended by SIGTERM, as `cluster` sends it; on Slurm that alone means nothing, since it precedes preemption.

    Args:
        run: Called as ``run(folder, threads=..., stopped=...)`` with the arguments below and a function that says
            whether to save and return. Returns the cell's status.
        folder: The cell's, as all machines know it.
        threads: CPU threads; 0 for as many as there are.
    """

    def __init__(self, run: Callable[..., str], folder: str, threads: int = 0) -> None:
        self.run, self.folder, self.threads = run, folder, threads
        self._stop: threading.Event | None = None
        self._cell: Future[str] | None = None

    def __call__(self) -> str:
        """Runs the cell and returns its status."""
        self._stop = threading.Event()
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            signal.signal(signal.SIGTERM, self._on_term)
            # Ctrl-C is the study's to answer. Not SIG_IGN, which the trainer would inherit.
            signal.signal(signal.SIGINT, _nothing)
        with ThreadPoolExecutor(1) as pool:
            self._cell = pool.submit(self.run, self.folder, threads=self.threads, stopped=self._stop.is_set)
            # A signal that the system hands to the other thread wakes nobody: look by oneself.
            while not self._cell.done():
                wait([self._cell], timeout=0.5)
            return self._cell.result()

    def _on_term(self, *_: object) -> None:
        self._stop.set()

    def checkpoint(self) -> object:
        """Lets the cell save and returns what goes on with it."""
        from submitit.helpers import DelayedSubmission

        # The signal may come at any moment, the first ones included.
        if self._stop is not None:
            self._stop.set()
        if self._cell is not None:
            wait([self._cell], timeout=GRACE)
        return DelayedSubmission(CellJob(self.run, self.folder, self.threads))


def _nothing(*_: object) -> None:
    pass
