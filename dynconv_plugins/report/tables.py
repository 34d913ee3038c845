"""The tables of one task: results (the paper's Tables 3, 4 and 4b), classes, tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import losses, published
from .compare import Compared, Verdict, constant_score, cost_of, points
from .records import STATIC, Task
from .sheet import Head, Table, Value, breaks, capital, decimal, figures, percent, prefixed, times, within
from .statistics import holm, summarise

TONES = {Verdict.BETTER: "good", Verdict.WORSE: "bad"}


def kind(task: Task) -> str:
    """Which of the paper's tables a task's results are; empty where it has none of the kind."""
    tables = {"mmseg": "Table 4", "timm": "Table 3", "tsai": "Table 4b" if task.folded else ""}
    return tables.get(str(task.fact("host")), "") if published.source(task) else ""


def results(task: Task, rows: Sequence[Compared]) -> Table:
    """Scores with intervals, differences from the twin and what may be said of them, costs, the paper's numbers."""
    name = task.score_name
    macs, giga = prefixed((cost_of(r.model.costs, "macs") for r in rows), "G")
    params, mega = prefixed((cost_of(r.model.costs, "params") for r in rows), "M")
    table = Table(
        f"{task.name}-results",
        capital(name) + (f" ({kind(task)} of the paper)" if kind(task) else ""),
        [
            Head("Model", number=False),
            Head(name, "%"),
            Head("against static", "points"),
            Head("verdict", number=False),
            Head("sd", "points"),
            Head("pixel accuracy", "%"),
            Head("MAdds", macs),
            Head("parameters", params),
            Head(f"{task.scored} loss"),
            Head(f"the paper's {name}", "%"),
            Head("ours less the paper's", "points"),
            Head("the paper's FLOPs", "G"),
        ],
    )
    comparable = not published.not_comparable(task)
    for row in rows:
        paper = published.published(task, row.model)
        costs = row.model.costs
        table.rows.append(
            [
                model_name(task, row),
                _score(row),
                _gap(row),
                _verdict(row),
                decimal(row.scores.sd * 100, 1),
                percent(row.mean_of("pixel_accuracy")),
                figures(cost_of(costs, "macs"), giga, times(row.ratio("macs"))),
                figures(cost_of(costs, "params"), mega, times(row.ratio("params"))),
                _loss(row),
                percent(paper.score, f"± {paper.sd * 100:.1f}" if paper.sd else "", "quiet") if paper else Value(),
                _less(row, paper, comparable),
                Value(f"{paper.gflops:.1f}", raw=paper.gflops, tone="quiet") if paper and paper.gflops else Value(),
            ]
        )
    what = "fold" if task.folded else "seed"
    about = f"Mean over {what}s with its 95% confidence interval (Student's t"
    about += ", widened for the overlap of the training sets of folds" if task.folded else ""
    about += "); after a single run of an accuracy, and where all runs agree, Wilson's interval of the "
    about += f"{task.scored} set, which intervals over {what}s leave out. sd divides by n − 1. "
    about += f"“Against static” is the mean difference from the static twin over common {what}s, with its interval. "
    if any(r.p is not None for r in rows):
        about += "p is Holm's, corrected for the number of models; the intervals are not. "
    about += "MAdds count a multiply-add once, the making of the kernels included. "
    if any(p and p.gflops for r in rows if (p := published.published(task, r.model))):
        about += "The paper does not say how it counts its FLOPs. "
    if any(r.losses.n for r in rows):
        about += losses.remark(task)
    if (constant := constant_score(rows)) is not None:
        about += f"Always naming the most frequent class would score {constant:.1%}. "
    table.about = about + "Multiples (×) are against the static twin."
    table.breaks = breaks(r.model.network for r in rows)
    return table.without_empty()


