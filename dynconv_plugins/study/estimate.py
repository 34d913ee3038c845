"""About how long a cell takes: what its like has taken before, or a few training steps timed on the spot."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from . import cells, hosts, schedule
from .cells import Cell
from .execute import DONE

START = 15.0  # seconds to import a host, open the data and score the result
STEPS = 3


class Estimates:
    """Seconds of cells.

    Args:
        threads: CPU threads that each will have.
        all_cells: Those whose records may hold what others have taken.
        records: What each would begin with, by key.
        say: Takes a line before a model is timed, which may take minutes.
    """

    def __init__(
        self,
        threads: int,
        all_cells: list[Cell],
        records: Mapping[str, dict[str, Any]],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.threads, self.records, self.say = threads, records, say
        self.taken: dict[tuple[str, str], list[float]] = {}
        self.timed: dict[tuple[str, str], float] = {}
        for cell in all_cells:
            try:
                record = cells.read(cell.folder) or {}
            except cells.Damaged:
                continue
            # Those with other inputs, such as fewer epochs, tell nothing.
            if record.get("status") == DONE and schedule.same(record, records[cell.key]):
                self.taken.setdefault((cell.task.name, cell.column), []).append(record["seconds"])

    def of(self, cell: Cell) -> tuple[float, str]:
        """Seconds, and where they come from."""
        like = cell.task.name, cell.column
        if like in self.taken:
            return sum(self.taken[like]) / len(self.taken[like]), "measured before"
        if like not in self.timed:
            self.say(f"timing {STEPS} training steps: {cell.task.name}/{cell.column}")
            self.timed[like] = self._time(cell)
        return self.timed[like], f"{STEPS} timed steps"

    def _time(self, cell: Cell) -> float:
        host, record = hosts.get(cell.task.host), self.records[cell.key]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as all trainers choose
        torch.set_num_threads(self.threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch, steps = host.amount(record)
            model, x = host.build(record).train().to(device), host.example(record, batch).to(device)
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
            times = []
            for _ in range(STEPS + 1):
                started = time.perf_counter()
                model(x).float().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
        return START + steps * sorted(times[1:])[STEPS // 2]
