"""ODConv as a module: drop-in for nn.ConvNd, its equation, and everything a module must survive."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dynconv_plugins as dc

CLASSES = {1: dc.ODConv1d, 2: dc.ODConv2d, 3: dc.ODConv3d}
STATIC = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
KERNELS = pytest.mark.parametrize("kernels", [1, 4])


def make(dims: int = 2, kernels: int = 4, **options):
    torch.manual_seed(0)
    options = {"kernel_size": 3, "padding": 1, "num_kernels": kernels, **options}
    return CLASSES[dims](8, 6, **options).double()


def data(dims: int = 2, batch: int = 3, channels: int = 8, size: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *(size,) * dims, dtype=torch.float64, generator=generator)


def definition(op, x: torch.Tensor) -> torch.Tensor:
    """ODConv's formula from its parameters, sample by sample, without the engine or the attention module."""
    head = op.attention
    z = x.flatten(2).mean(2) @ head.squeeze.weight.t()
    norm = head.norm
    mean, var = (z.mean(0), z.var(0, unbiased=False)) if norm.training else (norm.running_mean, norm.running_var)
    z = F.relu((z - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias)
    logits = (z @ head.heads.weight.t() + head.heads.bias) / head.temperature
    depthwise = op.groups == op.in_channels == op.out_channels
    taps = math.prod(op.kernel_size)
    gates = [op.in_channels, 0 if depthwise else op.out_channels, taps if taps > 1 else 0]
    sizes = [*gates, op.num_kernels if op.num_kernels > 1 else 0]
    c, f, s, a = logits.split(sizes, 1)
    conv = (F.conv1d, F.conv2d, F.conv3d)[op.dims - 1]
    outputs = []
    for b in range(len(x)):
        weight = op.kernels
        if len(s[b]):
            weight = weight * s[b].sigmoid().reshape(op.kernel_size)
        mix = a[b].softmax(0) if len(a[b]) else x.new_ones(1)
        weight = sum(m * w for m, w in zip(mix, weight, strict=True))
        scaled = x[b : b + 1] * c[b].sigmoid().reshape(1, -1, *(1,) * op.dims)
        y = conv(scaled, weight, None, op.stride, op.padding, op.dilation, op.groups)
        if len(f[b]):
            y = y * f[b].sigmoid().reshape(1, -1, *(1,) * op.dims)
        outputs.append(y if op.bias is None else y + op.bias.reshape(-1, *(1,) * op.dims))
    return torch.cat(outputs)


VARIANTS = [
    {},
    {"stride": 2, "dilation": 2},
    {"groups": 2},
    {"kernel_size": 1, "padding": 0},
    {"bias": False, "temperature": 30.0},
]


@DIMS
@KERNELS
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_formula(dims, kernels, options):
    op, x = make(dims, kernels, **options), data(dims)
    op.bias is None or nn.init.normal_(op.bias)
    torch.testing.assert_close(op(x), definition(op, x))
    op.eval()
    torch.testing.assert_close(op(x), definition(op, x))


def test_formula_depthwise():
    op = dc.ODConv2d(8, 8, 3, padding=1, groups=8, num_kernels=4).double()
    assert op.attention(data()).output is None
    torch.testing.assert_close(op(data()), definition(op, data()))


@DIMS
@KERNELS
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("depthwise", [False, True])
def test_parameters(dims, kernels, size, depthwise):
    """The published formula for what a convolution gains."""
    c_in, c_out, groups = (48, 48, 48) if depthwise else (48, 20, 1)
    op = CLASSES[dims](c_in, c_out, size, groups=groups, num_kernels=kernels, reduction=0.5)
    h, taps = 24, size**dims
    added = c_in * h + 2 * h + (h * c_in + c_in)
    added += 0 if depthwise else h * c_out + c_out
    added += h * taps + taps if taps > 1 else 0
    added += h * kernels + kernels if kernels > 1 else 0
    weights = kernels * c_out * c_in // groups * taps + c_out
    assert sum(p.numel() for p in op.parameters()) == weights + added


def test_one_d_is_two_d_with_a_singleton_axis():
    one, two, three = (make(d) for d in (1, 2, 3))
    two = dc.ODConv2d(8, 6, (1, 3), padding=(0, 1), num_kernels=4).double()
    three = dc.ODConv3d(8, 6, (1, 1, 3), padding=(0, 0, 1), num_kernels=4).double()
    state = one.state_dict()
    for wider in (two, three):
        wider.load_state_dict({k: v.reshape(wider.state_dict()[k].shape) for k, v in state.items()})
    x = data(1)
    torch.testing.assert_close(one(x), two(x.unsqueeze(2)).squeeze(2))
    torch.testing.assert_close(one(x), three(x[:, :, None, None]).squeeze(2).squeeze(2))


@DIMS
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, "same", "valid"])
@pytest.mark.parametrize("size", [3, 4])
def test_geometry_is_torchs(dims, mode, padding, size):
    """With neutral attention the operator is the static convolution, whatever the padding."""
    static = STATIC[dims](8, 6, size, padding=padding, padding_mode=mode).double()
    op = make(dims, kernel_size=size, padding=padding, padding_mode=mode)
    op.load_static(static)
    torch.testing.assert_close(op(data(dims)), static(data(dims)))
    torch.testing.assert_close(op(data(dims)[0]), static(data(dims)[0]))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("backend", ["mixture", "gemm", "grouped", "reference"])
