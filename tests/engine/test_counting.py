"""What `complexity` counts for one dynamic convolution, against the rule worked out by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from problems import Case, geometry, inputs
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.inspection.costs import macs

pytest.importorskip("fvcore", reason="fvcore comes with the study extra")

POSITIONS, N, K, C_IN, C_OUT = 6 * 5, 4 * 6 * 9, 4, 6, 4
ONE = POSITIONS * N
GAP = POSITIONS * C_IN
NONE = frozenset()
COUNTS = [
    (Case("static", (6, 5), (3, 3), padding=1, factors=NONE), ONE),
    (Case("aggregated", (6, 5), (3, 3), K, padding=1), ONE + 2 * K * N + N + GAP),
    (Case("max", (6, 5), (3, 3), K, padding=1, factors=NONE, combine="max"), K * ONE),
    (Case("max-K1", (6, 5), (3, 3), 1, padding=1, combine="max"), ONE + 2 * N + GAP),
    (
        Case("max-all", (6, 5), (3, 3), K, padding=1, combine="max"),
        K * ONE + K * N + (K + 1) * POSITIONS * C_OUT + GAP,
    ),
    (
        Case("per-position", (6, 5), (3, 3), K, padding=1, factors=frozenset({"kernel"}), per_position=True),
        K * ONE + K * POSITIONS * C_OUT + GAP,
    ),
]


class Call(nn.Module):
    """Nothing but the engine's call."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        _, weight, attention, bias = inputs(case, torch.float32)
        self.weight, self.bias = weight.detach(), bias.detach()
        self.attention = dc.Attention(*(None if t is None else t.detach() for t in attention))
        self.geometry = geometry(case)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dc.dynamic_conv(x, self.weight, self.attention, bias=self.bias, **self.geometry)


@pytest.mark.parametrize(("case", "count"), COUNTS, ids=str)
def test_multiply_adds(case, count):
    assert dc.complexity(Call(case), (case.batch, C_IN, 6, 5)).macs == case.batch * count


@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_static_convolutions_with_named_padding(padding):
    conv = nn.Conv2d(C_IN, C_OUT, 3, padding=padding)
    positions = conv(torch.zeros(1, C_IN, 6, 5))[0, 0].numel()
    assert dc.complexity(conv, (2, C_IN, 6, 5)).macs == 2 * N * positions


@pytest.mark.parametrize("look", [dc.complexity, dc.explain_backends, macs])
def test_other_threads_compute_meanwhile(look):
    """What is looked at counts, or is watched, in the thread that looks."""
    looked_at, served, x = dc.ODConv2d(6, 4, 3).eval(), dc.ODConv2d(6, 4, 3).eval(), torch.randn(2, 6, 5, 5)
    alone, want, outputs = look(looked_at, (1, 6, 5, 5)), served(x), []
    with ThreadPoolExecutor(1) as other:
        looked_at.register_forward_pre_hook(lambda *_: outputs.append(other.submit(served, x).result()))
        assert look(looked_at, (1, 6, 5, 5)) == alone
    assert outputs and all(torch.equal(y, want) for y in outputs)
