"""What a network scores that has learned nothing, and which networks are no better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .compare import Compared
from .readings import predictions
from .sheet import listed

# Of the way to a perfect score, in units of the constant's: 4% is beaten from 5.9% on, 64% from 76%.
HARDLY = 0.5


def constant_score(rows: Sequence[Compared]) -> float | None:
    """What always naming the most frequent class of the test set would score, as the first model's runs tell it."""
    for row in rows:
        if (told := row.mean_of("constant")) is not None:
            return told
        truths = [p[0] for r in row.model.results.values() if (p := predictions(r.predictions)) and len(p[0])]
        if truths:
            return float(np.mean([np.unique(t, return_counts=True)[1].max() / len(t) for t in truths]))
    return None


def constant_pixels(rows: Sequence[Compared]) -> float | None:
    """The share of the pixels that naming the most frequent class everywhere gets right; None where it is not known.

    Earlier versions did not record it. Its mIoU is that share over the number of classes in the test images, since the
    IoU of all others is 0. These classes are those that have an IoU in every run: what is not there has one only where
    a network predicts it.
    """
    for row in rows:
        if (told := row.mean_of("constant_pixels")) is not None:
            return told
    runs = [r for row in rows for r in row.model.results.values() if r.per_class and r.pixel_accuracy is not None]
    constant = constant_score(rows)
    if not runs or constant is None:
        return None
    there = set.intersection(*({name for name, iou in r.per_class.items() if iou == iou} for r in runs))
    share = constant * len(there)
    return share if 0 < share <= 1 else None


def floor(rows: Sequence[Compared]) -> str:
    """That networks have learned next to nothing: all of them, or some beside others that have learned."""
    return " ".join(filter(None, (_scores(rows), _pixels(rows))))


def _scores(rows: Sequence[Compared]) -> str:
    scored, constant = [r for r in rows if r.scores.n], constant_score(rows)
    low = [r for r in scored if constant is not None and r.scores.mean < constant * (1 + HARDLY * (1 - constant))]
    if not low:
        return ""
    least = f"always naming the most frequent class scores {constant:.1%}"
    if len(low) == len(scored):
        least += f", the best network {max(r.scores.mean for r in scored):.1%}"
        return f"The networks have hardly learned the task ({least}): their differences say nothing about operators."
    names = listed([f"{r.name} ({r.scores.mean:.1%})" for r in low])
    who, whose = ("One network has", "Its score says") if len(low) == 1 else ("Some networks have", "Their scores say")
    return f"{who} hardly learned the task ({least}): {names}. {whose} nothing about operators."


def _pixels(rows: Sequence[Compared]) -> str:
    share = constant_pixels(rows)
    known = [(r.name, r.mean_of("pixel_accuracy")) for r in rows]
    low = [
        f"{name} ({right:.1%})" for name, right in known if share is not None and right is not None and right < share
    ]
    if not low:
        return ""
    return (
        f"The most frequent class everywhere gets {share:.1%} of the pixels right; {listed(low)} "
        f"{'gets' if len(low) == 1 else 'get'} fewer."
    )
