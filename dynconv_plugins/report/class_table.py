"""The table of a segmentation task's classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .compare import Compared
from .fields import score
from .records import Task
from .sheet import Head, Table, Value, percent, within
from .statistics import summarise


def classes(task: Task, rows: Sequence[Compared]) -> Table | None:
    """Table 4 by class: IoU of each class, averaged over runs; classes in the order of the data set."""
    shown = [r for r in rows if r.model.results]
    names = list(dict.fromkeys(name for r in shown for m in r.model.results.values() for name in m.per_class))
    if not names or task.score_name != "mIoU":
        return None
    heads = [Head("Class", number=False), *(Head(r.name) for r in shown)]
    table = Table(f"{task.name}-classes", "IoU of each class (%)", heads)
    absent = []
    for name in names:
        found = [_known(row, name) for row in shown]
        if any(found):
            table.rows.append([Value(name), *_fields(found)])
        else:
            absent.append(name)
    table.rows.append([Value("mIoU"), *(score(r) for r in shown)])
    table.about = "Mean over runs, with its 95% interval where there are several; the highest of each class in bold. "
    table.about += _counted(shown, names, absent)
    return table


def _known(row: Compared, name: str) -> list[float]:
    """The class's IoU of each run that has one: NaN is of a class that neither occurs nor is predicted."""
    found = (m.per_class.get(name, math.nan) for m in row.model.results.values())
    return [iou for iou in found if not math.isnan(iou)]


def _fields(found: Sequence[Sequence[float]]) -> Iterator[Value]:
    """One field a model, the highest marked unless all are equal."""
    spans = [summarise(runs) for runs in found]
    known = [span.mean for span in spans if span.n]
    best = max(known) if min(known) < max(known) else math.nan
    for span in spans:
        yield within(percent(span.mean, tone="best" if span.mean == best else ""), *span.clipped)


def _counted(shown: Sequence[Compared], names: Sequence[str], absent: Sequence[str]) -> str:
    """What the mean is over."""
    counts = {sum(not math.isnan(iou) for iou in m.per_class.values()) for r in shown for m in r.model.results.values()}
    counted = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    here = f" (here {', '.join(absent)})" if absent else ""
    return (
        f"mIoU is the mean over {counted} of the {len(names)} classes: one that neither occurs in the test "
        f"images nor is predicted has no IoU{here}."
    )
