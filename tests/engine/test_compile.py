"""The compiler and the exporter with the shapes of kernels that battery.py does not take."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from torch import nn

import dynconv_plugins as dc

KERNELS = pytest.mark.parametrize("kernels", [1, 4])


def make(kernels: int = 4, kernel_size: int = 3):
    torch.manual_seed(0)
    return dc.ODConv2d(8, 6, kernel_size, padding=kernel_size // 2, num_kernels=kernels).double()


def data(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 8, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_compiles_with_dynamic_shapes_from_the_start():
    torch._dynamo.reset()
    op = make().eval()
    compiled = torch.compile(op, backend="eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(data()), op(data()))


@KERNELS
@pytest.mark.parametrize("size", [1, 3])
def test_exports_with_a_dynamic_batch(kernels, size):
    op = make(kernels, size).eval()
    program = torch.export.export(op, (data(batch=2),), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    torch.testing.assert_close(program.module()(data(batch=5)), op(data(batch=5)))


def test_what_looks_into_a_model_looks_into_a_compiled_one():
    model = nn.Sequential(dc.ODConv2d(3, 4, 3)).eval()
    compiled, x = torch.compile(model, backend="eager"), torch.randn(2, 3, 6, 6)
    compiled(x)
    with dc.record_attention(compiled) as record:
        compiled(x)
    assert [len(calls) for calls in record.values()] == [1]
    assert dc.complexity(compiled, (1, 3, 6, 6)) == dc.complexity(model, (1, 3, 6, 6))
    assert torch.equal(dc.fold(compiled, [x])[0](x), dc.fold(model, [x])[0](x))
