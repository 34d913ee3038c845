"""ODConv through the compiler and the exporters: no break, no recompilation per batch, a dynamic batch everywhere."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._dynamo.testing

import dynconv_plugins as dc

KERNELS = pytest.mark.parametrize("kernels", [1, 4])


def make(kernels: int = 4, kernel_size: int = 3):
    torch.manual_seed(0)
    return dc.ODConv2d(8, 6, kernel_size, padding=kernel_size // 2, num_kernels=kernels).double()


def data(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 8, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@KERNELS
def test_compiles_without_a_break_and_without_recompiling(kernels):
    """Two batch sizes after the first: at most the one dynamic recompilation."""
    torch._dynamo.reset()
    op = make(kernels).eval()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(op, backend=counter, fullgraph=True)
    for batch in (2, 3, 5, 7):
        torch.testing.assert_close(compiled(data(batch=batch)), op(data(batch=batch)))
    assert counter.frame_count <= 2


def test_compiles_with_dynamic_shapes_from_the_start():
    torch._dynamo.reset()
    op = make().eval()
    compiled = torch.compile(op, backend="eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(data()), op(data()))


@KERNELS
def test_compiled_gradients(kernels):
    torch._dynamo.reset()
    op = make(kernels)
    compiled = torch.compile(copy.deepcopy(op), backend="aot_eager", fullgraph=True)
    for model in (op, compiled):
        model(data()).square().sum().backward()
    for name, want in op.named_parameters():
        got = dict(compiled.named_parameters())[f"_orig_mod.{name}"].grad
        torch.testing.assert_close(got, want.grad, msg=name)


@KERNELS
@pytest.mark.parametrize("size", [1, 3])
def test_exports_with_a_dynamic_batch(kernels, size):
    op = make(kernels, size).eval()
    program = torch.export.export(op, (data(batch=2),), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    torch.testing.assert_close(program.module()(data(batch=5)), op(data(batch=5)))


@KERNELS
def test_onnx_with_a_dynamic_batch(kernels, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the dev extra")
    pytest.importorskip("onnxscript", reason="onnxscript comes with the dev extra")
    op = make(kernels).float().eval()
    file = tmp_path / "op.onnx"
    torch.onnx.export(
        op,
        (data(batch=2).float(),),
        file,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=2)},),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    x = data(batch=5).float()
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), op(x), rtol=1e-4, atol=1e-5)