def test_trains_on_one_sample_and_one_position(batch, backend):
    op = make(kernel_size=3, padding=0)
    x = data(batch=batch, size=3).requires_grad_()
    with dc.backend(backend):
        y = op(x)
        y.square().sum().backward()
    assert y.shape == (batch, 6, 1, 1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in op.parameters())
    assert x.grad.isfinite().all()


def test_predictions_do_not_depend_on_batch_mates():
    op = make().eval()
    x = data(batch=4)
    torch.testing.assert_close(op(x)[:1], op(x[:1]))


def test_memory_formats():
    op, x = make(), data()
    want = op(x)
    op.to(memory_format=torch.channels_last)
    torch.testing.assert_close(op(x.to(memory_format=torch.channels_last)), want)
    assert op.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("temperature", [1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(temperature, dtype):
    op, x = make(temperature=temperature).float(), data().float() * 50
    with torch.autocast("cpu", dtype):
        y = op(x)
    assert y.dtype == dtype and y.isfinite().all()
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in op.parameters())


def test_state_dict_holds_the_temperature():
    op = make()
    op.set_temperature(7.0)
    other = make()
    stream = io.BytesIO()
    torch.save(op.state_dict(), stream)
    stream.seek(0)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert other.attention.temperature.item() == 7.0
    torch.testing.assert_close(other(data()), op(data()))


def test_copies_and_pickles():
    op = make().eval()
    stream = io.BytesIO()
    torch.save(op, stream)
    stream.seek(0)
    for twin in (copy.deepcopy(op), torch.load(stream, weights_only=False)):
        assert torch.equal(twin(data()), op(data()))


def test_attention_is_not_kept_on_the_module():
    op = make()
    before = set(vars(op)) | set(vars(op.attention))
    op(data())
    assert set(vars(op)) | set(vars(op.attention)) == before


def test_recorder():
    net = nn.Sequential(make(), nn.ReLU())
    with dc.record_attention(net) as seen:
        net(data())
        net(data())
    assert list(seen) == ["0"] and len(seen["0"]) == 2
    attention = seen["0"][0]
    assert attention.kernel.shape == (3, 4) and attention.spatial.shape == (3, 3, 3)
    torch.testing.assert_close(attention.kernel.sum(1), torch.ones(3))
    net(data())
    assert len(seen["0"]) == 2, "the recorder went on after its block"


BAD = [
    ({"num_kernels": 0}, "num_kernels"),
    ({"groups": 3}, "groups"),
    ({"temperature": 0.0}, "temperature"),
    ({"reduction": 0.0}, "reduction"),
    ({"padding": "sane"}, "padding"),
    ({"padding": "same", "stride": 2}, "strided"),
    ({"padding_mode": "mirror"}, "padding_mode"),
    ({"kernel_size": (3, 3, 3)}, "kernel_size"),
]


@pytest.mark.parametrize(("options", "named"), BAD, ids=str)
def test_bad_arguments(options, named):
    with pytest.raises(ValueError, match=named):
        make(**options)


@DIMS
def test_shapes_on_the_meta_device(dims):
    op = make(dims, stride=2).to("meta")
    assert op(data(dims).to("meta")).shape == make(dims, stride=2)(data(dims)).shape


def test_bad_inputs():
    with pytest.raises(ValueError, match="smaller than the kernel"):
        make(padding=0)(data(size=2))
    with pytest.raises((ValueError, RuntimeError)):
        make()(data(channels=7))
    with pytest.raises(dc.UnknownName, match="did you mean grouped"), dc.backend("groupd"):
        pass
