"""The demo from data to page."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from dynconv_plugins import datasets
from dynconv_plugins.demo import machine, page, runner, table
from dynconv_plugins.demo.figures import Album
from dynconv_plugins.demo.host import Host, measure
from dynconv_plugins.demo.images import Images
from dynconv_plugins.demo.page import Section
from dynconv_plugins.demo.records import Cell, Curve, Data, Row
from dynconv_plugins.demo.segmentation import Segmentation
from dynconv_plugins.demo.series import Series
from dynconv_plugins.demo.sizes import SIZES
from dynconv_plugins.errors import UserError
from dynconv_plugins.locking import sole
from dynconv_plugins.writing import write_json, write_text

HOSTS: dict[str, type] = {"images": Images, "segmentation": Segmentation, "series": Series}
DIATOMS = {"smallest": {"train": 32, "test": 20}, "default": {"train": 120, "test": 40}}


class Show:
    """One run of the demo.

    Args:
        found: Real data, as ``datasets.find`` returned it.
        out: Folder for everything that is written.
        size: A key of ``SIZES``.
        tasks: Keys of `HOSTS`.
        threads: CPU threads for each training command.
    """

    def __init__(self, found: Mapping[str, Path], out: Path, size: str, tasks: Sequence[str], threads: int) -> None:
        self.found, self.out, self.size, self.threads = found, out, size, threads
        self.hosts: dict[str, Host] = {task: HOSTS[task]() for task in tasks}
        # A log that is no terminal has no width of its own.
        self.console = Console(width=None if sys.stdout.isatty() else 110)
        self.data: dict[str, Data] = {}
        self.cells: list[Cell] = []
        self.troubles: dict[str, str] = {}

    def run(self) -> int:
        """Returns 0, or 1 if anything failed.

        Raises:
            UserError: If another run writes to `out`.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with sole(self.out, "--out"):
            return self._run()

    def _run(self) -> int:
        self._prepare()
        done = runner.run_all(self.cells, self._curve, self.console, self.threads)
        album = Album(self.out / "img")
        with warnings.catch_warnings():
            # What hosts remark on their own parts while their models are built here is of no use to a reader.
            warnings.simplefilter("ignore")
            rows, models = self._measure(*done)
            sections = [self._section(task, models, album) for task in self.hosts if task in self.data]
        facts = machine.facts(self.size, self.threads)
        write_json(self.out / "results.json", {**facts, "rows": [row.as_json() for row in rows]})
        write_text(self.out / "results.md", table.markdown(rows))
        page.render(self.out / "index.html", sections, rows, album, facts)
        self.console.print()
        if rows:
            self.console.print(table.terminal(rows))
            self.console.print(page.caution(rows), style="dim", highlight=False)
        for what, trouble in self.troubles.items():
            self.console.print(f"[red]failed[/red] {what}: ", end="")
            self.console.print(trouble, markup=False, highlight=False, soft_wrap=True)
        self.console.print(f"page: {self.out / 'index.html'}", highlight=False, soft_wrap=True)
        return 1 if self.troubles else 0

    def _prepare(self) -> None:
        folder = self.out / "data"
        needed = {"images": "tiny-imagenet", "segmentation": "voc2012", "series": "ucr"}
        if any(needed[task] not in self.found for task in self.hosts):
            with self.console.status("making diatoms"):
                datasets.diatoms.make(folder / "diatoms", **DIATOMS[self.size])
        for task, host in self.hosts.items():
            try:
                with self.console.status(f"preparing {task}"):
                    data = host.prepare(self.found, folder, SIZES[self.size])
                    cells = host.cells(data, self.out / task, SIZES[self.size])
            except (UserError, ImportError, OSError) as e:
                # The other tasks go on: a person without one of the hosts still sees the rest.
                self.troubles[task] = str(e)
                continue
            self.data[task] = data
            self.cells += cells
            counts = f"{data.train} training and {data.test} test {host.unit}"
            self.console.print(f"{task}: {data.name}, {counts}", highlight=False, soft_wrap=True)

    def _curve(self, cell: Cell) -> Curve:
        return self.hosts[cell.task].curve(cell)

    def _measure(
        self, seconds: Mapping[str, float], errors: Mapping[str, str]
    ) -> tuple[list[Row], dict[str, dict[str, nn.Module]]]:
        torch.set_num_threads(self.threads)
        rows: list[Row] = []
        models: dict[str, dict[str, nn.Module]] = {}
        for cell in self.cells:
            host, data = self.hosts[cell.task], self.data[cell.task]
            row = Row(
                cell.task,
                cell.operator,
                cell.model,
                data.name,
                data.train,
                data.test,
                data.classes,
                host.unit,
                runner.shown(cell),
                score_name=host.score_name,
                seconds=seconds.get(cell.key),
            )
            rows.append(row)
            if cell.key in errors:
                row.error = errors[cell.key]
            else:
                try:
                    with self.console.status(f"measuring {cell.key}"):
                        models.setdefault(cell.task, {})[cell.operator] = measure(host, cell, data, row)
                except Exception as e:  # the host's files or classes are not what they should be: say so, go on
                    row.error = _told(e)
            if row.error:
                self.troubles[cell.key] = row.error
        return rows, models

    def _section(self, task: str, models: Mapping[str, Mapping[str, nn.Module]], album: Album) -> Section:
        host, cells = self.hosts[task], [c for c in self.cells if c.task == task]
        try:
            with self.console.status(f"drawing {task}"):
                return host.section(models.get(task, {}), cells, self.data[task], album)
        except Exception as e:
            self.troubles[f"{task}, pictures"] = _told(e)
            return Section(task, task.capitalize(), "", "", notes=[f"the pictures could not be drawn: {_told(e)}"])


def _told(error: Exception) -> str:
    if os.environ.get("DYNCONV_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
