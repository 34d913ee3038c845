"""What the losses of the learning curves are, which need not be those of the tables."""

from __future__ import annotations

from ..errors import UserError
from ..study import hosts
from .records import Task

# What timm and tsai call it; mmseg has no such loss.
_NAMES = {"timm": "smoothing", "tsai": "label_smoothing"}


def smoothed(task: Task, training: bool = False) -> bool:
    """Whether a curve is of the loss with label smoothing; the tables' is the plain cross-entropy.

    tsai's trainer follows what it minimises, timm's in `training` alone.
    """
    host = task.fact("host")
    if host not in _NAMES or (host == "timm" and not training):
        return False
    options = task.fact("options", None) or {}
    if _NAMES[host] in options:
        return bool(options[_NAMES[host]])
    try:
        return bool(hosts.get(host).recipe(task.fact("recipe")).get(_NAMES[host]))
    except (ImportError, UserError):
        return False  # a recipe that is not known here any more, or a machine that only draws reports


def remark(task: Task) -> str:
    """That in a sentence; empty where all losses are the same."""
    if smoothed(task):
        return f"The learning curves' losses are with label smoothing; the {task.scored} loss of the tables is not. "
    if smoothed(task, training=True):
        return "The training loss of the learning curves is with label smoothing; no other loss is. "
    return ""
