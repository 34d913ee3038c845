"""What a cell is, and what is known about it once it has run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OPERATORS = {"static": "static", "odconv": "ODConv", "odconv4x": "ODConv 4x"}


@dataclass(frozen=True)
class Data:
    """A data set as the hosts find it on disk.

    Args:
        name: Name for people.
        path: Folder handed to the host.
        train: Number of training samples.
        test: Number of samples that the score is computed on.
        classes: Number of classes.
    """

    name: str
    path: Path
    train: int
    test: int
    classes: int


@dataclass(frozen=True)
class Cell:
    """One training run: a host's own command line, and where it writes.

    Args:
        task: ``images``, ``segmentation`` or ``series``.
        operator: A key of `OPERATORS`.
        model: The model, as the host knows it.
        folder: What the command may write to; emptied before a run.
        command: Arguments; the first is the program.
        total: Steps that make the run complete (epochs, iterations, seeds).
        unit: What a step is.
        env: Environment variables of the command.
        inputs: Changes with the data that the command reads.
    """

    task: str
    operator: str
    model: str
    folder: Path
    command: tuple[str, ...]
    total: int
    unit: str
    env: tuple[tuple[str, str], ...] = ()
    inputs: str = ""

    @property
    def key(self) -> str:
        return f"{self.task}/{self.operator}"


@dataclass
class Curve:
    """A learning curve: values over steps; ``nan`` where the host wrote none at that step."""

    steps: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    valid_loss: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def add(self, step: float, train: float | None, valid: float | None, score: float | None) -> None:
        self.steps.append(step)
        for values, value in ((self.train_loss, train), (self.valid_loss, valid), (self.score, score)):
            values.append(math.nan if value is None else value)

    def last_score(self) -> float | None:
        return next((s for s in reversed(self.score) if not math.isnan(s)), None)


@dataclass
class Row:
    """One line of the result table. Scores are fractions of one, times are seconds of wall clock."""

    task: str
    operator: str
    model: str
    data: str
    train: int
    test: int
    classes: int
    unit: str
    command: str
    status: str = "failed"
    error: str = ""
    score_name: str = "accuracy"
    score: float | None = None
    params: int | None = None
    macs: int | None = None
    input_size: Sequence[int] = ()
    latency_ms: float | None = None
    seconds: float | None = None
    curve: Curve = field(default_factory=Curve)
    curve_unit: str = "epoch"

    @property
    def stderr(self) -> float | None:
        """Binomial standard error of an accuracy; mIoU is not a mean over samples and has none."""
        if self.score is None or self.score_name != "accuracy" or not self.test:
            return None
        return math.sqrt(self.score * (1 - self.score) / self.test)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"stderr": self.stderr}
