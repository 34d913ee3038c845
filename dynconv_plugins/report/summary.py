"""The answer first: does dynamic convolution pay, for a task, and at which budget? And what to know before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import published
from .collect import missing_line, static_missing
from .compare import Compared, Verdict, p_value, points
from .fields import score
from .floor import floor
from .records import STATIC, Study, Task
from .same import alike
from .sheet import WILSON, Head, Table, Value, capital, figures, listed, times
from .statistics import resolution

ENOUGH = 5
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
        word: ``Yes``, ``In part``, ``Not shown``, ``No``, ``Too early to say``, ``Cannot be said`` (without
            static twins), ``Not asked``.
        tone: ``good``, ``bad`` or ``quiet``.
        text: One or two sentences with the numbers.
        best: The dynamic model they are about; None where there is none.
        static: Its static twin, or without it the static model with the highest mean; None where there is none.
    """

    task: Task
    word: str
    tone: str
    text: str
    best: Compared | None
    static: Compared | None


def answer(task: Task, rows: Sequence[Compared]) -> Answer:
    """The verdict on a task.

    A dynamic model pays if it beats its static twin after correction for the number of models; if the highest mean
    belongs to a static network none the less, it pays in part.
    """
    scored = [r for r in rows if r.scores.n]
    dynamic = [r for r in scored if r.model.operator != STATIC]
    if not dynamic:
        static = max(scored, key=_mean, default=None)
        if task.asks:
            return Answer(task, "Too early to say", "quiet", "No dynamic model has a result yet.", None, static)
        text = "The plan has static networks alone."
        text += f" The highest mean is {static.name}'s: {static.scores.mean:.1%}." if static else ""
        return Answer(task, "Not asked", "quiet", text, None, static)
    word, tone, text, best = _judged(task, scored, dynamic)
    return Answer(task, word, tone, text, best, next((r for r in scored if r.model is best.twin), None))


def heading(tasks: Iterable[Task]) -> str:
    """What the whole report is about."""
    return "Does dynamic convolution pay?" if any(t.asks for t in tasks) else "What static networks reach"


def _judged(task: Task, scored: Sequence[Compared], dynamic: Sequence[Compared]) -> tuple[str, str, str, Compared]:
    """Word, tone and text of an answer, and the model that it is about."""
    top = max(scored, key=_mean)
    better = [r for r in dynamic if r.verdict is Verdict.BETTER]
    tested = [r for r in dynamic if r.p is not None]
    untested = [r for r in dynamic if r.p is None]
    best = max(better, key=_mean) if better else max(tested or dynamic, key=_ahead)
    rest = f"{_worse(tested)}{_untested(task, untested)}"
    if better:
        more = "" if len(tested) < 2 else f" {len(better)} of {_of(tested, dynamic)} beat their static twin."
        word, tone = "Yes", "good"
        if top.model.operator == STATIC:
            word = "In part"
            more += f" But the highest mean of all is {top.name}'s: {top.scores.mean:.1%}."
        return word, tone, _sentence(best) + more + rest, best
    if all(r.verdict is Verdict.NO_TWIN for r in dynamic):
        return "Cannot be said", "quiet", _sentence(best), best
    if not tested:
        return "Too early to say", "quiet", f"{_sentence(best)} {_more_runs(best)}".rstrip(), best
    if all(r.verdict is Verdict.WORSE for r in dynamic):
        every = " Every dynamic model is worse." if len(dynamic) > 1 else ""
        return "No", "bad", _sentence(best) + every, best
    text = _sentence(best)
    if len(tested) > 1:
        none = f"Of {_of(tested, dynamic)}, none" if untested else "No dynamic model"
        text = f"{none} beats its static twin. The best of them, {best.name}: {best.gap}, {best.finding}."
        text += f" {_price(best)}".rstrip()
    if top is not best and top not in untested:
        text += f" The highest mean of all is {top.name}'s: {top.scores.mean:.1%}."
    return "Not shown", "quiet", text + _blind(task, tested) + rest, best


def _of(tested: Sequence[Compared], dynamic: Sequence[Compared]) -> str:
    """``"3 dynamic models"``, or ``"the 3 dynamic models that could be tested (of 12)"``."""
    if len(tested) == len(dynamic):
        return f"{len(tested)} dynamic models"
    return f"the {len(tested)} dynamic models that could be tested (of {len(dynamic)})"


