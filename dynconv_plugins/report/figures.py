"""The drawings of one task over its runs: learning curves, and Figure 9 (every fold)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from . import published
from .axes import MARGINS, SIZE, legend, upright
from .compare import overlap
from .looks import GREY, Look
from .losses import smoothed
from .records import Curve, Model, Task
from .sheet import capital
from .statistics import FEWEST, summarise
from .studio import DRAWN, PAPER, Picture, Studio, plt

LOGARITHMIC = ", logarithmic"


def curves(task: Task, looks: Mapping[str, Look], studio: Studio) -> list[Picture]:
    """Losses and validation scores over training: mean over runs, the band its interval, as the tables have it."""
    made, part = [], "validation" if task.held_out else task.scored
    smooth = {training: ", with label smoothing" if smoothed(task, training) else "" for training in (True, False)}
    for network in task.networks:
        models = [m for m in task.ordered() if m.network == network]
        for what, title in (
            ("train_loss", f"training loss{smooth[True]}"),
            ("valid_loss", f"{part} loss{smooth[False]}"),
            ("valid_score", f"{part} {task.score_name}, %"),
        ):
            with plt.rc_context(DRAWN):
                figure, axes = plt.subplots(figsize=SIZE, gridspec_kw=MARGINS)
                unit = [_curve(axes, m, what, looks[m.label], overlap(task)) for m in models]
                unit = next((u for u in unit if u), "")
                if not unit:
                    plt.close(figure)
                    continue
                if what != "valid_score" and upright(axes):
                    title += LOGARITHMIC
                axes.set_title(f"{network}: {title}" if len(task.networks) > 1 else capital(title))
                axes.set_xlabel(unit)
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
                legend(axes)
            alt = f"{task.name}, {network}: {title} over {unit}s, one line a model"
            made.append(studio.draw(f"{task.name}-{network}-{what}".replace("_", "-"), figure, alt))
    return made


def _curve(axes: plt.Axes, model: Model, what: str, look: Look, rho: float) -> str:
    """Draws one model's mean and band; returns what a step is, or nothing where there is no curve."""
    found = [m.curve for m in model.results.values() if m.curve is not None]
    found = [c for c in found if np.isfinite(getattr(c, what)).sum() > 1]
    if not found:
        return ""
    steps, table = aligned(found, what)
    scale = 100 if what == "valid_score" else 1
    mean = np.nanmean(table, 0) * scale
    # Of two runs that are left at a step the interval is about anything.
    known = [column[np.isfinite(column)] for column in table.T]
    spans = [summarise(column if len(column) >= FEWEST else [], rho) for column in known]
    low, high = (np.array([getattr(s, end) for s in spans]) * scale for end in ("low", "high"))
    if np.isfinite(low).any():
        low, high = (np.clip(end, 0, 100 if what == "valid_score" else None) for end in (low, high))
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.15, lw=0)
    every = max(1, math.ceil(len(steps) / 8))
    style = {"marker": look.marker, "ms": 4.5 * look.size, "markevery": every, "mec": PAPER, "mew": 0.5, "lw": 1.7}
    # Where some runs had stopped, the mean is of those that are left, and no longer comparable with what it was.
    whole = int(np.isfinite(table).all(0).nonzero()[0].max(initial=-1)) + 1
    axes.plot(steps[:whole], mean[:whole], ls=look.dash, color=look.colour, label=model.label, **style)
    if whole < len(steps):
        rest = slice(max(0, whole - 1), None)
        axes.plot(steps[rest], mean[rest], ls=look.dash, color=look.colour, lw=1.2, alpha=0.35)
    return found[0].unit


def aligned(curves: Sequence[Curve], what: str) -> tuple[np.ndarray, np.ndarray]:
    """Curves of several runs on the steps at which any of them has a value: steps ``[S]``, values ``[runs, S]``.

    A run that stopped early counts no further than it went.
    """
    by_step = [{float(s): v for s, v in zip(c.steps, getattr(c, what), strict=True) if np.isfinite(v)} for c in curves]
    steps = sorted({s for run in by_step for s in run})
    return np.array(steps), np.array([[run.get(s, math.nan) for s in steps] for run in by_step])


def folds(task: Task, looks: Mapping[str, Look], studio: Studio) -> list[Picture]:
    """Figure 9: loss and score of every fold (or seed), and the paper's own where it has some."""
    if max((len(m.results) for m in task.models.values()), default=0) < 2:
        return []
    what, made = "fold" if task.folded else "seed", []
    for network in task.networks:
        models = [m for m in task.ordered() if m.network == network]
        for quantity in ("loss", "score"):
            series = {}
            for m in models:
                values = {u: getattr(r, quantity) for u, r in m.results.items() if getattr(r, quantity) is not None}
                if values:
                    places = [task.units.index(u) for u in values]
                    series[m.label] = (places, list(values.values()))
            if series:
                name = task.score_name if quantity == "score" else f"{task.scored} loss"
                title = f"{network}: {name} by {what}" if len(task.networks) > 1 else f"{capital(name)} by {what}"
                figure = _by_unit(series, looks, task.units, quantity, title, what)
                alt = f"{task.name}, {network}: {name} of every {what}, and the mean of several as a line"
                made.append(studio.draw(f"{task.name}-{network}-{what}s-{quantity}", figure, alt))
    if task.folded and published.entry_of(task):
        made += _paper_folds(task, studio)
    return made


def _paper_folds(task: Task, studio: Studio) -> list[Picture]:
    own = published.folds()
    theirs = {"CNN": Look(GREY, "o", "-"), "D-CNN": Look("#2f7de1", "s", "-")}
    made = []
    for key, quantity, name in (("loss", "loss", "loss"), ("accuracy", "score", "accuracy")):
        units = [f"fold{i}" for i in range(len(own["CNN"][key]))]
        series = {n: (list(range(len(units))), own[n][key]) for n in own}
        figure = _by_unit(series, theirs, units, quantity, f"The paper's own: {name} by fold", "fold")
        alt = f"The paper's Figure 9 from its Table 4a: {name} of ten folds of CNN and D-CNN"
        made.append(studio.draw(f"{task.name}-paper-folds-{quantity}", figure, alt))
    return made


def _by_unit(series, looks: Mapping[str, Look], units: Sequence[str], quantity: str, title: str, what: str):
    scale = 100 if quantity == "score" else 1
    with plt.rc_context(DRAWN):
        figure, axes = plt.subplots(figsize=SIZE, gridspec_kw=MARGINS)
        for label, (places, values) in series.items():
            look, values = looks[label], np.array(values) * scale
            axes.plot(places, values, color=look.colour, lw=0.7, alpha=0.55)
            style = {"ms": 5.5 * look.size, "mec": PAPER, "mew": 0.5}
            axes.plot(places, values, look.marker, color=look.colour, label=label, **style)
            if len(values) > 1:
                axes.axhline(values.mean(), color=look.colour, lw=1.3, ls=look.dash)
        axes.set_xticks(range(len(units)), [u.lstrip("foldse") for u in units])
        axes.set_xlabel(what)
        flat = quantity == "loss" and upright(axes)
        axes.set_title(title + (", %" if quantity == "score" else LOGARITHMIC if flat else ""))
        axes.grid(axis="x", visible=False)
        legend(axes)
    return figure
