"""The table of costs, and what others report for the same data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from . import published
from .compare import Compared, cost_of
from .conditions import machine
from .records import Costs, Task
from .sheet import Head, Table, Value, breaks, decimal, decimals, figures, interval, listed, percent, prefixed, times
from .statistics import summarise

MEMORY = "memory of the training process"
LATENCIES = (
    ("latency, batch 1", "ms", "latency1", 1),
    ("latency, batch 64", "ms", "latency64", 1),
)


def costs(task: Task, rows: Sequence[Compared]) -> Table:
    """What each model costs, and how many times as much as its static twin."""
    columns = [*_counts(rows), *LATENCIES, *_memory(rows)]
    heads = [Head("Model", number=False), *(Head(title, unit) for title, unit, _, _ in columns)]
    heads += [Head(MEMORY, "MiB"), Head("training", "min a run")]
    heads += [Head("published parameters", "M"), Head("published MAdds", "G")]
    table = Table(f"{task.name}-costs", "What it costs", heads)
    for row in rows:
        fields = [figures(cost_of(row.model.costs, w), scale, times(row.ratio(w))) for _, _, w, scale in columns]
        for what, scale, unit in (("memory", 1, "MiB"), ("seconds", 60, "min")):
            fields.append(_spent(row, what, scale, unit))
        known = published.counts(row.model)
        fields += [decimal(known["params"], 2), decimal(known.get("gmadds"), 3)] if known else [Value(), Value()]
        table.rows.append([Value(row.name, mark=row.model.label), *fields])
    table.breaks = breaks(r.model.network for r in rows)
    table = table.without_empty()
    table.about = _about(rows, {h.text for h in table.heads})
    return table


def _spent(row: Compared, what: str, scale: float, unit: str) -> Value:
    """The mean over runs, the multiple of the twin's, and the mean's interval where there are several runs."""
    values = row.spent(what)
    s = summarise(values)
    value = figures(s.mean if values else None, scale)
    if math.isnan(s.low):
        return replace(value, note=times(row.ratio(what)))
    # Neither memory nor time is less than nothing.
    span = interval(max(0.0, s.low), s.high, 1 / scale, digits=decimals(s.mean / scale))
    # Behind a multiple the unit tells that the interval is not the multiple's.
    multiple = times(row.ratio(what))
    return replace(value, note=f"{multiple}, {unit} {span}" if multiple else span)


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


def _about(rows: Sequence[Compared], shown: set[str]) -> str:
    """What the columns that are shown mean."""
    inputs = {c.input_size for r in rows if (c := r.model.costs) and c.input_size}
    places = {_place(c) for r in rows if (c := r.model.costs) and (c.threads or c.gpu)}
    about = f"Input {' or '.join('×'.join(map(str, s[1:])) for s in sorted(inputs))}. " if inputs else ""
    if any(title in shown for title, *_ in LATENCIES):
        where = f" on {' or on '.join(sorted(places))}" if places else ""
        about += f"Latency: the median of repeated forward passes{where}, in torch's "
        about += "default memory layout; channels_last is often faster. "
    if any(title in shown for title, *_ in _memory(rows)):
        about += "Memory of inference and of a training step: the most that tensors take at once, without the model. "
    if not any(r.model.costs for r in rows):
        about += "Parameters, MAdds and latency were not measured. "
    if MEMORY in shown:
        about += f"Memory of the training process: all of it{', but for the GPU' * _on_gpu(rows)}. "
    if "training" in shown:
        about += "Training: processor time of the whole command, its start included (wall clock on a GPU). It depends "
        about += "less than the clock on what runs beside it, but by tens of percent it does. "
    if shown & {MEMORY, "training"} and any(len(r.spent(w)) > 1 for r in rows for w in ("memory", "seconds")):
        about += "Of several runs the mean with its 95% confidence interval. "
    about += _started_again(rows) + _measured_apart(rows, shown)
    if any(row.ratio(w) for row in rows for w in ("params", "macs", "latency1", "latency64", "memory", "seconds")):
        about += "Multiples (×) are against the static twin"
        if shown & {MEMORY, "training"}:
            about += "; those of a training are over the runs that both have, and need not be the quotient of the "
            about += "means shown"
        about += ". "
    if "published parameters" in shown:
        about += "Published counts: ODConv (ICLR 2022) and A2D2C with its ablations, for 224×224 and 1000 classes."
    return about.strip()


def _place(costs: Costs) -> str:
    return costs.gpu or f"{costs.threads} CPU thread{'' if costs.threads == 1 else 's'}"


def _on_gpu(rows: Sequence[Compared]) -> bool:
    """Whether a GPU trained one of the models."""
    return any((c.record.get("machine") or {}).get("gpu") for row in rows for c in row.model.cells.values())


def _started_again(rows: Sequence[Compared]) -> str:
    """Whose training is shown of fewer runs than there are, or of none."""
    told = []
    for row in rows:
        again = sum(row.model.cells[unit].record.get("attempts", 1) != 1 for unit in row.model.results)
        if again:
            runs = len(row.model.results)
            told.append(f"{row.name} ({again} of {runs} run{'' if runs == 1 else 's'})")
    if not told:
        return ""
    return (
        "Started more than once and therefore left out of the training's memory and time, since what the part that was "
        f"interrupted took is not known: {listed(told)}. "
    )


def _measured_apart(rows: Sequence[Compared], shown: set[str]) -> str:
    """That not all of a column is of one measurement, or of one machine: what differs may be theirs."""
    told = ""
    latencies: dict[int, list[str]] = {}
    for row in rows:
        if row.model.costs and row.model.costs.latency_ms:
            latencies.setdefault(row.model.costs.measured, []).append(row.name)
    if len(latencies) > 1:
        apart = "; ".join(listed(names) for names in latencies.values())
        told += f"Latency and memory of inference are of several measurements, not to be compared: {apart}. "
    trained = {row.name: _machines(row) for row in rows}
    if shown & {MEMORY, "training"} and len({m for machines in trained.values() for m in machines}) > 1:
        where: dict[tuple[str, ...], list[str]] = {}
        for name, machines in trained.items():
            if machines:
                where.setdefault(machines, []).append(name)
        on = "; ".join(f"{listed(names)} on {' and '.join(machines)}" for machines, names in where.items())
        told += f"The trainings were on several machines, whose times are not to be compared: {on}. "
    return told


def _machines(row: Compared) -> tuple[str, ...]:
    """Where the runs were trained whose memory and time are shown."""
    units = {*row.model.seconds, *row.model.memory}
    told = (machine(cell.record.get("machine")) for unit, cell in row.model.cells.items() if unit in units)
    return tuple(dict.fromkeys(filter(None, told)))


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
