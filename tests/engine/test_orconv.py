"""What is ORConv's own: its rotations, equivariance; what every operator must do is in battery.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_rotation import PLANE, sampled
from torch import nn

import dynconv_plugins as dc

CLASSES = {1: dc.ORConv1d, 2: dc.ORConv2d, 3: dc.ORConv3d}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
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


VARIANTS = [
    {},
    {"stride": 2, "dilation": 2, "padding": 2},
    {"groups": 2, "bias": False},
    {"kernel_size": 4},
    {"kernel_size": 1, "padding": 0},
    {"rotations": 2},
]
IN_THE_PLANE = [
    {"rotations": 8},
    {"rotations": 2, "kernel_size": (3, 5)},
    {"c_out": 4, "groups": 4},
    {"c_out": 8, "groups": 4, "rotations": 8},
]
FORMULA = [(dims, options) for dims in (1, 2, 3) for options in VARIANTS] + [(2, options) for options in IN_THE_PLANE]


@POOLS
@pytest.mark.parametrize(("dims", "options"), FORMULA, ids=str)
def test_formula(dims, pool, options):
    op, x = make(dims, pool=pool, **options), data(dims)
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


@pytest.mark.parametrize("dims", [2, 3])
def test_one_d_is_wider_with_singleton_axes(dims):
    one, x, ones, zeros = make(1), data(1), (1,) * (dims - 1), (0,) * (dims - 1)
    wider = make(dims, kernel_size=(*ones, 3), padding=(*zeros, 1), rotations=2)
    wider.load_state_dict({"weight": one.weight.reshape(wider.weight.shape), "bias": one.bias})
    y = wider(x.reshape(*x.shape[:2], *ones, -1))
    torch.testing.assert_close(y.reshape(one(x).shape), one(x))


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


def test_an_empty_model_on_the_meta_device_becomes_real():
    real, empty = make(rotations=8), make(rotations=8).to("meta")
    empty.to_empty(device="cpu").load_state_dict(real.state_dict())
    assert torch.equal(empty(data()), real(data()))


def test_state_dict_is_a_static_convolutions():
    assert set(make().state_dict()) == {"weight", "bias"}


def test_static_weights_are_taken_over_but_not_the_function():
    conv = nn.Conv2d(4, 6, 3, padding=1).double()
    op = make()
    op.load_static(conv)
    assert torch.equal(op.weight, conv.weight) and torch.equal(op.bias, conv.bias)
    assert not op.preserves_static
    y, static = op(data()), conv(data())
    assert (y >= static - 1e-12).all() and (y - static).max() > 0.1


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


FORMS = pytest.mark.parametrize(
    ("dims", "options"), [(1, {}), (2, {"rotations": 8}), (2, {"pool": "mean"}), (3, {})], ids=str
)


@FORMS
def test_compiles_without_a_break(dims, options):
    torch._dynamo.reset()
    op, x = make(dims, **options), data(dims)
    compiled = torch.compile(op, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), op(x))
    seed = torch.randn(op(x).shape, dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad(f(x), [op.weight, op.bias], seed) for f in (compiled, op)))


@FORMS
def test_exports_with_a_dynamic_batch(dims, options):
    op = make(dims, **options).eval()
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(op, (data(dims, batch=2),), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(data(dims, batch=5)), op(data(dims, batch=5)))


@FORMS
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
]


@pytest.mark.parametrize(("dims", "options", "named"), BAD, ids=str)
def test_bad_arguments(dims, options, named):
    with pytest.raises(ValueError, match=named):
        make(dims, **options)


def test_one_stored_kernel():
    with pytest.raises(TypeError, match="num_kernels"):
        make(num_kernels=4)
