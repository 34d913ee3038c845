"""What the tests of the fused kernels share: where they run, and the shapes they mostly use."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import Case

# Imported before the variable below is ever set: nothing but the kernels of these tests is then interpreted.
pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Mixed per sample, and a small map whose samples share rows (tiles.shares_rows).
K4 = Case("2d-K4", (7, 6), (2, 2), kernels=4, batch=2, c_in=17, c_out=18, padding=1, bias=False)
SHARED = replace(K4, name="2d-shared", size=(3, 3), kernels=1, batch=5)


@pytest.fixture(autouse=True)
def interpreted_without_a_gpu(monkeypatch):
    """Imported by name, it holds for every test of a file."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
