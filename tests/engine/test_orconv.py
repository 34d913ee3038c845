"""Oriented convolution: rotations, their definition in float64, equivariance, and what a module must survive."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.rotation import rotate

CLASSES = {1: dc.ORConv1d, 2: dc.ORConv2d, 3: dc.ORConv3d}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
PLANE = (-2, -1)
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
POOLS = pytest.mark.parametrize("pool", ["max", "mean"])


def make(dims: int = 2, c_in: int = 4, c_out: int = 6, kernel_size=3, **options):
    torch.manual_seed(0)
    op = CLASSES[dims](c_in, c_out, kernel_size, **{"padding": 1, **options}).double()
    if op.bias is not None:
        nn.init.normal_(op.bias)
    return op


def data(dims: int = 2, batch: int = 3, channels: int = 4, size: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *(size,) * dims, dtype=torch.float64, generator=generator)


def sampled(weight: torch.Tensor, degrees: float) -> torch.Tensor:
    """The kernel turned by torch's own bilinear sampler, zeros outside."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    planes = weight.reshape(1, -1, *weight.shape[-2:])
    theta = torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]], dtype=weight.dtype)
    grid = F.affine_grid(theta, list(planes.shape), align_corners=True)
    return F.grid_sample(planes, grid, "bilinear", "zeros", align_corners=True).reshape(weight.shape)


