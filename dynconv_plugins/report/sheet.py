"""A table as data: rendered as HTML by the template, as Markdown and CSV here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

DASH = "–"
WILSON = "†"  # beside an interval of the test set alone
NUMBERS = ("none", "one", "two", "three", "four", "five")
PREFIXES = {"G": 1e9, "M": 1e6, "k": 1e3}


@dataclass(frozen=True)
class Value:
    """One field of a table.

    Attributes:
        text: What is shown.
        note: A smaller second line, such as an interval or a multiple of the static twin's.
        raw: What CSV gets, in full precision and in the unit of the column; the text where None.
        span: An interval in the same unit, which CSV gets instead of the note.
        tone: ``good``, ``bad``, ``quiet``, ``best`` or nothing.
        mark: Colour and marker of a model, as an index into `looks`; None for none.
    """

    text: str = DASH
    note: str = ""
    raw: Any = None
    span: tuple[float, float] | None = None
    tone: str = ""
    mark: str | None = None


@dataclass(frozen=True)
class Head:
    """A column: its title, its unit, and whether it holds numbers."""

    text: str
    unit: str = ""
    number: bool = True

    @property
    def title(self) -> str:
        return f"{self.text} ({self.unit})" if self.unit else self.text


@dataclass
class Table:
    """A table. The first field of each row names the row.

    Attributes:
        name: Of its file.
        heads: Columns.
        rows: Fields, as many as heads.
        about: What the columns mean, below the table.
        breaks: Rows with which another group begins.
    """

    name: str
    title: str
    heads: Sequence[Head]
    rows: list[list[Value]] = field(default_factory=list)
    about: str = ""
    breaks: set[int] = field(default_factory=set)

    def without_empty(self) -> Table:
        """The same table without columns in which nothing is known."""
        kept = [i for i in range(len(self.heads)) if i == 0 or any(row[i].text not in (DASH, "") for row in self.rows)]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, heads=[self.heads[i] for i in kept], rows=rows)

    def markdown(self) -> str:
        lines = ["| " + " | ".join(_cell(h.title) for h in self.heads) + " |"]
        lines.append("|" + "|".join(" ---: " if h.number else " --- " for h in self.heads) + "|")
        for row in self.rows:
            shown = ((f"**{v.text}**" if v.tone == "best" and v.text else v.text, v.note) for v in row)
            texts = (f"{text} ({note})" if note and text else text or note for text, note in shown)
            lines.append("| " + " | ".join(_cell(t) for t in texts) + " |")
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Full precision; a column's intervals, or else its notes, follow in columns of their own."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.heads)
        made = [c for head, values in zip(self.heads, columns, strict=True) for c in _columns(head, values)]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(zip(*made, strict=True))
        return out.getvalue()


def breaks(names: Iterable[str]) -> set[int]:
    """Where a name differs from the one before it."""
    listed = list(names)
    return {i for i in range(1, len(listed)) if listed[i] != listed[i - 1]}


def listed(names: Sequence[str]) -> str:
    """``"a, b and c"``."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def capital(text: str) -> str:
    """The text as a title: ``Accuracy``, but ``mIoU``."""
    return text if text[1:2].isupper() else text[0].upper() + text[1:]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _columns(head: Head, values: Sequence[Value]) -> Iterator[list[Any]]:
    yield [head.title, *map(_raw, values)]
    if any(v.span for v in values):
        for end, name in enumerate(("low", "high")):
            yield [f"{head.title}: {name}", *("" if v.span is None else v.span[end] for v in values)]
        if any(WILSON in v.note for v in values):
            yield [
                f"{head.title}: interval",
                *("Wilson" if WILSON in v.note else "t" if v.span else "" for v in values),
            ]
    elif any(v.note for v in values):
        yield [f"{head.title}: note", *(v.note.replace("−", "-") for v in values)]


def _raw(value: Value) -> Any:
    if value.raw is None or (isinstance(value.raw, float) and math.isnan(value.raw)):
        return "" if value.text == DASH else value.text
    return value.raw


def percent(fraction: float | None, note: str = "", tone: str = "") -> Value:
    """A score in percent, one digit."""
    if fraction is None or math.isnan(fraction):
        return Value()
    return Value(f"{fraction * 100:.1f}", note, fraction * 100, tone=tone)


def within(value: Value, low: float, high: float, scale: float = 100, signed: bool = False, digits: int = 1) -> Value:
    """A value with its interval, given as fractions, below it."""
    span = None if math.isnan(low) or math.isnan(high) else (low * scale, high * scale)
    return replace(value, note=interval(low, high, scale, signed, digits), span=span)


def decimal(value: float | None, digits: int = 3, note: str = "") -> Value:
    """A plain number."""
    if value is None or math.isnan(value):
        return Value()
    return Value(f"{value:.{digits}f}".replace("-", "−"), note, value)


def figures(value: float | None, scale: float = 1.0, note: str = "") -> Value:
    """Three significant figures of ``value / scale``, without exponents."""
    if value is None or math.isnan(value):
        return Value()
    x = value / scale
    return Value(f"{x:,.{decimals(x)}f}", note, x)


def decimals(x: float) -> int:
    """Decimals that make three significant figures, four at most."""
    return 0 if x == 0 else min(4, max(0, 2 - math.floor(math.log10(abs(x)))))


def prefixed(values: Iterable[float | None], quantity: str) -> tuple[str, float]:
    """The metric prefix in which a column of counts reads best, and its factor.

    Args:
        values: The column.
        quantity: ``G`` or ``M``: preferred while the largest is at least a tenth of it.
    """
    largest = max((v for v in values if v), default=0.0)
    while largest < 0.1 * PREFIXES[quantity] and quantity != "k":
        quantity = {"G": "M", "M": "k"}[quantity]
    return quantity, PREFIXES[quantity]


def times(ratio: float | None) -> str:
    """A multiple of the static twin's: ``1.31×``."""
    return "" if ratio is None else f"{ratio:.2f}×"


def interval(low: float, high: float, scale: float = 100, signed: bool = False, digits: int = 1) -> str:
    """``64.1 to 66.3``; empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    form = f"{'+' if signed else ''},.{digits}f"
    return f"{low * scale:{form}} to {high * scale:{form}}".replace("-", "−")
