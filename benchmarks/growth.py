"""The cells of `benchmarks.models --sweep`: how cost grows with the batch, the kernels and the resolution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from .cell import Cell

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
KERNELS = (1, 2, 4, 8, 16)
RESOLUTIONS = (32, 64, 128, 256, 512)
# What is varied, by the name of the axis it is drawn along.
AXES = {"batch": "images in a batch", "kernels": "kernels K", "resolution": "pixels of an image's side"}


def cells(
    start: Cell, batches: Iterable[int], kernels: Iterable[int], resolutions: Iterable[int]
) -> Iterator[tuple[str, int, Cell]]:
    """One axis after the other: its name, the value on it, and the cell.

    Args:
        start: What all cells share; each axis changes one thing of it. Along the resolution the stem is ImageNet's,
            because one network has to take all sizes.
        batches, kernels, resolutions: The values.
    """
    for batch in batches:
        yield "batch", batch, replace(start, batch=batch)
    for number in kernels:
        yield "kernels", number, replace(start, options={**start.options, "num_kernels": number})
    for size in resolutions:
        yield "resolution", size, replace(start, size=size, stem="imagenet")


def lines(rows: Iterable[dict[str, Any]], axis: str, train: bool, side: str) -> list[tuple[int, dict[str, float]]]:
    """The points of one line: values on the axis and ratios to the static network there."""
    return [
        (row["value"], row["ratio"][side])
        for row in rows
        if row["axis"] == axis and row["train"] == train and side in row.get("ratio", {})
    ]
