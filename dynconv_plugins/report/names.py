"""What operators and runs are called for people."""

from __future__ import annotations

NAMES = {
    "condconv": "CondConv",
    "dyconv": "DyConv",
    "dcd": "DCD",
    "odconv": "ODConv",
    "odconv4x": "ODConv 4x",
    "a2d2c": "A2D2C",
    "a2d2cplus": "A2D2C+",
    "globalsoft": "global soft",
    "localsoft": "local soft",
    "hard": "hard",
    "orconv": "ORConv",
    "fdconv": "FDConv",
}


def order(unit: str) -> tuple[str, int]:
    """Sorts ``seed2`` before ``seed10``."""
    letters = unit.rstrip("0123456789")
    return letters, int(unit[len(letters) :] or -1)


def spelled(unit: str) -> str:
    """A unit's name for people: ``seed 2``."""
    letters, number = order(unit)
    return f"{letters} {number}" if number >= 0 else letters


def label_of(operator: str, label: str = "") -> str:
    """The name for people: a label of the plan's own, else the operator's name as its paper writes it."""
    return NAMES.get(operator, operator) if label in ("", operator) else label
