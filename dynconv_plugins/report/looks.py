"""One colour, one marker and one line style for each operator in all reports; told apart without colour as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .. import registry
from .names import label_of
from .records import STATIC

# Middle tones, in the order of the registry: each has a contrast of at least 3 to white and to the dark page, and the
# study's own operators are furthest apart.
COLOURS = (
    *("#8f6a55", "#c24fc9", "#a37008", "#2f7de1", "#d9610f", "#5b6ee1"),
    *("#e0483e", "#0b9a6d", "#a855f7", "#d63384", "#0e93a8", "#64902a"),
)
MARKERS = ("p", "h", "d", "s", "^", "v", "<", "D", "P", "X", "*", ">")
DASHES = ((0, (3, 1.2, 1, 1.2)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5, 1, 1.5)), "-", (0, (5, 1.5)))
GREY = "#7a8290"


@dataclass(frozen=True)
class Look:
    """How a model is drawn."""

    colour: str
    marker: str
    dash: str | tuple

    @property
    def svg(self) -> str:
        """The marker as an SVG path in a square of 10 units, for the page's tables and legends."""
        return SHAPES[self.marker]

    @property
    def size(self) -> float:
        """What a marker's size is multiplied with: matplotlib's stars and crosses cover less than its squares."""
        return {"*": 1.6, "P": 1.2, "X": 1.15, "d": 1.15}.get(self.marker, 1.0)


SHAPES = {
    "o": "M5 1a4 4 0 1 0 .01 0z",
    "s": "M1.5 1.5h7v7h-7z",
    "^": "M5 1 9.3 8.8H.7z",
    "d": "M5 .3 7.9 5 5 9.7 2.1 5z",
    "D": "M5 .5 9.5 5 5 9.5.5 5z",
    "v": "M5 9 .7 1.2h8.6z",
    "P": "M3.5 1h3v2.5H9v3H6.5V9h-3V6.5H1v-3h2.5z",
    "X": "M3 .8 5 2.8l2-2L9.2 3l-2 2 2 2L7 9.2l-2-2-2 2L.8 7l2-2-2-2z",
    "<": "M1 5 8.8.7v8.6z",
    ">": "M9 5 1.2 9.3V.7z",
    "h": "M5 .7 8.8 2.9v4.2L5 9.3 1.2 7.1V2.9z",
    "p": "M5 .7 9.3 4 7.6 9H2.4L.7 4z",
    "*": "M5 .4 6.3 3.7 9.8 3.8 7 6 8 9.5 5 7.5 2 9.5 3 6 .2 3.8 3.7 3.7z",
}


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label: the grey circle for the static twin, its own for each operator of the library, the same in
    every report, and for labels of a plan's own, by order of appearance, what none of these has."""
    known = [label_of(name) for name in registry.names()]
    others = [label for label in dict.fromkeys(labels) if label != STATIC and label not in known]
    return {STATIC: Look(GREY, "o", "-")} | {label: _look(i) for i, label in enumerate([*known, *others])}


def _look(i: int) -> Look:
    """Of the i-th: once all colours are used they come again, with other markers and line styles; sixty differ."""
    lap, j = divmod(i, len(COLOURS))
    return Look(COLOURS[j], MARKERS[(j + 5 * lap) % len(MARKERS)], DASHES[(j + lap) % len(DASHES)])
