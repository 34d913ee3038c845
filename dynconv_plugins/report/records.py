"""What a study's folders hold, as read: a study has tasks, a task models, a model cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .names import order

STATIC = "static"
DONE, FAILED, RUNNING, WAITING, MISSING, DAMAGED = "done", "failed", "running", "waiting", "missing", "damaged"


@dataclass(frozen=True)
class Curve:
    """A learning curve. Arrays are as long as `steps`; ``nan`` where the host wrote nothing at that step."""

    unit: str
    steps: np.ndarray
    train_loss: np.ndarray
    valid_loss: np.ndarray
    valid_score: np.ndarray


@dataclass(frozen=True)
class Metrics:
    """What one run reached on the test set, in fractions of one.

    `constant` is the score of always naming the most frequent class. `pixel_accuracy` is segmentation's, as is
    `constant_pixels`, what always naming that class has of it.
    """

    score: float
    loss: float | None = None
    per_class: Mapping[str, float] = field(default_factory=dict)
    curve: Curve | None = None
    predictions: Path | None = None
    pixel_accuracy: float | None = None
    constant: float | None = None
    constant_pixels: float | None = None


@dataclass(frozen=True)
class Cell:
    """One run: its folder, what its record says, and why there is no result where there is none."""

    folder: Path
    task: str
    model: str
    unit: str
    status: str
    why: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    metrics: Metrics | None = None

    @property
    def key(self) -> str:
        return f"{self.task}/{self.model}/{self.unit}"


@dataclass(frozen=True)
class Costs:
    """Measured costs of a model. Latencies are quartiles in ms by batch size, memory is in MB.

    `measured` numbers the measurement: ratios are formed within one only, since another machine has another speed.
    `gpu` names where latency and memory were measured; None for the CPU, on so many `threads`.
    """

    measured: int
    params: float | None = None
    macs: float | None = None
    input_size: Sequence[int] = ()
    latency_ms: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None
    gpu: str | None = None

    @property
    def restless(self) -> bool:
        """Whether something else ran while the latency was measured."""
        return any(high > 1.5 * low for low, _, high in self.latency_ms.values())

    def latency(self, batch: int) -> float | None:
        """The median latency in ms."""
        return self.latency_ms[batch][1] if batch in self.latency_ms else None


@dataclass
class Model:
    """One column of the comparison: a network with one operator in it.

    Attributes:
        key: Name of its folder.
        network: The network.
        operator: ``static`` or a name of the registry.
        label: The operator's name for people.
        cells: By unit, planned ones included.
        costs: None where nothing was measured.
    """

    key: str
    network: str
    operator: str
    label: str
    cells: dict[str, Cell] = field(default_factory=dict)
    costs: Costs | None = None

    @property
    def results(self) -> dict[str, Metrics]:
        """Metrics of the finished cells by unit, in the order of the units."""
        return {u: self.cells[u].metrics for u in sorted(self.cells, key=order) if self.cells[u].metrics is not None}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of training by unit, of finished cells: of the processors, which depend less than the clock on what
        ran beside it; wall clock where a GPU did the work."""
        processors, clock = self._measured("processor_seconds"), self._measured("seconds")
        gpu = {u for u in self.results if (self.cells[u].record.get("machine") or {}).get("gpu")}
        return {u: s if u in gpu else processors.get(u, s) for u, s in clock.items()}

    @property
    def memory(self) -> dict[str, float]:
        """Peak memory in MiB of the training process by unit, of finished cells."""
        return self._measured("memory_mb")

    def _measured(self, name: str) -> dict[str, float]:
        # What a killed attempt had taken is not known.
        once = (u for u in self.results if self.cells[u].record.get("attempts", 1) == 1)
        found = {u: finite(self.cells[u].record.get(name)) for u in once}
        return {u: v for u, v in found.items() if v > 0}


@dataclass
class Task:
    """One data set and recipe, on which models are compared.

    `asks` is whether the plan names a dynamic model, `static` the networks of which it names the static one, `planned`
    how many runs it has, those that nobody has started and that `models` leaves out included.
    """

    name: str
    models: dict[str, Model] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    asks: bool = True
    static: frozenset[str] = frozenset()
    planned: int = 0

    @property
    def cells(self) -> list[Cell]:
        return [c for m in self.models.values() for u, c in sorted(m.cells.items(), key=lambda item: order(item[0]))]

    @property
    def records(self) -> list[Mapping[str, Any]]:
        """Records of the cells, finished ones first."""
        return [c.record for c in sorted(self.cells, key=lambda c: c.status != DONE) if c.record]

    def fact(self, name: str, default: Any = "") -> Any:
        """An entry that all cells of a task share, from the first that has it."""
        return next((r[name] for r in self.records if r.get(name) not in (None, "", {})), default)

    def data(self, name: str, default: Any = None) -> Any:
        return next((r["data"][name] for r in self.records if name in (r.get("data") or {})), default)

    @property
    def score_name(self) -> str:
        return str(self.fact("score_name") or ("mIoU" if self.fact("host") == "mmseg" else "accuracy"))

    @property
    def held_out(self) -> bool:
        """Whether the curves that are called validation are of training data that were held out; otherwise they are of
        the test set, which then chose nothing."""
        return self.data("valid", 1) != 0

    @property
    def tuning(self) -> bool:
        """Whether recipes are chosen: a part of the training data takes the place of the test set."""
        return bool(self.data("tuning"))

    @property
    def scored(self) -> str:
        """What the samples are called that the scores are of."""
        return "held-out" if self.tuning else "test"

    @property
    def folded(self) -> bool:
        return any(u.startswith("fold") for m in self.models.values() for u in m.cells)

    @property
    def units(self) -> list[str]:
        return sorted({u for m in self.models.values() for u in m.cells}, key=order)

    @property
    def networks(self) -> list[str]:
        return list(dict.fromkeys(m.network for m in self.models.values()))

    def name_of(self, model: Model) -> str:
        """The model's name for people; the network is part of it where the task has several."""
        return f"{model.network} {model.label}" if len(self.networks) > 1 else model.label

    def twin(self, model: Model) -> Model | None:
        """The static model of the same network; None for itself and where there is none."""
        if model.operator == STATIC:
            return None
        return next((m for m in self.models.values() if m.operator == STATIC and m.network == model.network), None)

    def ordered(self) -> list[Model]:
        """Models by network, the static one first."""
        place = {n: i for i, n in enumerate(self.networks)}
        return sorted(self.models.values(), key=lambda m: (place[m.network], m.operator != STATIC))


@dataclass
class Study:
    """All that was read.

    `notes` are lines for the reader about what was not as expected, `planned` is the number of runs in all plans.
    """

    folders: list[Path]
    names: list[str]
    tasks: dict[str, Task] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    planned: int = 0

    @property
    def cells(self) -> list[Cell]:
        return [c for t in self.tasks.values() for c in t.cells]


def finite(value: Any) -> float:
    """`value` as a float, ``nan`` where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan
