"""What may be said of a model beside its static twin, and from how many runs on."""

from __future__ import annotations

from enum import Enum

from .records import STATIC, Model, Task
from .statistics import ENOUGH, FEWEST, LEVEL, Paired


class Verdict(Enum):
    """What may be said of a model beside its static twin."""

    BETTER = "beats its static twin"
    WORSE = "worse than its static twin"
    AHEAD = "ahead, in too few runs to be firm"
    BEHIND = "behind, in too few runs to be firm"
    OPEN = "not significant"
    FEW = "too few runs to test"
    APART = "too few runs in common to test"
    NO_SPREAD = "no spread between runs to test"
    REFERENCE = "the static twin"
    NO_TWIN = "no static twin to compare with"
    TWIN_WAITS = "its static twin has no result yet"
    NO_RESULT = "no result"

    @property
    def hinted(self) -> bool:
        """Whether a test is passed by fewer runs than make a firm result."""
        return self in (Verdict.AHEAD, Verdict.BEHIND)


def judged(task: Task, model: Model, pair: Paired | None, p: float | None) -> Verdict:
    """The verdict on a model.

    Args:
        task: Its task.
        model: The model.
        pair: Its scores less its twin's over common runs.
        p: The p value that decides, after correction; None where no test can be made.
    """
    twin = task.twin(model)
    if not model.results:
        return Verdict.NO_RESULT
    if model.operator == STATIC:
        return Verdict.REFERENCE
    if twin is None or not twin.results:
        return Verdict.TWIN_WAITS if model.network in task.static else Verdict.NO_TWIN
    if p is None:
        if pair and "spread" in pair.why:
            return Verdict.NO_SPREAD
        return Verdict.FEW if min(len(model.results), len(twin.results)) < FEWEST else Verdict.APART
    if p >= LEVEL:
        return Verdict.OPEN
    better = pair.summary.mean > 0
    if pair.summary.n < ENOUGH:
        return Verdict.AHEAD if better else Verdict.BEHIND
    return Verdict.BETTER if better else Verdict.WORSE
