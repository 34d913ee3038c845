"""``metrics.json`` and ``costs.json``, checked: other programs wrote them, perhaps on a full disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .records import Costs, Curve, Metrics, finite


def metrics(read: Mapping[str, Any], folder: Path) -> Metrics:
    """Checks a cell's metrics.

    Raises:
        ValueError: If the score is not a fraction of one.
    """
    score = finite(read.get("score"))
    if not 0 <= score <= 1:
        raise ValueError(f"metrics.json is damaged (its score is {read.get('score')!r})")
    per_class = read.get("per_class") if isinstance(read.get("per_class"), Mapping) else {}
    named = read.get("predictions")
    stored = folder / named if isinstance(named, str) else None
    return Metrics(
        score=score,
        loss=_known(read, "loss"),
        per_class={str(k): finite(v) for k, v in per_class.items()},
        curve=_curve(read.get("curve")),
        predictions=stored if stored is not None and stored.is_file() else None,
        pixel_accuracy=_known(read, "pixel_accuracy"),
        constant=_known(read, "constant_score"),
        constant_pixels=_known(read, "constant_pixels"),
    )


def _known(read: Mapping[str, Any], name: str) -> float | None:
    value = finite(read.get(name))
    return None if math.isnan(value) else value


def _curve(read: Any) -> Curve | None:
    if not isinstance(read, Mapping) or not isinstance(read.get("steps"), list):
        return None
    steps = np.array([finite(s) for s in read["steps"]])
    columns = []
    for name in ("train_loss", "valid_loss", "valid_score"):
        values = read.get(name) if isinstance(read.get(name), list) else []
        values = [finite(v) for v in values][: len(steps)]
        columns.append(np.array(values + [math.nan] * (len(steps) - len(values))))
    keep = np.isfinite(steps)
    if not keep.any():
        return None
    return Curve(str(read.get("unit", "step")), steps[keep], *(c[keep] for c in columns))


def costs(path: Path, measured: int) -> dict[str, Costs]:
    """Reads the costs of a task's models; what is missing in them is left out.

    Raises:
        ValueError: If the file is not what was written.
    """
    read = json.loads(path.read_text(encoding="utf-8"))
    models = read["models"] if isinstance(read, dict) and isinstance(read.get("models"), dict) else None
    if models is None:
        raise ValueError("it has no models")
    where = {
        name: v if isinstance(v := read.get(name), kind) else None for name, kind in (("threads", int), ("gpu", str))
    }
    return {str(k): _cost(v, measured, where) for k, v in models.items() if isinstance(v, dict)}


def _cost(read: Mapping[str, Any], measured: int, where: Mapping[str, Any]) -> Costs:
    quartiles = {}
    for batch, values in (read.get("latency_ms") or {}).items():
        three = tuple(finite(v) for v in values) if isinstance(values, list) and len(values) == 3 else ()
        if three and all(v > 0 for v in three):
            quartiles[int(batch)] = three
    memory = {k: finite(v) for k, v in (read.get("memory_mb") or {}).items()}
    numbers = (finite(read.get(name)) for name in ("params", "macs"))
    return Costs(
        measured,
        *(None if math.isnan(n) else n for n in numbers),
        input_size=tuple(read.get("input_size") or ()),
        latency_ms=quartiles,
        memory_mb={k: v for k, v in memory.items() if v > 0},
        **where,
    )


def predictions(path: Path | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Truth and predictions ``[N]`` of a cell; None where they are not there or not whole."""
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            truth, predicted = stored["truth"], stored["predicted"]
    except Exception:  # a damaged file fails in many ways, even as source code
        return None
    return (truth, predicted) if truth.ndim == 1 and truth.shape == predicted.shape else None
