"""What a training command leaves behind, written after each run so that a killed command loses at most one."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from dynconv_plugins.errors import UserError

HISTORY = ("run", "epoch", "train_loss", "valid_loss", "accuracy", "stage")


@dataclass
class Run:
    """What one training leaves.

    Attributes:
        row: Of the table: loss (cross-entropy) and accuracy on the test series, seconds, epochs trained, and
            ``kept_epoch``, whose weights count.
        history: By epochs; the validation columns are of the held-out part, or of the test series if there is none.
        state: The weights that count, on the CPU.
        truth: Class numbers of the test series ``[N]``.
        predicted: What the network says ``[N]``.
        classes: Names of the classes.
    """

    row: dict
    history: list[dict]
    state: dict[str, Tensor]
    truth: np.ndarray
    predicted: np.ndarray
    classes: np.ndarray


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class Results:
    """The folder of one command.

    ``results.json``; ``history.csv``, with a column more for each thing that callbacks log; ``model.pth``, the last
    run's state dict; and ``predictions.npz`` with ``truth`` and ``predicted`` class numbers of the test series and the
    names, ``classes``. Of several runs, each has its own arrays, ``truth_0`` and so on.

    Args:
        out: The folder; made if needed.
        config: Everything that determines the numbers.
        overwrite: Forget what is there.

    Attributes:
        rows: Finished runs by their number, see :class:`Run`.
        overwrite: Whether earlier results were to be forgotten.

    Raises:
        UserError: If the folder holds results of another configuration, or damaged ones.
    """

    def __init__(self, out: Path, config: dict, overwrite: bool = False) -> None:
        self.out, self.config, self.overwrite = out, config, overwrite
        self.rows: dict[int, dict] = {}
        self.history: list[dict] = []
        self.predictions: dict[str, np.ndarray] = {}
        if (out / "results.json").is_file() and not overwrite:
            self._read()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"--out {out} is not a folder") from None

    def _read(self) -> None:
        try:
            stored = json.loads((self.out / "results.json").read_text())
            theirs = stored["config"]
            rows = {int(row["run"]): row for row in stored["rows"]}
            with open(self.out / "history.csv", newline="") as f:
                history = [row for row in csv.DictReader(f) if int(row["run"]) in rows]
            with np.load(self.out / "predictions.npz") as f:
                predictions = {name: f[name] for name in f}
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile):
            raise UserError(f"the results in {self.out} are damaged: add --overwrite or choose another --out") from None
        ours = json.loads(json.dumps(self.config))
        for key in [*ours, *theirs]:
            if ours.get(key) != theirs.get(key):
                raise UserError(
                    f"{self.out} holds results with {key} {theirs.get(key)}, not {ours.get(key)}: "
                    "choose another --out, or add --overwrite"
                )
        self.rows, self.history, self.predictions = rows, history, predictions

    def add(self, number: int, run: Run) -> None:
        """Takes in a finished run and writes all files, ``results.json`` last: it says which runs count."""
        self.rows[number] = {"run": number, **run.row}
        self.history += [{"run": number, **h} for h in run.history]
        write(self.out / "model.pth", _bytes(torch.save, run.state))
        self._predict(number, run)
        text = io.StringIO()
        columns = dict.fromkeys([*HISTORY, *(key for h in self.history for key in h)])
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write(self.out / "history.csv", text.getvalue().encode())
        rows = [self.rows[k] for k in sorted(self.rows)]
        content = {"config": self.config, "rows": rows, **summary(rows)}
        write(self.out / "results.json", (json.dumps(content, indent=2) + "\n").encode())

    def _predict(self, number: int, run: Run) -> None:
        first = next(iter(self.rows))
        for name in ("truth", "predicted"):
            if len(self.rows) > 1 and name in self.predictions:
                self.predictions[f"{name}_{first}"] = self.predictions.pop(name)
            self.predictions[name if len(self.rows) == 1 else f"{name}_{number}"] = getattr(run, name)
        self.predictions["classes"] = run.classes
        write(self.out / "predictions.npz", _bytes(lambda arrays, f: np.savez(f, **arrays), self.predictions))


def _bytes(save: Callable[[Any, io.BytesIO], object], content: Any) -> bytes:
    buffer = io.BytesIO()
    save(content, buffer)
    return buffer.getvalue()


def summary(rows: list[dict]) -> dict[str, float | None]:
    """Mean and standard deviation of accuracy, and of the loss.

    The deviation divides by n - 1, as in the reports, and is ``None`` of a single run. The *Comprehensive Study
    Dynamic CNN* divides by n.
    """
    accuracy, loss = ([row[k] for row in rows] for k in ("accuracy", "loss"))
    sd, sd_loss = (float(np.std(values, ddof=1)) if len(rows) > 1 else None for values in (accuracy, loss))
    return {"mean": float(np.mean(accuracy)), "sd": sd, "mean_loss": float(np.mean(loss)), "sd_loss": sd_loss}


def table(rows: list[dict], title: str, unit: str) -> Table:
    """The rows, then their mean and, of several, their standard deviation, for printing."""
    t = Table(title=title)
    for name in (unit, "loss", "accuracy", "seconds"):
        t.add_column(name, justify="right")
    for row in rows:
        t.add_row(str(row["run"]), f"{row['loss']:.3f}", f"{row['accuracy']:.3f}", f"{row['seconds']:.1f}")
    s = summary(rows)
    t.add_section()
    t.add_row("mean", f"{s['mean_loss']:.3f}", f"{s['mean']:.3f}", f"{np.mean([r['seconds'] for r in rows]):.1f}")
    if len(rows) > 1:
        t.add_row("sd", f"{s['sd_loss']:.3f}", f"{s['sd']:.3f}", "")
    return t
