"""The table of a segmentation task's classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .compare import Compared
from .fields import score
from .records import Task
from .sheet import Head, Table, Value, percent, within
from .statistics import summarise


def classes(task: Task, rows: Sequence[Compared]) -> Table | None:
    """Table 4 by class: IoU of each class, averaged over runs; classes in the order of the data set."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for metrics in row.model.results.values():
            for name, value in metrics.per_class.items():
                values.setdefault(name, {}).setdefault(row.model.key, []).append(value)
    if not values or task.score_name != "mIoU":
        return None
    shown = [r for r in rows if r.model.results]
    heads = [Head("Class", number=False), *(Head(r.name) for r in shown)]
    table = Table(f"{task.name}-classes", "IoU of each class (%)", heads)
    absent = []
    for name, found in values.items():
        if not any(x == x for v in found.values() for x in v):
            absent.append(name)
            continue
        means = [
            float(np.mean(v)) if (v := [x for x in found.get(r.model.key, []) if x == x]) else math.nan for r in shown
        ]
        known = sorted(m for m in means if m == m)
        best = known[-1] if len(known) > 1 and known[0] < known[-1] else math.nan
        spans = (summarise([x for x in found.get(r.model.key, []) if x == x]) for r in shown)
        fields = (percent(m, tone="best" if m == best else "") for m in means)
        table.rows.append([Value(name), *(within(f, *s.clipped) for f, s in zip(fields, spans, strict=True))])
    table.rows.append([Value("mIoU"), *(score(r) for r in shown)])
    table.about = "Mean over runs, with its 95% interval where there are several; the highest of each class in bold. "
    counts = {sum(v == v for v in m.per_class.values()) for r in shown for m in r.model.results.values()}
    counted = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    table.about += f"mIoU is the mean over {counted} of the {len(values)} classes: one that neither occurs in the test "
    table.about += "images nor is predicted has no IoU"
    table.about += f" (here {', '.join(absent)})." if absent else "."
    return table
