"""Score against cost, one point a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .axes import MARGINS, SIZE, decades, legend
from .compare import Compared, cost_of
from .looks import GREY, Look
from .records import STATIC, Task
from .sheet import capital, prefixed
from .studio import DRAWN, PAPER, Picture, Studio, plt

COSTS = (("macs", "MAdds"), ("latency1", "latency at batch 1"))
OVER_RUNS, OF_TEST_SET = "-", (0, (2, 1.5))

Point = tuple[Compared, float]


def against_cost(task: Task, rows: Sequence[Compared], looks: Mapping[str, Look], studio: Studio) -> list[Picture]:
    """Score with its interval against MAdds and against latency."""
    made = []
    for what, title in COSTS:
        shown = _known(rows, what)
        if not shown:
            continue
        unit, scale = prefixed((c for _, c in shown), "G") if what == "macs" else ("ms", 1.0)
        points = [(row, cost / scale) for row, cost in shown]
        named = len({row.model.network for row, _ in points}) > 1
        with plt.rc_context(DRAWN):
            figure, axes = plt.subplots(figsize=SIZE, gridspec_kw=MARGINS)
            if named:
                _networks(axes, points)
            for row, cost in points:
                _point(axes, row, cost, looks[row.model.label])
            decades(axes, [c for _, c in points], named)
            axes.set_xlabel(f"{title} ({unit}), logarithmic")
            axes.set_title(f"{capital(task.score_name)}, %, against {title}")
            legend(axes)
        alt = f"{task.name}: {task.score_name} of each model against its {title}"
        made.append(studio.draw(f"{task.name}-cost-{what}", figure, alt))
    return made


def caption(task: Task, rows: Sequence[Compared]) -> str:
    """What bars and lines of these drawings are; empty where there are none."""
    shown = [row for what, _ in COSTS for row, _ in _known(rows, what)]
    barred = [row for row in shown if not math.isnan(row.bounds[0])]
    kinds = {row.binomial is not None for row in barred}
    over = f"over {'folds' if task.folded else 'seeds'} (Student's t)"
    alone = f"of the {task.scored} set alone (Wilson's), where there is one run or all runs agree"
    told = {
        frozenset({False}): f"Bars are 95% intervals {over}. ",
        frozenset({True}): f"Dashed bars are 95% intervals {alone}. ",
        frozenset({False, True}): f"Bars are 95% intervals: solid {over}, dashed {alone}. Do not compare the two. ",
    }.get(frozenset(kinds), "")
    if len({row.model.network for row in shown}) > 1:
        told += "Thin lines lead from each network's static twin, which is named, to its other models."
    return told.strip()


def _known(rows: Sequence[Compared], what: str) -> list[Point]:
    """Models with a score and this cost; none where they are too few or their times were measured apart."""
    shown = [(r, cost) for r in rows if r.scores.n and (cost := cost_of(r.model.costs, what))]
    apart = len({r.model.costs.measured for r, _ in shown}) > 1
    return [] if len(shown) < 2 or (apart and what != "macs") else shown


def _networks(axes: plt.Axes, points: Sequence[Point]) -> None:
    """Names each network at its static point and leads lines to its others: markers alone tell operators apart."""
    for number, network in enumerate(dict.fromkeys(row.model.network for row, _ in points)):
        own = [(row, cost) for row, cost in points if row.model.network == network]
        hub, at = next(((r, c) for r, c in own if r.model.operator == STATIC), own[0])
        for row, cost in own:
            if row is hub:
                continue
            ends = [at, cost], [hub.scores.mean * 100, row.scores.mean * 100]
            axes.plot(*ends, color=GREY, lw=0.6, alpha=0.6, zorder=1)
        # One below the other, since twins of several networks may lie close together.
        place = {"textcoords": "offset points", "xytext": (-14, -13 * number), "ha": "right", "va": "center"}
        thin = {"arrowstyle": "-", "color": GREY, "lw": 0.6, "shrinkA": 1}
        clear = {"boxstyle": "square,pad=0.1", "facecolor": PAPER, "lw": 0}
        axes.annotate(network, (at, hub.scores.mean * 100), **place, fontsize=8, arrowprops=thin, bbox=clear)


def _point(axes: plt.Axes, row: Compared, cost: float, look: Look) -> None:
    low, high = row.bounds
    if not math.isnan(low):
        dash = OVER_RUNS if row.binomial is None else OF_TEST_SET
        bar = {"color": look.colour, "lw": 1.2, "ls": dash, "alpha": 0.7, "zorder": 2}
        axes.plot([cost] * 2, [low * 100, high * 100], **bar)
    label = row.model.label if row.model.label not in axes.get_legend_handles_labels()[1] else None
    style = {"ms": 7 * look.size, "mec": PAPER, "mew": 0.7, "ls": "", "zorder": 3}
    axes.plot(cost, row.scores.mean * 100, look.marker, color=look.colour, label=label, **style)
