"""Each model against its static twin: what the numbers allow to say, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .readings import predictions
from .records import Model, Task
from .same import alike, corrected
from .sheet import NUMBERS
from .statistics import ENOUGH, LEVEL, McNemar, Paired, Summary, mcnemar, paired, summarise, wilson
from .verdicts import Verdict, judged


@dataclass(frozen=True)
class Compared:
    """A model of a task with all that is said about it.

    Attributes:
        name: For people.
        scores: Summary of its scores.
        losses: Summary of its test losses.
        binomial: Wilson's interval where there is one run of an accuracy, or all runs agree.
        pair: Its scores less its twin's over common units.
        p: The p value that decides, after Holm's correction.
        tests: For how many tests `p` is corrected: those of the task's models that could be made.
        exacts: McNemar's test against the twin for each common run; none where one's predictions are not known.
    """

    model: Model
    name: str
    twin: Model | None
    scores: Summary
    losses: Summary
    binomial: tuple[float, float] | None
    pair: Paired | None
    p: float | None
    tests: int
    exacts: tuple[McNemar, ...]
    verdict: Verdict

    def mean_of(self, what: str) -> float | None:
        """Mean over runs of another figure of `Metrics`; None where no run has it."""
        known = [v for r in self.model.results.values() if (v := getattr(r, what)) is not None]
        return sum(known) / len(known) if known else None

    @property
    def exact(self) -> McNemar | None:
        """McNemar's test where there is one run: no test over runs stands beside it."""
        return self.exacts[0] if len(self.model.results) == 1 and self.exacts else None

    @property
    def gap(self) -> str:
        """``+1.3 points (95% CI −0.2 to +2.8)``: the difference from the twin; empty where there is none."""
        if self.pair is None or not self.pair.summary.n:
            return ""
        s = self.pair.summary
        interval = "" if math.isnan(s.low) else f" (95% CI {bound(s.low)} to {bound(s.high)})"
        return f"{points(s.mean)} points{interval}"

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval of the score, within 0 and 1: Wilson's where runs do not spread."""
        return self.binomial or self.scores.clipped

    @property
    def finding(self) -> str:
        """The verdict with its p value, and with the uncorrected one where the correction decides."""
        if self.p is None:
            return self.verdict.value
        if self.verdict.hinted:
            few = f", too few for a firm result ({NUMBERS[ENOUGH]} make one)"
            return f"{p_value(self.p)} in {NUMBERS[self.pair.summary.n]} runs{few}{_each(self.exacts)}"
        if self.verdict is Verdict.OPEN and self.pair.p < LEVEL:
            return (
                f"not significant ({p_value(self.pair.p)} alone, {p_value(self.p)} corrected for {self.tests} models)"
            )
        return f"{self.verdict.value}, {p_value(self.p)}" if self.verdict is Verdict.OPEN else p_value(self.p)

    @property
    def hint(self) -> str:
        """The p value with the number of runs it is of, and what single pairs of networks say beside it."""
        return f"{p_value(self.p)} in {NUMBERS[self.pair.summary.n]} runs{_each(self.exacts)}"

    @property
    def sentence(self) -> str:
        """One plain sentence, in points."""
        if not self.gap:
            return f"{self.name}: {self.verdict.value}."
        if self.verdict is Verdict.BETTER:
            return f"{self.name} beats its static twin by {self.gap}, {self.finding}."
        if self.verdict is Verdict.WORSE:
            return f"{self.name} does not beat its static twin, it is worse: {self.gap}, {self.finding}."
        if self.verdict.hinted:
            where = "ahead of" if self.verdict is Verdict.AHEAD else "behind"
            return f"{self.name} is {where} its static twin: {self.gap}, {self.finding}."
        if self.p is None:
            return f"{self.name} is {_apart(self.pair.summary.mean)} its static twin: {self.finding}."
        return f"{self.name} does not beat its static twin: {self.gap}, {self.finding}."

    def spent(self, what: str) -> list[float]:
        """``seconds`` or ``memory`` of the runs that `ratio` is about; of all where there is no twin's to divide by."""
        values = getattr(self.model, what)
        return [values[u] for u in self._common(what) or values]

    def _common(self, what: str) -> list[str]:
        """Units of which both the model's and the twin's are known, of one machine."""
        if self.twin is None:
            return []
        ours, theirs = getattr(self.model, what), getattr(self.twin, what)
        return [u for u in ours if u in theirs and _machine(self.model, u) == _machine(self.twin, u)]

    def ratio(self, what: str) -> float | None:
        """A cost as a multiple of the twin's; None where either is unknown or they were measured apart.

        Args:
            what: ``params``, ``macs``, ``latency1``, ``latency64``, ``seconds``, ``memory`` or a memory figure.
        """
        if self.twin is None:
            return None
        if what in ("seconds", "memory"):
            ours, theirs, common = getattr(self.model, what), getattr(self.twin, what), self._common(what)
            return sum(ours[u] for u in common) / sum(theirs[u] for u in common) if common else None
        a, b = self.model.costs, self.twin.costs
        if a is None or b is None or (a.measured != b.measured and what not in ("params", "macs")):
            return None
        x, y = (cost_of(c, what) for c in (a, b))
        return x / y if x and y else None


