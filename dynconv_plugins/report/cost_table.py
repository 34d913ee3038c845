"""The table of costs, and what others report for the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import published
from .compare import Compared, cost_of
from .records import Task
from .sheet import Head, Table, Value, breaks, decimal, decimals, figures, interval, percent, prefixed, times
from .statistics import summarise

LATENCIES = (
    ("latency, batch 1", "ms", "latency1", 1),
    ("latency, batch 64", "ms", "latency64", 1),
)


def costs(task: Task, rows: Sequence[Compared]) -> Table:
    """What each model costs, and how many times as much as its static twin."""
    columns = [*_counts(rows), *LATENCIES, *_memory(rows)]
    heads = [Head("Model", number=False), *(Head(title, unit) for title, unit, _, _ in columns)]
    heads += [Head("memory of the training process", "MiB"), Head("training", "min a run")]
    heads += [Head("published parameters", "M"), Head("published MAdds", "G")]
    table = Table(f"{task.name}-costs", "What it costs", heads)
    for row in rows:
        fields = [figures(cost_of(row.model.costs, w), scale, times(row.ratio(w))) for _, _, w, scale in columns]
        for what, scale in (("memory", 1), ("seconds", 60)):
            fields.append(_spent(row, what, scale))
        known = published.counts(row.model)
        fields += [decimal(known["params"], 2), decimal(known["gmadds"], 3)] if known else [Value(), Value()]
        table.rows.append([Value(row.name, mark=row.model.label), *fields])
    table.about = _about(rows)
    table.breaks = breaks(r.model.network for r in rows)
    return table.without_empty()


def _spent(row: Compared, what: str, scale: float) -> Value:
    """The mean over runs, its interval where there are several, and the multiple of the twin's."""
    values = row.spent(what)
    s = summarise(values)
    value = figures(s.mean if values else None, scale)
    span = interval(s.low, s.high, 1 / scale, digits=decimals(s.mean / scale)) if s.low > 0 else ""
    return replace(value, note=", ".join(filter(None, (times(row.ratio(what)), span))))


def _counts(rows: Sequence[Compared]) -> list[tuple[str, str, str, float]]:
    made = []
    for title, name, unit in (("parameters", "params", "M"), ("MAdds", "macs", "G")):
        prefix, factor = prefixed((cost_of(r.model.costs, name) for r in rows), unit)
        made.append((title, prefix, name, factor))
    return made


def _memory(rows: Sequence[Compared]) -> list[tuple[str, str, str, float]]:
    """Columns for the memory figures that were measured: ``inference_64`` is inference with a batch of 64."""
    names = dict.fromkeys(name for r in rows if r.model.costs for name in r.model.costs.memory_mb)
    made = []
    for name in names:
        what, _, batch = name.partition("_")
        made.append((f"{what} memory" + (f", batch {batch}" if batch else ""), "MiB", name, 1.0))
    return made


def _about(rows: Sequence[Compared]) -> str:
    inputs = {c.input_size for r in rows if (c := r.model.costs) and c.input_size}
    threads = {c.threads for r in rows if (c := r.model.costs) and c.threads}
    about = f"Input {' or '.join('×'.join(map(str, s[1:])) for s in sorted(inputs))}. " if inputs else ""
    if any(r.model.costs and r.model.costs.latency_ms for r in rows):
        cores = f"{' or '.join(map(str, sorted(threads)))} CPU thread{'' if threads == {1} else 's'}"
        about += f"Latency: the median of repeated forward passes{f' on {cores}' if threads else ''}, in torch's "
        about += "default memory layout; channels_last is often faster. "
        about += "Memory of inference and of a training step: the most that tensors take at once, without the model. "
    else:
        about += "Parameters, MAdds and latency were not measured. "
    about += "Memory of the training process: all of it. " if any(r.model.memory for r in rows) else ""
    about += "Training: processor time of the whole command, its start included (wall clock on a GPU). It depends less "
    about += (
        "than the clock on what runs beside it, but by tens of percent it does. Of several runs the mean with its 95% "
    )
    about += "confidence interval. "
    about += "Multiples (×) are against the static twin. "
    if any(published.counts(r.model) for r in rows):
        about += "Published counts: ODConv (ICLR 2022) and A2D2C, for 224×224 and 1000 classes."
    return about.strip()


def references(task: Task) -> Table | None:
    """What others report for the same data."""
    found = published.references(task)
    if not found:
        return None
    heads = [Head("Network", number=False), Head(task.score_name, "%"), Head("measured on", number=False)]
    table = Table(f"{task.name}-references", "Published elsewhere", [*heads, Head("source", number=False)])
    for r in found:
        score = percent(r["score"], f"± {r['sd'] * 100:.1f}" if "sd" in r else "")
        table.rows.append([Value(r["name"]), score, Value(r["under"]), Value(r["source"])])
    return table
