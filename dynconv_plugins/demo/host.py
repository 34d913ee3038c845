"""What the demo asks of each host; one module per host answers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.demo import machine
from dynconv_plugins.demo.figures import Album
from dynconv_plugins.demo.page import Section
from dynconv_plugins.demo.records import Cell, Curve, Data, Row
from dynconv_plugins.demo.sizes import Size

PYTHON = sys.executable


class Host(Protocol):
    """One task.

    Attributes:
        task: Short name; also the folder's.
        unit: What a sample is, plural.
        score_name: ``accuracy`` or ``mIoU``.
    """

    task: str
    unit: str
    score_name: str

    def prepare(self, found: Mapping[str, Path], folder: Path, size: Size) -> Data:
        """Makes or links the data under `folder`; `found` is what ``datasets.find`` returned."""

    def cells(self, data: Data, folder: Path, size: Size) -> list[Cell]:
        """The training runs, the static one first."""

    def curve(self, cell: Cell) -> Curve:
        """What the host has written so far. May raise OSError or ValueError while it is writing."""

    def load(self, cell: Cell, data: Data) -> tuple[nn.Module, torch.Tensor]:
        """The trained model in eval mode on the CPU, and one input with a batch of one."""

    def score(self, cell: Cell) -> float:
        """The result on the test set after the last step, as the host reports it; a fraction of one."""

    def section(self, models: Mapping[str, nn.Module], cells: list[Cell], data: Data, album: Album) -> Section:
        """The pictures. `models` holds those that could be loaded, by operator."""


def measure(host: Host, cell: Cell, data: Data, row: Row) -> nn.Module:
    """Fills in what the host's files say and what is measured here; returns the trained model."""
    row.curve, row.curve_unit = host.curve(cell), cell.unit
    row.score, row.score_name = host.score(cell), host.score_name
    model, x = host.load(cell, data)
    counted = dc.complexity(model, tuple(x.shape))
    row.params, row.macs, row.input_size = counted.params, counted.macs, list(x.shape)
    row.latency_ms = machine.latency_ms(model, x)
    row.status = "done"
    return model


def only(folder: Path, pattern: str) -> Path:
    """The newest file of that pattern.

    Raises:
        FileNotFoundError: If there is none.
    """
    found = sorted(folder.glob(pattern), key=lambda p: p.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"no {pattern} in {folder}")
    return found[-1]
