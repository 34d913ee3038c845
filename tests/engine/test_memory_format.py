"""Networks that lie channels last stay so, whatever is put in the place of their convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
from battery import STATIC
from prune_networks import chain, masked
from torch import nn

import dynconv_plugins as dc

LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def lie(model: nn.Module, dims: int, memory_format: torch.memory_format) -> bool:
    """Whether all kernels larger than one lie so; there are some."""
    weights = [p for p in model.parameters() if p.dim() == dims + 2 and p[0, 0].numel() > 1 and p.shape[1] > 1]
    assert weights
    return all(p.is_contiguous(memory_format=memory_format) for p in weights)


@pytest.mark.parametrize("name", dc.registry.names())
@DIMS
def test_dynamize_and_fold(name, dims):
    conv = STATIC[dims](8, 8, 3, padding=1)
    x = torch.randn(1, 8, *(5,) * dims)
    assert lie(dc.fold(dc.dynamize(copy.deepcopy(conv), name), [x])[0], dims, torch.contiguous_format)
    op = dc.dynamize(conv.to(memory_format=LAST[dims]), name)
    assert lie(op, dims, LAST[dims])
    assert lie(dc.fold(op, [x])[0], dims, LAST[dims])
    if op.preserves_static:
        torch.testing.assert_close(op.eval()(x), conv(x), rtol=1e-4, atol=1e-5)


@DIMS
def test_prune(dims):
    model = masked(chain(dims).to(memory_format=LAST[dims]), 0.4)
    pruned = dc.prune(model)[0]
    assert pruned[3].in_channels < 12 and lie(pruned, dims, LAST[dims])
