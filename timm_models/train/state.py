"""Where a run is: the part of a checkpoint that is not weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """The place from which the next batch is trained, and what was measured before it.

    Attributes:
        epoch: Epoch under way (or next, when `batch` is 0).
        batch: Batches of it already trained on.
        batches: Batches per epoch when this was saved; a place inside an epoch means nothing for another number.
        loss_sum: Sum of the epoch's training losses so far over the images of all ranks.
        loss_count: Images behind `loss_sum`.
        budget: Mask rate and budget loss of hard attention in the last batch, averaged over the ranks; else empty.
        history: One row per validated epoch: ``{epoch, train: {...}, eval: {...}, lr, budget: {...}}``.
        plateau: State of the plateau schedule, which alone depends on the past.
    """

    epoch: int = 0
    batch: int = 0
    batches: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    budget: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    plateau: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        return cls(**{k: v for k, v in values.items() if k in cls.__dataclass_fields__})

    def next_epoch(self) -> None:
        self.epoch, self.batch, self.loss_sum, self.loss_count = self.epoch + 1, 0, 0.0, 0

    @property
    def train_loss(self) -> float:
        """Mean training loss of the epoch so far."""
        return self.loss_sum / max(self.loss_count, 1)

    def metric(self, row: dict[str, Any], name: str) -> float:
        """Returns the watched metric of a row; a run without validation watches its training loss."""
        return row["eval"][name] if row["eval"] else row["train"]["loss"]

    def best(self, name: str, first: int = 0) -> dict[str, Any] | None:
        """Returns the first row with the best value of the metric `name` (lowest loss, else highest).

        Rows of epochs before `first` do not count.
        """
        sign = 1 if name == "loss" else -1

        def rank(row: dict[str, Any]) -> tuple[bool, float]:
            value = self.metric(row, name)
            return math.isnan(value), sign * value  # what is not a number is never the best

        return min((row for row in self.history if row["epoch"] >= first), key=rank, default=None)

    def stale(self, name: str, first: int = 0) -> int:
        """Returns how many validations have passed since the best one, of those from epoch `first` on."""
        best = self.best(name, first)
        return 0 if best is None else len(self.history) - 1 - self.history.index(best)
