"""What the losses of the learning curves are, which need not be those of the tables."""

from __future__ import annotations

from ..errors import UserError
from ..study import hosts
from .records import Task


def smoothed(task: Task) -> bool:
    """Whether the curves are of the loss with label smoothing; the tables' is the plain cross-entropy.

    tsai's trainer follows what it minimises; timm's smooths no labels on the way, and mmseg's has no such loss.
    """
    if task.fact("host") != "tsai":
        return False
    options = task.fact("options", None) or {}
    if "label_smoothing" in options:
        return bool(options["label_smoothing"])
    try:
        return bool(hosts.get("tsai").recipe(task.fact("recipe"))["label_smoothing"])
    except (ImportError, UserError):
        return False  # a recipe that is not known here any more, or a machine that only draws reports


def remark(task: Task) -> str:
    """That in a sentence; empty where all losses are the same."""
    if not smoothed(task):
        return ""
    return f"The losses of the learning curves are with label smoothing; the {task.scored} loss of the tables is not. "
