"""convert_checkpoint: each published layout lands where it must and computes what it did."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")

import published_layouts as published
from conversion_networks import alive, assert_same_outputs, assert_same_outputs_in_double, build, images
from timm.layers import CondConv2d
from timm.models._efficientnet_blocks import CondConvResidual

import dynconv_plugins as dc
import timm_models

# name in timm, arguments, the published layout of the same network
PUBLISHED = [
    ("resnet18_odconv", {}, published.resnet(18, 1, 5)),
    ("resnet18_odconv4x", {}, published.resnet(18, 4, 5)),
    ("resnet34_odconv", {"num_kernels": 2}, published.resnet(34, 2, 5)),
    ("resnet50_odconv", {}, published.resnet(50, 1, 5)),
    ("resnet50_odconv", {"stride_in_1x1": True}, published.resnet(50, 1, 5)),
    pytest.param("resnet101_odconv", {}, published.resnet(101, 1, 5), marks=pytest.mark.slow),
    ("mobilenetv2_050_odconv", {}, published.mobilenetv2(0.5, 1, 5)),
    ("mobilenetv2_050_odconv4x", {}, published.mobilenetv2(0.5, 4, 5)),
    ("mobilenetv2_075_odconv", {}, published.mobilenetv2(0.75, 1, 5)),
    ("mobilenetv2_100_odconv", {}, published.mobilenetv2(1.0, 1, 5)),
]


def by_equation(there: dict[str, Tensor], x: Tensor, like: nn.Module) -> Tensor:
    """ODConv's equation 2 from the entries of one published convolution, sample by sample, kernel by kernel."""
    weight = there["weight"].double()

    def layer(name: str, z: Tensor) -> Tensor:
        bias = there.get(f"attention.{name}.bias")
        return z @ there[f"attention.{name}.weight"].double()[:, :, 0, 0].T + (0 if bias is None else bias.double())

    mean, var, scale, shift = (
        there[f"attention.bn.{entry}"].double() for entry in ("running_mean", "running_var", "weight", "bias")
    )
    z = layer("fc", x.mean((2, 3)))
    z = ((z - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)
    outputs = []
    for b in range(len(x)):
        c = torch.sigmoid(layer("channel_fc", z[b]))
        mixed = torch.zeros_like(weight[0])
        a = layer("kernel_fc", z[b]).softmax(0) if len(weight) > 1 else [1.0]
        for k in range(len(weight)):
            mixed += a[k] * weight[k]
        if weight.shape[-1] > 1:
            mixed = mixed * torch.sigmoid(layer("spatial_fc", z[b])).reshape(weight.shape[-2:])
        y = F.conv2d(
            x[b : b + 1] * c[:, None, None], mixed, stride=like.stride, padding=like.padding, groups=like.groups
        )
        if "attention.filter_fc.weight" in there:
            y = y * torch.sigmoid(layer("filter_fc", z[b]))[:, None, None]
        outputs.append(y)
    return torch.cat(outputs)


def fingerprint(value: Tensor) -> tuple:
    return tuple(value.shape), value.double().sum().item()


@pytest.mark.parametrize(("name", "options", "layout"), PUBLISHED, ids=lambda v: v if isinstance(v, str) else "")
def test_published_odconv_computes_its_equation(name, options, layout):
    source = published.fill(layout)
    model = build(name, temperature=30.0, **options)
    model.load_state_dict(dc.convert_checkpoint(source, model), strict=True)
    model.double()
    # Both networks list their convolutions in the order they run in.
    theirs = [key.removesuffix(".attention.fc.weight") for key in layout if key.endswith(".attention.fc.weight")]
    operators = dc.operators_in(model)
    assert len(theirs) == len(operators)
    for there, (here, op) in zip(theirs, operators.items(), strict=True):
        assert op.attention.temperature == 1
        entries = {k.removeprefix(f"{there}."): v for k, v in source.items() if k.startswith(f"{there}.")}
        x = torch.randn(2, op.in_channels, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        want = by_equation(entries, x, op)
        assert (op(x) - want).abs().max() <= 1e-10 * want.abs().max(), f"{there} -> {here}"


@pytest.mark.parametrize(("name", "options", "layout"), PUBLISHED[::6], ids=lambda v: v if isinstance(v, str) else "")
def test_published_static_parts_land_in_order(name, options, layout):
    source = published.fill(layout)
    model = build(name, **options)
    model.load_state_dict(dc.convert_checkpoint(source, model), strict=True)
    inside = tuple(dc.operators_in(model))
    ours = {k: v for k, v in model.state_dict().items() if not k.startswith(inside)}
    theirs = {k: v for k, v in source.items() if ".attention." not in k and v.dim() != 5}
    assert sorted(map(fingerprint, ours.values())) == sorted(map(fingerprint, theirs.values()))
    norms = [v for k, v in ours.items() if k.endswith("running_mean")]
    if not name.startswith("resnet"):  # there the names are the same
        want = [v for k, v in theirs.items() if k.endswith("running_mean")]
        assert all(map(torch.equal, norms, want)), "batch norms in the order in which they run"
    else:
        assert all(torch.equal(v, source[k]) for k, v in ours.items())


@pytest.mark.parametrize("name", ["efficientnet_cc_b0_4e", "tf_efficientnet_cc_b0_4e"])
def test_timms_condconv(name):
    source = build(name)
    for module in source.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.bias)
    alive(source)
    model = timm_models.adopt_condconv(build(name, num_classes=5))
    assert len(dc.operators_in(model)) == 3 * 8
    before = dict(source.state_dict())
    model.load_state_dict(dc.convert_checkpoint({"model": before}, model), strict=True)
    assert_same_outputs(model, source, 1e-3)
    assert_same_outputs_in_double(model, source)


def test_adopting_keeps_weights_and_refuses_other_networks():
    source = alive(build("tf_efficientnet_cc_b0_4e"))
    want = source.double()(images(2, 48).double())
    model = timm_models.adopt_condconv(source)
    torch.testing.assert_close(model(images(2, 48).double()), want)
    with dc.record_attention(model) as recorded:
        model(images(2, 48).double())
    assert {len(calls) for calls in recorded.values()} == {1} and len(recorded) == 24
    with pytest.raises(dc.UserError, match="has no timm.layers.CondConv2d"):
        timm_models.adopt_condconv(build("resnet18"))


def test_adopting_replaces_a_layer_under_all_of_its_names():
    model = nn.Module()
    model.a = model.b = CondConv2d(4, 4, 3, num_experts=2)
    timm_models.adopt_condconv(model)
    assert model.a is model.b and not isinstance(model.a, CondConv2d)


def test_condconv_with_a_blocks_routing_is_left_by_folding():
    """A static convolution does not take the routing that the block calls it with."""
    torch.manual_seed(0)
    block = timm_models.adopt_condconv(CondConvResidual(8, 8, num_experts=3)).eval()
    x = torch.randn(2, 8, 6, 6)
    static, report = dc.fold(block, [x])
    assert not report.folded and report.left.keys() == dc.operators_in(block).keys()
    assert torch.equal(static(x), block(x))
