"""Runs cells on this machine, some at a time."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from . import process
from .cells import Cell
from .execute import FAILED, run_cell, told
from .live import Board

LOOK = 2.0  # seconds between two looks at what another study runs


def run(
    todo: list[Cell],
    jobs: int,
    threads: int,
    board: Board,
    execute: Callable[..., str] = run_cell,
    inputs: Mapping[str, str] = {},
) -> bool:
    """Runs cells, each by its own process, and tells the board.

    A cell that another study runs is left to it, and taken over if that one ends without a result.

    Args:
        todo: In the order to start.
        jobs: How many at a time. They share the GPUs.
        threads: CPU threads for all of them together.
        board: Where progress is shown; it knows every cell's status afterwards.
        execute: Runs one cell, see `execute.run_cell`.
        inputs: Fingerprint of what each is made from, by key.

    Returns:
        False if it was interrupted: then what was running has been stopped, and can be continued.
    """
    jobs = max(1, min(jobs, len(todo)))  # so that fewer cells get more threads each
    stop = threading.Event()
    slots: queue.Queue[tuple[str, ...]] = queue.Queue()
    for gpus in shares(jobs):
        slots.put(gpus)

    def one(cell: Cell) -> bool:
        """Returns whether it has to be looked at again."""
        if stop.is_set():
            return False
        gpus = slots.get()
        try:
            board.start(cell)
            # One each for its processes; where the share has too few, all that there are.
            own = ",".join(gpus[: cell.task.processes]) if len(gpus) >= cell.task.processes else None
            status = execute(
                str(cell.folder),
                max(1, threads // jobs),
                own,
                lambda: board.watch(cell),
                stop.is_set,
                inputs=inputs.get(cell.key),
                waited=cell.key in board.left,
            )
        except process.Busy as e:
            board.elsewhere(cell, str(e))
            return True
        except Exception as e:  # whatever it is, the other cells go on
            status = FAILED
            board.trouble(cell, told(e))
        finally:
            slots.put(gpus)
        board.end(cell, status)
        return False

    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(one, cell): cell for cell in todo}
        others: list[Cell] = []
        again = 0.0
        try:
            while pending or others:
                done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = pending.pop(future)
                    if future.result():
                        others.append(cell)
                        again = time.monotonic() + LOOK
                if others and len(pending) < jobs and time.monotonic() >= again:
                    pending |= {pool.submit(one, cell): cell for cell in others}
                    others = []
                elif not pending:
                    time.sleep(0.5)
                board.refresh()
        except BaseException as e:
            stop.set()
            for future in pending:
                future.cancel()
            board.say("stopping: what runs is saved, and the same command goes on")
            if not isinstance(e, (KeyboardInterrupt, SystemExit)):
                raise
            return False
    return True


def shares(jobs: int) -> list[tuple[str, ...]]:
    """The GPUs of each of so many jobs, which share one only if there are fewer; none where there are no GPUs."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [n.strip() for n in seen.split(",")] if seen else [str(n) for n in range(count)]
    return [(tuple(names[i::jobs]) or (names[i % len(names)],)) if count else () for i in range(jobs)]