def rotations_of(op) -> list[torch.Tensor]:
    """The rotated kernels, by other means than the operator's."""
    w = op.weight
    if op.dims == 1:
        return [w, w.flip(-1)]
    if op.rotations == 8:
        return [sampled(w, 45.0 * r) for r in range(8)]
    return [torch.rot90(w, r * 4 // op.rotations, PLANE) for r in range(op.rotations)]


def definition(op, x: torch.Tensor) -> torch.Tensor:
    """One convolution for each rotation, then the pooling."""
    outputs = [CONV[op.dims](x, w, None, op.stride, op.padding, op.dilation, op.groups) for w in rotations_of(op)]
    y = torch.stack(outputs)
    y = y.max(0).values if op.pool == "max" else y.mean(0)
    return y if op.bias is None else y + op.bias.reshape(-1, *(1,) * op.dims)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_quarter_turns_are_exact(size):
    """To the bit, in the direction of torch.rot90, and in every dtype."""
    w = torch.randn(3, 2, size, size)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        v = w.to(dtype)
        assert torch.equal(rotate(v, 4), torch.stack([torch.rot90(v, r, PLANE) for r in range(4)]))
        assert torch.equal(rotate(v, 2), torch.stack([v, v.flip(PLANE)]))
        assert torch.equal(rotate(v, 8)[::2], rotate(v, 4))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_eighth_turns_are_bilinear(size):
    w = torch.randn(3, 2, size, size, dtype=torch.float64)
    want = torch.stack([sampled(w, 45.0 * r) for r in range(8)])
    torch.testing.assert_close(rotate(w, 8), want, rtol=0, atol=1e-12)


def test_other_planes():
    one, uneven, three = torch.randn(3, 2, 5), torch.randn(3, 2, 3, 5), torch.randn(3, 2, 4, 3, 3)
    assert torch.equal(rotate(one, 2), torch.stack([one, one.flip(-1)]))
    assert torch.equal(rotate(uneven, 2), torch.stack([uneven, uneven.flip(PLANE)]))
    assert torch.equal(rotate(three, 4), torch.stack([torch.rot90(three, r, PLANE) for r in range(4)]))


VARIANTS = [
    {},
    {"stride": 2, "dilation": 2, "padding": 2},
    {"groups": 2, "bias": False},
    {"kernel_size": 4},
    {"kernel_size": 1, "padding": 0},
    {"rotations": 2},
]


@DIMS
@POOLS
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_formula(dims, pool, options):
    op, x = make(dims, pool=pool, **options), data(dims)
    torch.testing.assert_close(op(x), definition(op, x), rtol=0, atol=1e-12)


@POOLS
@pytest.mark.parametrize("options", [{"rotations": 8}, {"rotations": 2, "kernel_size": (3, 5)}], ids=str)
def test_formula_in_the_plane(pool, options):
    op, x = make(pool=pool, **options), data()
    torch.testing.assert_close(op(x), definition(op, x), rtol=0, atol=1e-12)


@POOLS
@pytest.mark.parametrize("options", [{"c_out": 4, "groups": 4}, {"c_out": 8, "groups": 4, "rotations": 8}], ids=str)
def test_formula_depthwise(pool, options):
    op, x = make(pool=pool, **options), data()
    torch.testing.assert_close(op(x), definition(op, x), rtol=0, atol=1e-12)


GEOMETRIES = [
    {},
    {"padding": 0},
    {"padding": "same", "padding_mode": "circular"},
    {"padding_mode": "reflect", "dilation": 2, "padding": 2},
    {"stride": 2},
    {"stride": 3, "padding": 0, "kernel_size": 4},
    {"c_out": 4, "groups": 4},
    {"kernel_size": 5, "padding": 2, "rotations": 8},
]


@POOLS
@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
def test_equivariance(pool, options):
    """The pooled output of an input turned by 90 degrees is the turned output."""
    op, x = make(pool=pool, **options), data()
    for quarters in (1, 2, 3):
        got, want = op(torch.rot90(x, quarters, PLANE)), torch.rot90(op(x), quarters, PLANE)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_equivariance_is_of_the_rotations():
    """A static convolution has none, and two rotations have that by 180 degrees only."""
    x = data()
    half = make(rotations=2)
    torch.testing.assert_close(half(torch.rot90(x, 2, PLANE)), torch.rot90(half(x), 2, PLANE), rtol=0, atol=1e-12)
    static = nn.Conv2d(4, 6, 3, padding=1).double()
    for op in (half, static):
        assert (op(torch.rot90(x, 1, PLANE)) - torch.rot90(op(x), 1, PLANE)).abs().max() > 0.1


def test_equivariance_of_a_reversal_and_in_three_dimensions():
    one, x = make(1), data(1)
    torch.testing.assert_close(one(x.flip(-1)), one(x).flip(-1), rtol=0, atol=1e-12)
    three, x = make(3), data(3, size=5)
    torch.testing.assert_close(three(torch.rot90(x, 1, PLANE)), torch.rot90(three(x), 1, PLANE), rtol=0, atol=1e-12)
    assert (three(x.flip(2)) - three(x).flip(2)).abs().max() > 0.1, "the first axis is not turned"


def test_one_d_is_two_d_with_a_singleton_axis():
    one = make(1)
    for wider in (
        make(2, kernel_size=(1, 3), padding=(0, 1), rotations=2),
        make(3, kernel_size=(1, 1, 3), padding=(0, 0, 1), rotations=2),
    ):
        wider.load_state_dict({k: v.reshape(wider.state_dict()[k].shape) for k, v in one.state_dict().items()})
        x = data(1)
        shape = (*x.shape[:2], *(1,) * (wider.dims - 1), x.shape[2])
        torch.testing.assert_close(wider(x.reshape(shape)).reshape(one(x).shape), one(x))


@POOLS
@pytest.mark.parametrize("rotations", [2, 4, 8])
def test_gradients(pool, rotations):
    op, x = make(c_in=2, c_out=2, kernel_size=3, pool=pool, rotations=rotations), data(1 + 1, 1, 2, 4)

    def function(x, weight, bias):
        return torch.func.functional_call(op, {"weight": weight, "bias": bias}, (x,))

    leaves = [t.detach().requires_grad_() for t in (x, op.weight, op.bias)]
    assert torch.autograd.gradcheck(function, leaves)
    seed = torch.randn(op(x).shape, dtype=torch.float64)
    want = torch.autograd.grad(definition(op, x), [op.weight, op.bias], seed)
    torch.testing.assert_close(torch.autograd.grad(op(x), [op.weight, op.bias], seed), want, rtol=0, atol=1e-11)


def test_parameters_and_cost():
    """Those of the static convolution; R times its multiply-adds, or once for the mean, and those of turning."""
    pytest.importorskip("fvcore", reason="fvcore comes with the study extra")
    static = 49 * 6 * 4 * 9
    for options, kernels in (({}, 4), ({"rotations": 8}, 8), ({"pool": "mean"}, 1)):
        params, macs = dc.complexity(make(**options), (1, 4, 7, 7))
        assert params == 6 * 4 * 9 + 6
        assert macs == kernels * (static + 6 * 4 * 9 * 9)
    assert dc.complexity(make(kernel_size=1, padding=0), (1, 4, 7, 7)).macs == 49 * 6 * 4


def test_kernels_are_as_many_as_differ():
    assert [make(d).kernels.shape[0] for d in (1, 2, 3)] == [2, 4, 4]
    assert make(pool="mean").kernels.shape == make(kernel_size=1).kernels.shape[:3] + (3, 3) == (1, 6, 4, 3, 3)
    assert make().attention(data()) == dc.Attention()


@pytest.mark.parametrize("build", [torch.float32, torch.bfloat16])
def test_matrices_follow_casts_without_their_rounding(build):
    op = dc.ORConv2d(4, 6, 3, rotations=8, dtype=build).half().double()
    exact = dc.ORConv2d(4, 6, 3, rotations=8, dtype=torch.float64)
    assert op.turns.dtype == torch.float64 and torch.equal(op.turns, exact.turns)


@DIMS
def test_meta_device(dims):
    op = make(dims, stride=2).to("meta")
    assert op(data(dims).to("meta")).shape == make(dims, stride=2)(data(dims)).shape
    real = make(dims, stride=2)
    empty = op.to_empty(device="cpu")
    empty.load_state_dict(real.state_dict())
    assert torch.equal(empty(data(dims)), real(data(dims)))


@POOLS
def test_state_dict_copies_and_pickles(pool):
    op = make(pool=pool, rotations=8).eval()
    assert set(op.state_dict()) == {"weight", "bias"}, "a static checkpoint's own keys"
    other = make(pool=pool, rotations=8).eval()
    nn.init.normal_(other.weight)
    state, whole = io.BytesIO(), io.BytesIO()
    torch.save(op.state_dict(), state)
    torch.save(op, whole)
    state.seek(0), whole.seek(0)
    other.load_state_dict(torch.load(state, weights_only=True))
    for twin in (other, copy.deepcopy(op), torch.load(whole, weights_only=False)):
        assert torch.equal(twin(data()), op(data()))


def test_static_weights_are_taken_over_but_not_the_function():
    conv = nn.Conv2d(4, 6, 3, padding=1).double()
    op = make()
    op.load_static(conv)
    assert torch.equal(op.weight, conv.weight) and torch.equal(op.bias, conv.bias)
    assert not op.preserves_static
    y, static = op(data()), conv(data())
    assert (y >= static - 1e-12).all() and (y - static).max() > 0.1


@pytest.mark.parametrize("batch", [1, 2])
def test_trains_on_one_sample_and_one_position(batch):
    op, x = make(padding=0), data(batch=batch, size=3).requires_grad_()
    op(x).square().sum().backward()
    assert op(x).shape == (batch, 6, 1, 1)
    assert all(t.grad.isfinite().all() and t.grad.abs().max() > 0 for t in (x, *op.parameters()))
    torch.testing.assert_close(op(x)[:1], op(x[:1]))
    torch.testing.assert_close(op(x[0]), op(x)[0])


def test_memory_formats():
    op, x = make(), data()
    want = op(x)
    op.to(memory_format=torch.channels_last)
    got = op(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last)


@POOLS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(pool, dtype):
    op, x = make(pool=pool, rotations=8).float(), data().float() * 50
    want = op(x)
    with torch.autocast("cpu", dtype):
        y = op(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), want, rtol=0, atol=2e-2 * want.abs().max().item())
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in op.parameters())


