"""The first table of a report: the answer to each task and the numbers behind it."""

from __future__ import annotations

from collections.abc import Sequence

from .fields import gap, score, wilson_line
from .sheet import Head, Table, Value
from .summary import Answer


def overview(answers: Sequence[Answer]) -> Table:
    """One row a task: the answer and the numbers behind it."""
    heads = [
        Head("Task", number=False),
        Head("does it pay?", number=False),
        Head("static", "%"),
        Head("best dynamic model", number=False),
        Head("score", "%"),
        Head("against static", "points"),
        Head("MAdds", "×"),
        Head("latency", "×"),
        Head("training", "×"),
    ]
    table = Table("summary", "In one table", heads)
    for a in answers:
        data = ", ".join(filter(None, (str(a.task.data("name") or ""), a.task.score_name)))
        first = [Value(a.task.name, data), Value(a.word, tone=a.tone), score(a.static) if a.static else Value()]
        if a.best is None:
            table.rows.append([*first, *[Value()] * 6])
            continue
        ratios = (a.best.ratio(what) for what in ("macs", "latency1", "seconds"))
        fields = [Value() if r is None else Value(f"{r:.2f}", raw=r) for r in ratios]
        best = Value(a.best.name, a.best.verdict.value, mark=a.best.model.label)
        table.rows.append([*first, best, score(a.best), gap(a.best), *fields])
    table = table.without_empty()
    table.about = _about(answers, {h.text for h in table.heads})
    return table


def _about(answers: Sequence[Answer], shown: set[str]) -> str:
    about = ""
    if "best dynamic model" in shown:
        about += "The best dynamic model of each task: one that beats its static twin where there is one, else the one "
        about += "furthest ahead of it, which need not have the highest score. The best of many is likely to be "
        about += "flattered a little. “Static” is its twin, or the best static network where no dynamic one has a "
        about += "result. "
    about += "Scores are accuracies or mIoU, as named, with their 95% confidence intervals"
    about += "; differences have one from three common runs on. " if "against static" in shown else ". "
    for a in answers:
        if line := wilson_line(a.task, filter(None, (a.static, a.best))):
            about += line
            break
    if shown & {"MAdds", "latency", "training"}:
        about += "× are multiples of the static twin's cost."
    return about.strip()
