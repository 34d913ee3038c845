"""The answer first: does dynamic convolution pay, for each task, and at which budget?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import published
from .collect import missing_line, static_missing
from .compare import Compared, Verdict, constant_score, p_value, points
from .records import STATIC, Study, Task
from .sheet import Head, Table, Value, capital, figures, listed, percent, times, within
from .statistics import LEVEL, resolution

ENOUGH = 5
HARDLY = 1.5
RATIOS = (
    ("params", "the parameters"),
    ("macs", "the MAdds"),
    ("latency1", "the latency"),
    ("seconds", "the training time"),
)


@dataclass(frozen=True)
class Answer:
    """What a task's numbers say.

    Attributes:
        word: ``Yes``, ``In part``, ``Not shown``, ``No``, ``Too early to say``.
        tone: ``good``, ``bad`` or ``quiet``.
        text: One or two sentences with the numbers.
        best: The dynamic model they are about; None where there is none.
        top: The model with the highest mean, of all.
    """

    task: Task
    word: str
    tone: str
    text: str
    best: Compared | None
    top: Compared | None


def answer(task: Task, rows: Sequence[Compared]) -> Answer:
    """The verdict on a task.

    A dynamic model pays if it beats its static twin after correction for the number of models; if the highest mean
    belongs to a static network none the less, it pays in part.
    """
    scored = [r for r in rows if r.scores.n]
    dynamic = [r for r in scored if r.model.operator != STATIC]
    top = max(scored, key=lambda r: r.scores.mean, default=None)
    if not dynamic:
        return Answer(task, "Too early to say", "quiet", "No dynamic model has a result yet.", None, top)
    better = [r for r in dynamic if r.verdict is Verdict.BETTER]
    tested = [r for r in dynamic if r.p is not None]
    best = max(better, key=lambda r: r.scores.mean) if better else max(tested or dynamic, key=_ahead)
    if better:
        more = "" if len(tested) < 2 else f" {len(better)} of {len(tested)} dynamic models beat their static twin."
        word, tone = "Yes", "good"
        if top.model.operator == STATIC:
            word = "In part"
            more += f" But the highest mean of all is {top.name}'s: {top.scores.mean:.1%}."
        return Answer(task, word, tone, _sentence(best) + more + _worse(tested), best, top)
    if not tested:
        return Answer(task, "Too early to say", "quiet", f"{_sentence(best)} {_more_runs(best)}".rstrip(), best, top)
    if all(r.verdict is Verdict.WORSE for r in dynamic):
        rest = " Every dynamic model is worse." if len(dynamic) > 1 else ""
        return Answer(task, "No", "bad", _sentence(best) + rest, best, top)
    text = f"No dynamic model beats its static twin. The best of them, {best.name}: {best.gap}, {best.finding}. "
    text += _price(best)
    if top is not best and len(task.networks) > 1:
        text += f" The highest mean of all is {top.name}'s: {top.scores.mean:.1%}."
    if best.pair and best.pair.p is not None and best.pair.p >= LEVEL:
        half = resolution(best.pair.summary, len(tested))
        # Runs that agree to the last sample say nothing about how small a gain they would show.
        if half >= 0.0005:
            text += f" In these runs a mean gain below about {half * 100:.1f} points would not have been significant."
    text += _worse(tested)
    return Answer(task, "Not shown", "quiet", text, best, top)


def _ahead(row: Compared) -> float:
    """By how much a model is ahead of its twin; those without one come last."""
    return row.pair.summary.mean if row.pair and row.pair.summary.n else -math.inf


def _sentence(row: Compared) -> str:
    # The network's name is written as its host writes it; an operator's begins a sentence.
    start = capital(row.sentence) if row.name == row.model.label else row.sentence
    return f"{start} {_price(row)}"


def _worse(tested: Sequence[Compared]) -> str:
    """Which models lose significantly, the greatest loss first: the best of all tells nothing of them."""
    worse = sorted((r for r in tested if r.verdict is Verdict.WORSE), key=_ahead)
    if not worse:
        return ""
    told = listed([f"{r.name} ({points(r.pair.summary.mean)} points, {p_value(r.p)})" for r in worse])
    return f" {len(worse)} of {len(tested)} {'is' if len(worse) == 1 else 'are'} significantly worse: {told}."


def _price(row: Compared) -> str:
    known = [f"{times(row.ratio(what))} {name}" for what, name in RATIOS if row.ratio(what) is not None]
    if not known:
        return "What it costs was not measured."
    return f"It takes {known[0] if len(known) == 1 else ', '.join(known[:-1]) + ' and ' + known[-1]}."


def _more_runs(row: Compared) -> str:
    if row.verdict in (Verdict.NO_TWIN, Verdict.NO_SPREAD):
        return ""
    return "A test needs at least three runs of each model."


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
        name = Value(a.task.name, str(a.task.data("name") or ""))
        word = Value(a.word, tone=a.tone)
        if a.best is None:
            table.rows.append([name, word, _static(a), *[Value()] * 6])
            continue
        row, pair = a.best, a.best.pair
        gap = Value()
        if pair and pair.summary.n:
            gap = Value(points(pair.summary.mean), raw=pair.summary.mean * 100)
            gap = within(gap, pair.summary.low, pair.summary.high, signed=True)
        ratios = (row.ratio(what) for what in ("macs", "latency1", "seconds"))
        fields = [Value() if r is None else Value(f"{r:.2f}", raw=r) for r in ratios]
        score = percent(row.scores.mean, a.task.score_name)
        best = Value(row.name, row.verdict.value, mark=row.model.label)
        table.rows.append([name, word, _static(a), best, score, gap, *fields])
    table.about = (
        "The best dynamic model of each task: one that beats its static twin where there is one, else the one furthest "
        "ahead of it, which need not have the highest score. “Static” is its twin, or the best static network where no "
        "dynamic one has a result. Beside the points: their 95% confidence interval. × are "
        "multiples of the static "
    )
    table.about += "twin's cost. The best of many is likely to be flattered a little."
    return table


def _static(a: Answer) -> Value:
    model = a.best.twin if a.best else a.top.model if a.top else None
    scores = [r.score for r in model.results.values()] if model else []
    return percent(sum(scores) / len(scores), "" if a.best else a.task.score_name) if scores else Value()


def budget(task: Task, rows: Sequence[Compared]) -> Table | None:
    """The best score for each budget of latency: models ahead of all faster ones in the mean, if more than one."""
    known = [(c.latency(1), r) for r in rows if r.scores.n and (c := r.model.costs) and c.latency(1)]
    if len({c.measured for _, r in known if (c := r.model.costs)}) != 1 or len(known) < 2:
        return None
    heads = [Head("Latency at batch 1, at least", "ms", False), Head("model", number=False), Head(task.score_name, "%")]
    table = Table(f"{task.name}-budget", "At your budget", [*heads, Head("against its static twin", number=False)])
    reached = -math.inf
    for ms, row in sorted(known, key=lambda pair: pair[0]):
        if row.scores.mean <= reached:
            continue
        reached = row.scores.mean
        said = "" if row.model.operator == STATIC else row.verdict.value
        tone = {Verdict.BETTER: "good", Verdict.WORSE: "bad"}.get(row.verdict, "quiet")
        name = Value(row.name, mark=row.model.label)
        table.rows.append([figures(ms), name, within(percent(reached), *row.bounds), Value(said, tone=tone, raw=said)])
    if len(table.rows) < 2:
        return None
    table.about = (
        "The highest mean that is to be had within a latency; a step up that is not significant may be chance."
    )
    return table


def caveats(study: Study, compared: Mapping[str, Sequence[Compared]]) -> dict[str, list[str]]:
    """What has to be known before the numbers are believed: sentences by task, those about all under ``""``."""
    made = {"": list(study.notes)}
    for task in study.tasks.values():
        made[task.name] = [line for line in _caveats(task, compared[task.name]) if line]
    return {about: lines for about, lines in made.items() if lines}


def _caveats(task: Task, rows: Sequence[Compared]) -> Iterator[str]:
    yield floor(rows)
    yield missing_line(task)
    yield from task.notes
    if lacking := static_missing(task):
        yield f"There is no static twin of {', '.join(lacking)} to compare with."
    restless = [r.name for r in rows if r.model.costs and r.model.costs.restless]
    if restless:
        yield f"The latency of {', '.join(restless)} varied by more than half while measured: the machine was busy."
    counts = [len(r.model.results) for r in rows if r.model.results]
    if counts and not task.folded and min(counts) < ENOUGH:
        runs = f"{min(counts)} to {max(counts)} runs" if min(counts) < max(counts) else f"{min(counts)} runs"
        runs = "one run" if max(counts) == 1 else runs
        yield f"Only {runs} of each model: below five seeds nothing is a firm result."
    if task.data("real") is False:
        yield f"{capital(str(task.data('name')))}: the built-in data set, made up to try things out."
    else:
        yield published.not_comparable(task)
    yield _noise(task, rows)


def floor(rows: Sequence[Compared]) -> str:
    """That networks have learned next to nothing: all of them, or some beside others that have learned."""
    scored, constant = [r for r in rows if r.scores.n], constant_score(rows)
    low = [r for r in scored if constant is not None and r.scores.mean < HARDLY * constant]
    if not low:
        return ""
    least = f"always naming the most frequent class scores {constant:.1%}"
    if len(low) == len(scored):
        least += f", the best network {max(r.scores.mean for r in scored):.1%}"
        return f"The networks have hardly learned the task ({least}): their differences say nothing about operators."
    names = listed([f"{r.name} ({r.scores.mean:.1%})" for r in low])
    who, whose = ("One network has", "Its score says") if len(low) == 1 else ("Some networks have", "Their scores say")
    return f"{who} hardly learned the task ({least}): {names}. {whose} nothing about operators."


def _noise(task: Task, rows: Sequence[Compared]) -> str:
    """What the size of the test set alone does to an accuracy like these."""
    n = task.data("test")
    means = [r.scores.mean for r in rows if r.scores.n]
    if task.score_name != "accuracy" or not isinstance(n, int) or n <= 0 or not means:
        return ""
    middle = sorted(means)[len(means) // 2]
    error = 100 * math.sqrt(middle * (1 - middle) / n)
    where = f"{n:,} {task.scored} samples{' in each fold' if task.folded else ''}"
    told = f"{error:.1f} points from the {task.scored} set alone"
    return f"{where}: an accuracy of {middle:.0%} has a standard error of {told}."
