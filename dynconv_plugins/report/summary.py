"""The answer first: does dynamic convolution pay, for a task, and at which budget?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .compare import Compared, p_value, points
from .fields import score
from .records import STATIC, Task
from .sheet import NUMBERS, WILSON, Head, Table, Value, capital, figures, listed, times
from .statistics import ENOUGH, FEWEST, LEVEL
from .unseen import unseen
from .verdicts import Verdict

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
        word: ``Yes``, ``In part``, ``Hinted, not shown`` (by fewer runs than make a firm result), ``Not shown``,
            ``No``, ``Too early to say``, ``Cannot be said`` (without static twins), ``Not asked``.
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
    tasks = list(tasks)
    if len(tasks) > 1 and all(t.tuning for t in tasks):
        return "Which recipe trains best?"
    return "Does dynamic convolution pay?" if any(t.asks for t in tasks) else "What static networks reach"


def _judged(task: Task, scored: Sequence[Compared], dynamic: Sequence[Compared]) -> tuple[str, str, str, Compared]:
    """Word, tone and text of an answer, and the model that it is about."""
    top = max(scored, key=_mean)
    better = [r for r in dynamic if r.verdict is Verdict.BETTER]
    tested = [r for r in dynamic if r.p is not None]
    untested = [r for r in dynamic if r.p is None]
    ahead = [r for r in dynamic if r.verdict is Verdict.AHEAD]
    best = max(better, key=_mean) if better else max(ahead or tested or dynamic, key=_ahead)
    rest = f"{_hints(tested, best)}{_worse(tested)}{_alone(tested, best)}{_untested(task, untested)}"
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
    if len(tested) > 1 and not ahead:
        none = f"Of {_of(tested, dynamic)}, none" if untested else "No dynamic model"
        text = f"{none} beats its static twin. The best of them, {best.name}: {best.gap}, {best.finding}."
        text += f" {_price(best)}".rstrip()
    if top is not best and top not in untested:
        text += f" The highest mean of all is {top.name}'s: {top.scores.mean:.1%}."
    if ahead:
        return "Hinted, not shown", "quiet", text + rest, best
    return "Not shown", "quiet", text + unseen(task, tested) + rest, best


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


def _mean(row: Compared) -> float:
    return row.scores.mean


def _ahead(row: Compared) -> float:
    """By how much a model is ahead of its twin; those without one come last."""
    return row.pair.summary.mean if row.pair and row.pair.summary.n else -math.inf


def _sentence(row: Compared) -> str:
    return f"{_capital(row)} {_price(row)}".rstrip()


def _worse(tested: Sequence[Compared]) -> str:
    """Which models lose significantly, the greatest loss first: the best of all tells nothing of them."""
    worse = sorted((r for r in tested if r.verdict is Verdict.WORSE), key=_ahead)
    if not worse or len(tested) < 2:
        return ""
    told = listed([f"{r.name} ({points(r.pair.summary.mean)} points, {p_value(r.p)})" for r in worse])
    return f" {len(worse)} of {len(tested)} {'is' if len(worse) == 1 else 'are'} significantly worse: {told}."


def _hints(tested: Sequence[Compared], best: Compared) -> str:
    """Which models other than the best pass their test in fewer runs than make a firm result."""
    told = ""
    for verdict, where in ((Verdict.AHEAD, "Ahead"), (Verdict.BEHIND, "Behind")):
        found = [r for r in tested if r.verdict is verdict and r is not best]
        if found:
            names = listed([f"{r.name} ({points(r.pair.summary.mean)} points, {r.hint})" for r in found])
            told += f" {where}, but in too few runs for a firm result ({NUMBERS[ENOUGH]} make one): {names}."
    return told


def _alone(tested: Sequence[Compared], best: Compared) -> str:
    """Which others differ by a test of their own, that many tests take back: gains and losses alike."""
    found = [r for r in tested if r.verdict is Verdict.OPEN and r.pair.p < LEVEL and r is not best]
    if not found:
        return ""
    told = [f"{r.name} ({points(r.pair.summary.mean)} points, {p_value(r.pair.p)})" for r in sorted(found, key=_ahead)]
    return f" Significant alone, but not after correction for {found[0].tests} models: {listed(told)}."


def _capital(row: Compared) -> str:
    # The network's name is written as its host writes it; an operator's begins a sentence.
    return capital(row.sentence) if row.name == row.model.label else row.sentence


def _price(row: Compared) -> str:
    known = [f"{times(row.ratio(what))} {name}" for what, name in RATIOS if row.ratio(what) is not None]
    if not known:
        # Costs without the twin's beside them stand in their table.
        return "" if row.model.costs else "What it costs was not measured."
    return f"It takes {known[0] if len(known) == 1 else ', '.join(known[:-1]) + ' and ' + known[-1]}."


def _more_runs(row: Compared) -> str:
    if row.verdict is Verdict.NO_SPREAD:
        return ""
    if row.verdict is Verdict.APART:
        return f"A test needs at least {NUMBERS[FEWEST]} runs in common: these have {NUMBERS[row.pair.summary.n]}."
    return f"A test needs at least {NUMBERS[FEWEST]} runs of each model."


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