def _untested(task: Task, untested: Sequence[Compared]) -> str:
    """Which models no word above is about, and how high the highest of them is."""
    if not untested:
        return ""
    top = max(untested, key=_mean)
    runs = len(top.model.results)
    what = "fold" if task.folded else "run"
    told = f"{top.scores.mean:.1%} from {'one' if runs == 1 else runs} {what}{'' if runs == 1 else 's'}"
    highest = f"highest mean: {top.name}, {told}" if len(untested) > 1 else told
    return f" Not tested: {listed([r.name for r in untested])} ({highest})."


def _blind(task: Task, tested: Sequence[Compared]) -> str:
    """Below which mean gain the tests would have seen nothing, from the steadiest model to the most restless."""
    doubles = alike(task)
    # Holm's correction does not count the tests that are decided.
    decided = sum(r.verdict is Verdict.WORSE and r.model.key not in doubles for r in tested)
    halves = [resolution(r.pair.summary, r.tests - decided) for r in tested if r.verdict is Verdict.OPEN]
    # Runs that agree to the last sample say nothing about how small a gain they would show.
    seen = sorted({f"{half * 100:.1f}" for half in halves if half >= 0.0005}, key=float)
    if not seen:
        return ""
    about = f"{seen[0]} points" if len(seen) == 1 else f"{seen[0]} to {seen[-1]} points, depending on the model,"
    return f" In these runs a mean gain below about {about} would not have been significant."


def _mean(row: Compared) -> float:
    return row.scores.mean


def _ahead(row: Compared) -> float:
    """By how much a model is ahead of its twin; those without one come last."""
    return row.pair.summary.mean if row.pair and row.pair.summary.n else -math.inf


def _sentence(row: Compared) -> str:
    # The network's name is written as its host writes it; an operator's begins a sentence.
    start = capital(row.sentence) if row.name == row.model.label else row.sentence
    return f"{start} {_price(row)}".rstrip()


def _worse(tested: Sequence[Compared]) -> str:
    """Which models lose significantly, the greatest loss first: the best of all tells nothing of them."""
    worse = sorted((r for r in tested if r.verdict is Verdict.WORSE), key=_ahead)
    if not worse or len(tested) < 2:
        return ""
    told = listed([f"{r.name} ({points(r.pair.summary.mean)} points, {p_value(r.p)})" for r in worse])
    return f" {len(worse)} of {len(tested)} {'is' if len(worse) == 1 else 'are'} significantly worse: {told}."


def _price(row: Compared) -> str:
    known = [f"{times(row.ratio(what))} {name}" for what, name in RATIOS if row.ratio(what) is not None]
    if not known:
        # Costs without the twin's beside them stand in their table.
        return "" if row.model.costs else "What it costs was not measured."
    return f"It takes {known[0] if len(known) == 1 else ', '.join(known[:-1]) + ' and ' + known[-1]}."


def _more_runs(row: Compared) -> str:
    if row.verdict is Verdict.NO_SPREAD:
        return ""
    return "A test needs at least three runs of each model."


def budget(task: Task, rows: Sequence[Compared]) -> Table | None:
    """The best score for each budget of latency: models ahead of all faster ones in the mean, if more than one."""
    known = [(c.latency(1), r) for r in rows if r.scores.n and (c := r.model.costs) and c.latency(1)]
    if len({c.measured for _, r in known if (c := r.model.costs)}) != 1 or len(known) < 2:
        return None
    heads = [Head("Latency at batch 1, at least", "ms", False), Head("model", number=False), Head(task.score_name, "%")]
    table = Table(f"{task.name}-budget", "At your budget", [*heads, Head("against its static twin", number=False)])
    reached, shown = -math.inf, []
    for ms, row in sorted(known, key=lambda pair: pair[0]):
        if row.scores.mean <= reached:
            continue
        reached = row.scores.mean
        said = "" if row.model.operator == STATIC else row.verdict.value
        tone = {Verdict.BETTER: "good", Verdict.WORSE: "bad"}.get(row.verdict, "quiet")
        name = Value(row.name, mark=row.model.label)
        table.rows.append([figures(ms), name, score(row), Value(said, tone=tone, raw=said)])
        shown.append(row)
    if len(table.rows) < 2:
        return None
    table.about = (
        "The highest mean that is to be had within a latency; a step up that is not significant may be chance."
        + (f" {WILSON} as above." if any(r.binomial for r in shown) else "")
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
    elif not published.source(task):  # where its numbers are shown, that stands below them
        yield published.not_comparable(task)
    yield _noise(task, rows)


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
