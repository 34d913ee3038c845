"""The tables of one task: results (the paper's Tables 3, 4 and 4b) and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from . import losses, published
from .compare import Compared, cost_of, overlap, points
from .fields import gap, score, wilson_line
from .floor import constant_pixels, constant_score
from .records import STATIC, Task
from .same import alike, corrected
from .same import remark as counted_once
from .sheet import NUMBERS, Head, Table, Value, breaks, capital, decimal, figures, percent, prefixed, times, within
from .statistics import ENOUGH, summarise
from .verdicts import Verdict

TONES = {Verdict.BETTER: "good", Verdict.WORSE: "bad"}


def kind(task: Task) -> str:
    """Which of the paper's tables a task's results are; empty where it has none of the kind."""
    tables = {"mmseg": "Table 4", "timm": "Table 3", "tsai": "Table 4b" if task.folded else ""}
    return tables.get(str(task.fact("host")), "") if published.source(task) else ""


def results(task: Task, rows: Sequence[Compared]) -> Table:
    """Scores with intervals, differences from the twin and what may be said of them, costs, the paper's numbers."""
    name = task.score_name
    comparable = not published.not_comparable(task)
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
            Head("ours less the paper's", "points" if comparable else "points, not comparable"),
            Head("the paper's FLOPs", "G"),
        ],
    )
    for row in rows:
        paper = published.published(task, row.model)
        costs = row.model.costs
        table.rows.append(
            [
                model_name(task, row),
                score(row),
                gap(row),
                _verdict(row),
                decimal(row.scores.sd * 100, 1),
                _pixels(task, row),
                figures(cost_of(costs, "macs"), giga, times(row.ratio("macs"))),
                figures(cost_of(costs, "params"), mega, times(row.ratio("params"))),
                _loss(row),
                percent(paper.score, f"± {paper.sd * 100:.1f}" if paper.sd else "", "quiet") if paper else Value(),
                _less(row, paper),
                Value(f"{paper.gflops:.1f}", raw=paper.gflops, tone="quiet") if paper and paper.gflops else Value(),
            ]
        )
    table.breaks = breaks(r.model.network for r in rows)
    table = table.without_empty()
    table.about = _about(task, rows, {h.text for h in table.heads})
    return table


def _about(task: Task, rows: Sequence[Compared], shown: set[str]) -> str:
    """What the columns that are shown mean."""
    what = "fold" if task.folded else "seed"
    about = ""
    if any(not math.isnan(r.scores.low) for r in rows):
        about += f"Mean over {what}s with its 95% confidence interval (Student's t{_widened(task)}). "
    about += wilson_line(task, rows)
    about += "sd divides by n − 1. " if "sd" in shown else ""
    if "against static" in shown:
        about += f"“Against static” is the mean difference from the static twin over common {what}s, with its interval "
        about += f"from three {what}s on. "
    if count := max((r.tests for r in rows), default=0):
        about += f"p is Holm's, corrected for {_models(count)}; the intervals are not. "
    if any(r.verdict.hinted for r in rows):
        about += f"No verdict is firm below {NUMBERS[ENOUGH]} {what}s, whatever its p. "
    if "MAdds" in shown:
        about += "MAdds count a multiply-add once, the making of the kernels included. "
    if "the paper's FLOPs" in shown:
        about += "The paper does not say how it counts its FLOPs. "
    if any(r.losses.n for r in rows):
        about += losses.remark(task)
    if (constant := constant_score(rows)) is not None:
        about += f"Always naming the most frequent class would score {constant:.1%}"
        pixels = constant_pixels(rows)
        about += f", with {pixels:.1%} of the pixels right. " if pixels is not None else ". "
    if any(row.ratio(cost) for row in rows for cost in ("macs", "params")):
        about += "Multiples (×) are against the static twin."
    return about.strip()


def _widened(task: Task) -> str:
    """That the training sets of folds overlap, and by how much that widens an interval; nothing for seeds."""
    if not task.folded:
        return ""
    return (
        ", widened for the overlap of the training sets of folds as Nadeau and Bengio (2003) do: variance × (1/n + "
        f"{overlap(task):.3f}), where the latter is {task.scored} samples over samples trained on"
    )


def _models(count: int) -> str:
    return "the one model that could be tested" if count == 1 else f"the {count} models that could be tested"


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
    exacts, compared = corrected({r.model.key: r.exact.p if r.exact else None for r in rows}, alike(task))
    for row in rows:
        if row.pair is None:
            continue
        pair, exact = row.pair, row.exact
        table.rows.append(
            [
                Value(row.name, mark=row.model.label),
                Value(str(pair.summary.n), raw=pair.summary.n),
                gap(row),
                _p(pair.p),
                _p(row.p),
                *([_p(pair.plain)] if folded else []),
                _p(pair.wilcoxon),
                _p(exacts[row.model.key], f"{exact.only_ours} : {exact.only_theirs}") if exact else Value(),
                _verdict(row, False),
            ]
        )
    table.breaks = breaks(r.model.network for r in rows if r.pair)
    table = table.without_empty()
    table.about = _about_tests(task, rows, compared, {h.text for h in table.heads})
    return table


def _about_tests(task: Task, rows: Sequence[Compared], compared: int, shown: set[str]) -> str:
    """What the tests that are shown are; `compared` is how many of McNemar's were made."""
    tested = [r for r in rows if r.pair and r.pair.p is not None]
    about = ""
    if tested:
        about += "The verdict rests on the first test after Holm's correction for "
        about += f"{_models(tested[0].tests)}, at 5%, and is firm from {NUMBERS[ENOUGH]} pairs on. "
    if "corrected t-test" in shown:
        about += "It is the corrected resampled t-test of Nadeau and Bengio (2003), with "
        about += f"{overlap(task):.3f} {task.scored} samples to each that was trained on: the training sets of folds "
        about += "overlap, and the plain t-test beside it is too sure of itself. "
    pairs = max((r.pair.summary.n for r in tested), default=0)
    if "Wilcoxon" in shown and pairs < 6:
        about += f"With {pairs} pairs Wilcoxon's p cannot fall below {2 / 2**pairs:.2g}. "
    if compared:
        about += f"McNemar's exact test compares two trained networks on the same {task.scored} samples (right in one "
        about += "only : right in the other only)"
        about += f", after Holm's correction for {compared} such comparisons" if compared > 1 else ""
        about += "; it says nothing about another seed. "
    if tested or compared:
        about += counted_once(task)
    return about.strip()


def model_name(task: Task, row: Compared) -> Value:
    """The row's name, with how many of the planned runs are in it."""
    what = ("fold" if task.folded else "run") + ("" if len(row.model.cells) == 1 else "s")
    done, planned = len(row.model.results), len(row.model.cells)
    return Value(row.name, f"{done} {what}" if done == planned else f"{done} of {planned} {what}", mark=row.model.label)


def _loss(row: Compared) -> Value:
    low = row.losses.low if math.isnan(row.losses.low) else max(0.0, row.losses.low)
    return within(decimal(row.losses.mean), low, row.losses.high, 1, digits=3)


def _pixels(task: Task, row: Compared) -> Value:
    known = [r.pixel_accuracy for r in row.model.results.values() if r.pixel_accuracy is not None]
    found = summarise(known, overlap(task))
    return within(percent(found.mean), *found.clipped)


def _less(row: Compared, paper: published.Published | None) -> Value:
    if paper is None or not row.scores.n:
        return Value()
    gap = row.scores.mean - paper.score
    return Value(points(gap), raw=gap * 100, tone="quiet")


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