def _apart(gap: float) -> str:
    """Where a model stands that could not be tested, whose difference therefore has no interval."""
    size = points(abs(gap)).lstrip("+")
    if size == "0.0":
        return "level with"
    return f"{size} points {'above' if gap > 0 else 'below'}"


def _machine(model: Model, unit: str) -> tuple[Any, Any]:
    """Where a run was trained, and on how many threads."""
    record = model.cells[unit].record
    return record.get("machine"), record.get("threads")


def cost_of(costs, what: str) -> float | None:
    """A figure of `Costs` by name."""
    if costs is None:
        return None
    if what.startswith("latency"):
        return costs.latency(int(what[7:]))
    return getattr(costs, what) if what in ("params", "macs") else costs.memory_mb.get(what)


def overlap(task: Task) -> float:
    """Test samples over those really trained on, what is held out for validation apart; 0 where runs differ by seed.

    ``1 / (k - 1)`` for k folds where the records do not say how many there were.
    """
    if not task.folded:
        return 0.0
    sizes = [(d.get("test"), d.get("train")) for r in task.records if (d := r.get("data"))]
    known = [test / train for test, train in sizes if isinstance(test, int) and isinstance(train, int) and train > 0]
    if known:
        return float(np.mean(known))
    k = task.fact("folds", None)
    k = k if isinstance(k, int) and k > 1 else len([u for u in task.units if u.startswith("fold")])
    return 1 / max(1, k - 1)


def compare(task: Task) -> list[Compared]:
    """All models of a task, the static ones first within each network."""
    models = task.ordered()
    rho = overlap(task)
    pairs = [_pair(m, task.twin(m), rho) for m in models]
    ps = {m.key: pair.p if pair else None for m, pair in zip(models, pairs, strict=True)}
    adjusted, tests = corrected(ps, alike(task))
    return [_compared(task, m, pair, adjusted[m.key], tests, rho) for m, pair in zip(models, pairs, strict=True)]


def _pair(model: Model, twin: Model | None, rho: float) -> Paired | None:
    if twin is None:
        return None
    ours, theirs = model.results, twin.results
    common = [u for u in ours if u in theirs]
    return paired([ours[u].score for u in common], [theirs[u].score for u in common], rho)


def _compared(task: Task, model: Model, pair: Paired | None, p: float | None, tests: int, rho: float) -> Compared:
    results = list(model.results.values())
    test = task.data("test")
    accuracy = task.score_name == "accuracy" and isinstance(test, int) and test > 0
    return Compared(
        model=model,
        name=task.name_of(model),
        twin=task.twin(model),
        scores=summarise([r.score for r in results], rho),
        losses=summarise([r.loss for r in results if r.loss is not None], rho),
        binomial=wilson(results[0].score, test) if accuracy and len({r.score for r in results}) == 1 else None,
        pair=pair,
        p=p,
        tests=tests,
        exacts=_exacts(model, task.twin(model)),
        verdict=judged(task, model, pair, p),
    )


def _exacts(model: Model, twin: Model | None) -> tuple[McNemar, ...]:
    made = []
    for unit in [u for u in model.results if twin and u in twin.results]:
        a, b = (predictions(m.results[unit].predictions) for m in (model, twin))
        if a is None or b is None or a[0].shape != b[0].shape or (a[0] != b[0]).any():
            return ()
        made.append(mcnemar(a[0], a[1], b[1]))
    return tuple(made)


def _each(exacts: Sequence[McNemar]) -> str:
    """What McNemar's tests say of single pairs of networks, to be read beside a test of few runs."""
    if not exacts:
        return ""
    ps = list(dict.fromkeys(p_value(e.p) for e in sorted(exacts, key=lambda e: e.p)))
    told = ps[0] if len(ps) == 1 else f"{ps[0]} to {ps[-1].removeprefix('p = ')}"
    return f"; McNemar's test of each pair of networks, uncorrected: {told}"


def points(fraction: float) -> str:
    """A difference of scores in points, signed: ``+1.3``, ``−0.2``."""
    # Adding 0.0 takes the sign from what is rounded to nothing.
    return f"{round(fraction * 100, 1) + 0.0:+.1f}".replace("-", "−")


def bound(fraction: float) -> str:
    """As `points`, but nothing keeps its sign: an interval that ends just before zero leaves it out."""
    return f"{fraction * 100:+.1f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """``p = 0.031``, ``p < 0.001``; empty where there is none."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.01 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
