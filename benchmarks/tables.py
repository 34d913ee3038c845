"""The rows of `benchmarks.models` for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from .networks import FCN


def rate(row: dict[str, Any], side: str) -> str:
    """Images or series per second, and the memory layout they were reached in."""
    if side not in row["per_second"]:
        return "-"
    value = row["per_second"][side]
    return f"{value:.{0 if value >= 100 else 1}f} {row['layout'][side]}"


def ratio(row: dict[str, Any], side: str) -> str:
    """Time over the static network's in the same round: median and quartiles of this ratio."""
    if side not in row["ratio"]:
        return "-"
    r = row["ratio"][side]
    digits = 2 if r["median"] < 10 else 1
    return f"{r['median']:.{digits}f} ({r['low']:.{digits}f}-{r['high']:.{digits}f})"


def memory(row: dict[str, Any], side: str) -> str:
    """Peak of a call in MiB, as ratio to the static network's, and the same with the models' own tensors counted in."""
    if side not in row["peak"]:
        return "-"
    peak, base = row["peak"][side], row["peak"]["static"]
    whole = (peak + row["stored"][side]) / (base + row["stored"]["static"])
    return f"{peak / 2**20:.0f} {peak / base:.2f} ({whole:.2f})"


def table(rows: Iterable[dict[str, Any]], sweep: bool = False) -> Table:
    """One row a cell; why figures are missing is in `missing`."""
    out = Table(title="time over the static network's, round by round: medians (quartiles), each in its faster layout")
    left = ("network", "size", "operator", "pass")
    columns = ("network", "size", "operator", "pass", "static /s", "engine /s", "engine", "grouped", "timm")
    for column in (*columns, "MiB: static", "engine", "grouped"):
        out.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    previous = None
    for row in rows:
        group = row["axis"] if sweep else (row["network"], row["size"])
        if previous not in (None, group):
            out.add_section()
        previous = group
        name = (row["network"], _size(row), row["operator"], "train" if row["train"] else "inference")
        if "failed" in row:
            out.add_row(*name, "failed")
            continue
        out.add_row(
            *name,
            rate(row, "static"),
            rate(row, "engine"),
            *(ratio(row, side) for side in ("engine", "grouped", "timm")),
            f"{row['peak']['static'] / 2**20:.0f}",
            memory(row, "engine"),
            memory(row, "grouped"),
        )
    return out


def missing(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Lines that say why a cell failed, or has no figures of one side."""
    lines = []
    for row in rows:
        cell = f"{row['network']} {row['operator']}, {_size(row)}, {'train' if row['train'] else 'inference'}"
        if "failed" in row:
            lines.append(f"{cell}: {row['failed']}")
        lines += [f"{cell}, {side}: {why}" for side, why in row.get("refused", {}).items()]
    return lines


def _size(row: dict[str, Any]) -> str:
    unit = "steps" if row["network"] == FCN else "px"
    changed = row.get("axis", "resolution") != "resolution"
    return f"{row['size']} {unit}" + (f", {row['axis']} {row['value']}" if changed else "")


NOTE = (
    "MiB: the peak of one call above the model's own tensors; beside it the ratio to static's, and in brackets the "
    "ratio with parameters and buffers counted in."
)
