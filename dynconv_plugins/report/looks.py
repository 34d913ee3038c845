"""One colour and one marker for each operator in the whole report; told apart without colour as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .records import STATIC

# Middle tones: each has a contrast of at least 3 to white and to the dark page.
COLOURS = ("#2f7de1", "#d9610f", "#0b9a6d", "#a855f7", "#d63384", "#0e93a8", "#a37008", "#e0483e", "#5b6ee1", "#64902a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (3, 1.2, 1, 1.2)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
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


SHAPES = {
    "o": "M5 1a4 4 0 1 0 .01 0z",
    "s": "M1.5 1.5h7v7h-7z",
    "^": "M5 1 9.3 8.8H.7z",
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
    """A look for each label, by order of appearance; the static twin is always the grey circle."""
    others = [label for label in dict.fromkeys(labels) if label != STATIC]
    made = {STATIC: Look(GREY, "o", "-")}
    for i, label in enumerate(others):
        # After ten operators colours come again, with other markers.
        made[label] = Look(
            COLOURS[i % len(COLOURS)], MARKERS[1 + i % (len(MARKERS) - 1)], DASHES[(i + 1) % len(DASHES)]
        )
    return made