def tests(task: Task, rows: Sequence[Compared]) -> Table:
    """Every test against the static twin, with its p values."""
    folded = task.folded
    table = Table(
        f"{task.name}-tests",
        "Tests against the static twin",
        [
            Head("Model", number=False),
            Head("pairs"),
            Head("difference", "points"),
            Head("corrected t-test" if folded else "paired t-test", "p"),
            Head("with Holm", "p"),
            *([Head("plain t-test", "p")] if folded else []),
            Head("Wilcoxon", "p"),
            Head("McNemar with Holm", "p"),
            Head("verdict", number=False),
        ],
    )
    exacts = holm([r.exact.p if r.exact else None for r in rows])
    for row, exact_p in zip(rows, exacts, strict=True):
        if row.pair is None:
            continue
        pair, exact = row.pair, row.exact
        table.rows.append(
            [
                Value(row.name, mark=row.model.label),
                Value(str(pair.summary.n), raw=pair.summary.n),
                _gap(row),
                _p(pair.p),
                _p(row.p),
                *([_p(pair.plain)] if folded else []),
                _p(pair.wilcoxon),
                _p(exact_p, f"{exact.only_ours} : {exact.only_theirs}") if exact else Value(),
                _verdict(row, False),
            ]
        )
    pairs = max((r.pair.summary.n for r in rows if r.pair), default=0)
    tested = any(r.pair and r.pair.p is not None for r in rows)
    about = "The verdict rests on the first test after Holm's correction for the number of models, at 5%. "
    about = about if tested else ""
    if folded and tested:
        about += (
            "It is the corrected resampled t-test of Nadeau and Bengio (2003): the training sets of folds overlap, "
        )
        about += "and the plain t-test beside it is too sure of itself. "
    if 3 <= pairs < 6:
        about += f"With {pairs} pairs Wilcoxon's p cannot fall below {2 / 2**pairs:.2g}. "
    if any(r.exact for r in rows):
        about += f"McNemar's exact test compares two trained networks on the same {task.scored} samples (right in one "
        about += "only : right in the other only), after Holm's correction for the number of models; it says nothing "
        about += "about another seed."
    table.about = about.strip()
    table.breaks = breaks(r.model.network for r in rows if r.pair)
    return table.without_empty()


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
    for name, found in values.items():
        means = [
            float(np.mean(v)) if (v := [x for x in found.get(r.model.key, []) if x == x]) else math.nan for r in shown
        ]
        known = sorted(m for m in means if m == m)
        best = known[-1] if len(known) > 1 and known[0] < known[-1] else math.nan
        spans = (summarise([x for x in found.get(r.model.key, []) if x == x]) for r in shown)
        fields = (percent(m, tone="best" if m == best else "") for m in means)
        table.rows.append([Value(name), *(within(f, *s.clipped) for f, s in zip(fields, spans, strict=True))])
    table.rows.append([Value("mIoU"), *(_score(r) for r in shown)])
    table.about = "Mean over runs, with its 95% interval where there are several; the highest of each class in bold. "
    counts = {sum(v == v for v in m.per_class.values()) for r in shown for m in r.model.results.values()}
    counted = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    table.about += f"mIoU is the mean over {counted} of the {len(values)} classes: one that neither occurs in the test "
    table.about += "images nor is predicted has no IoU."
    return table


def model_name(task: Task, row: Compared) -> Value:
    """The row's name, with how many of the planned runs are in it."""
    what = ("fold" if task.folded else "run") + ("" if len(row.model.cells) == 1 else "s")
    done, planned = len(row.model.results), len(row.model.cells)
    return Value(row.name, f"{done} {what}" if done == planned else f"{done} of {planned} {what}", mark=row.model.label)


def _score(row: Compared) -> Value:
    return within(percent(row.scores.mean), *row.bounds)


def _loss(row: Compared) -> Value:
    low = row.losses.low if math.isnan(row.losses.low) else max(0.0, row.losses.low)
    return within(decimal(row.losses.mean), low, row.losses.high, 1, digits=3)


def _less(row: Compared, paper: published.Published | None, comparable: bool) -> Value:
    if paper is None or not comparable or not row.scores.n:
        return Value()
    gap = row.scores.mean - paper.score
    return Value(points(gap), raw=gap * 100, tone="quiet")


def _gap(row: Compared) -> Value:
    if row.pair is None or not row.pair.summary.n:
        return Value()
    s = row.pair.summary
    return within(Value(points(s.mean), raw=s.mean * 100), s.low, s.high, signed=True)


def _verdict(row: Compared, with_p: bool = True) -> Value:
    if row.model.operator == STATIC:
        return Value("" if row.model.results else row.verdict.value, tone="quiet", raw="")
    note = f"p = {_p(row.p).text}".replace("= <", "< ") if row.p is not None and with_p else ""
    text = {Verdict.BETTER: "beats static", Verdict.WORSE: "worse than static"}.get(row.verdict, row.verdict.value)
    return Value(text, note, text, tone=TONES.get(row.verdict, "quiet"))


def _p(p: float | None, note: str = "") -> Value:
    if p is None:
        return Value()
    return Value("<0.001" if p < 0.001 else f"{p:.3f}", note, p)
