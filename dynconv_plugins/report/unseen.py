"""Which gains the tests of these runs could not have shown: of those, a test that found nothing says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .compare import Compared
from .records import Task
from .same import alike
from .sheet import listed
from .statistics import LEVEL, resolution
from .verdicts import Verdict


def unseen(task: Task, tested: Sequence[Compared]) -> str:
    """Below which mean gain nothing would have been significant, from the steadiest model to the most restless.

    Args:
        task: The task.
        tested: Its models with a p value. Of those that are behind significantly, or further than any gain could lead,
            nobody asks which gain would have been seen.
    """
    doubles = alike(task)
    # Holm's correction does not count the tests that are decided.
    decided = sum(r.p < LEVEL and r.model.key not in doubles for r in tested)
    halves = {
        r.name: (resolution(r.pair.summary, r.tests - decided), _room(r))
        for r in tested
        if r.verdict is Verdict.OPEN and not (r.pair.summary.high < 0 or -r.pair.summary.mean > _room(r))
    }
    # Runs that agree to the last sample say nothing about how small a gain they would show.
    halves = {name: (half, room) for name, (half, room) in halves.items() if half >= 0.0005}
    never = [name for name, (half, room) in halves.items() if half > room]
    seen = sorted({f"{half * 100:.1f}" for half, room in halves.values() if half <= room}, key=float)
    if not seen:
        return " In these runs no gain that is possible above the static twin could have been significant." * bool(
            never
        )
    about = f"{seen[0]} points" if len(seen) == 1 else f"{seen[0]} to {seen[-1]} points, depending on the model,"
    told = f" In these runs a mean gain below about {about} would not have been significant"
    return told + (f", nor any that is possible for {listed(never)}." if never else ".")


def _room(row: Compared) -> float:
    """The largest gain there is: from the static twin's score to the perfect one."""
    return 1 - float(np.mean([row.twin.results[u].score for u in row.model.results if u in row.twin.results]))