@POOLS
@pytest.mark.parametrize("rotations", [4, 8])
def test_compiles_without_a_break_and_without_recompiling(pool, rotations):
    torch._dynamo.reset()
    op = make(pool=pool, rotations=rotations)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(op, backend=counter, fullgraph=True)
    for batch in (2, 3, 5, 7):
        torch.testing.assert_close(compiled(data(batch=batch)), op(data(batch=batch)))
    assert counter.frame_count <= 2
    (compiled_grad,) = torch.autograd.grad(compiled(data()).square().sum(), op.weight)
    torch.testing.assert_close(compiled_grad, torch.autograd.grad(op(data()).square().sum(), op.weight)[0])


@DIMS
def test_compiles_in_any_dimension(dims):
    torch._dynamo.reset()
    op = make(dims)
    torch.testing.assert_close(torch.compile(op, backend="eager", fullgraph=True)(data(dims)), op(data(dims)))


@POOLS
@DIMS
def test_exports_with_a_dynamic_batch(dims, pool):
    op = make(dims, pool=pool).eval()
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(op, (data(dims, batch=2),), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(data(dims, batch=5)), op(data(dims, batch=5)))


@pytest.mark.parametrize(
    ("dims", "options"), [(1, {}), (2, {}), (2, {"rotations": 8}), (2, {"pool": "mean"}), (3, {})], ids=str
)
def test_onnx_with_a_dynamic_batch(dims, options, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the dev extra")
    pytest.importorskip("onnxscript", reason="onnxscript comes with the dev extra")
    op, file = make(dims, **options).float().eval(), tmp_path / "op.onnx"
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    example = (data(dims, batch=2).float(),)
    torch.onnx.export(op, example, file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    x = data(dims, batch=5).float()
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), op(x), rtol=1e-4, atol=1e-5)


BAD = [
    (2, {"rotations": 3}, "2, 4 or 8, got 3"),
    (2, {"rotations": 1}, "2, 4 or 8, got 1"),
    (1, {"rotations": 4}, "one dimension"),
    (1, {"rotations": 4, "kernel_size": 1}, "one dimension"),
    (2, {"kernel_size": (3, 5)}, "square in its last two axes"),
    (3, {"kernel_size": (3, 3, 1)}, "square in its last two axes"),
    (2, {"pool": "sum"}, "'max' or 'mean', got 'sum'"),
    (2, {"groups": 3}, "groups"),
    (2, {"padding_mode": "mirror"}, "padding_mode"),
]


@pytest.mark.parametrize(("dims", "options", "named"), BAD, ids=str)
def test_bad_arguments(dims, options, named):
    with pytest.raises(ValueError, match=named):
        make(dims, **options)


def test_bad_inputs():
    with pytest.raises(ValueError, match="2, 4 or 8"):
        rotate(torch.zeros(1, 1, 3, 3), 6)
    with pytest.raises(ValueError, match="smaller than the kernel"):
        make(padding=0)(data(size=2))
    with pytest.raises(TypeError, match="num_kernels"):
        make(num_kernels=4)
