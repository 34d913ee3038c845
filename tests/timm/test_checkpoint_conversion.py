"""convert_checkpoint: each published layout lands where it must, and what does not fit is one line."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

timm = pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")
torchvision = pytest.importorskip("torchvision", reason="comes with the timm extra")

import published_layouts as published  # noqa: E402

import dynconv_plugins as dc  # noqa: E402
import timm_models  # noqa: E402

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


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(name, **{"num_classes": 5, **options}).eval()


def images(batch: int = 2, size: int = 64) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))


def alive(model: nn.Module) -> nn.Module:
    """A random network whose output depends on its input: its batch norms have seen some."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(images(4))
    return model.eval()


@torch.no_grad()
def assert_same_outputs(model: nn.Module, source: nn.Module, tolerance: float = 1e-4) -> None:
    got, want = model(images()), source(images())
    assert (want[0] - want[1]).abs().max() > 0.1 * want.abs().max(), "a source that is the same for all images"
    assert (got - want).abs().max() <= tolerance * want.abs().max()


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


def fingerprint(value: Tensor) -> tuple:
    return tuple(value.shape), value.double().sum().item()


STATIC = {
    "resnet18": lambda: torchvision.models.resnet18(weights=None, num_classes=5),
    "mobilenetv2_050": lambda: torchvision.models.mobilenet_v2(weights=None, num_classes=5, width_mult=0.5),
}


@pytest.fixture(scope="module", params=STATIC)
def static(request) -> tuple[str, nn.Module]:
    torch.manual_seed(0)
    return request.param, alive(STATIC[request.param]())


@pytest.mark.parametrize("operator", dc.registry.names())
def test_torchvisions_static_network_goes_on_with_any_operator(static, operator):
    base, source = static
    model = build(f"{base}_{operator}")
    model.load_state_dict(dc.convert_checkpoint(source.state_dict(), model), strict=True)
    if all(op.preserves_static for op in dc.operators_in(model).values()):
        assert_same_outputs(model, source)
    else:
        convs = [m for m in source.modules() if isinstance(m, nn.Conv2d)]
        ours = [m for m in model.modules() if isinstance(m, (nn.Conv2d, dc.operators.base.DynamicConv))]
        assert all(torch.equal(m.weight, conv.weight) for m, conv in zip(ours, convs, strict=True))


@pytest.mark.parametrize("name", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow)])
def test_torchvisions_deeper_networks(name):
    torch.manual_seed(0)
    source = alive(getattr(torchvision.models, name)(weights=None, num_classes=5, zero_init_residual=False))
    model = build(f"{name}_odconv")
    model.load_state_dict(dc.convert_checkpoint(source.state_dict(), model), strict=True)
    # In float64: a random network of this depth multiplies rounding by more than 1e-4 / 6e-8.
    assert_same_outputs_in_double(model, source)


def assert_same_outputs_in_double(model, source):
    with torch.no_grad():
        got, want = model.double()(images().double()), source.double()(images().double())
    assert (want[0] - want[1]).abs().max() > 0.1 * want.abs().max()
    assert (got - want).abs().max() <= 1e-6 * want.abs().max()


@pytest.mark.parametrize(("base", "where"), [("resnet34", "blocks"), ("mobilenetv2_075", "all")])
def test_timms_static_network(base, where):
    source = alive(build(base, **({"zero_init_last": False} if base.startswith("resnet") else {})))
    model = build(f"{base}_odconv4x", where=where)
    model.load_state_dict(dc.convert_checkpoint(source.state_dict(), model), strict=True)
    assert_same_outputs(model, source)


def test_into_torchvisions_own_network_made_dynamic():
    torch.manual_seed(0)
    mobile = dc.dynamize(STATIC["mobilenetv2_050"](), "odconv4x").eval()
    for source in (alive(STATIC["mobilenetv2_050"]()), alive(build("mobilenetv2_050"))):
        mobile.load_state_dict(dc.convert_checkpoint(source.state_dict(), mobile), strict=True)
        assert_same_outputs(mobile, source)


def test_biases_and_other_dimensions():
    source = nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3, groups=2)).eval()
    model = dc.dynamize(
        nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3, groups=2)), "dyconv", "all"
    )
    model.eval().load_state_dict(dc.convert_checkpoint(source.state_dict(), model), strict=True)
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(model(x), source(x))


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


def test_own_weights_pass_with_their_temperature():
    source = build("resnet18_odconv", anneal_steps=4, temperature=8.0)
    model = build("resnet18_odconv")
    converted = dc.convert_checkpoint(source.state_dict(), model)
    model.load_state_dict(converted, strict=True)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in converted.items())
    assert model.layer1[0].conv1.attention.temperature == 8
    annealed = build("resnet18_odconv", anneal_steps=4)
    annealed.load_state_dict(dc.convert_checkpoint(model.state_dict(), annealed), strict=True)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"state": {}}},
        lambda w: {"model": {f"module.{k}": v for k, v in w.items()}},
        lambda w: {f"module._orig_mod.{k}": v for k, v in w.items()},
        lambda w: {"state_dict": {k: v + 1 for k, v in w.items()}, "state_dict_ema": w},
        lambda w: {k: v for k, v in w.items() if not k.endswith("num_batches_tracked")},
        lambda w: {k: v.double() for k, v in w.items()},
    ],
    ids=["state_dict", "model of DDP", "compiled", "averaged", "old torch", "float64"],
)
def test_wrappings(wrap):
    source = build("resnet18").state_dict()
    model = build("resnet18_odconv")
    want = dc.convert_checkpoint(source, model)
    got = dc.convert_checkpoint(wrap(source), model)
    assert list(got) == list(want)
    assert all(v.dtype == want[k].dtype for k, v in got.items())
    assert all(torch.equal(v, want[k]) for k, v in got.items() if not k.endswith("num_batches_tracked"))


def test_neither_the_source_nor_the_model_changes():
    source = published.fill(published.mobilenetv2(0.5, 1, 5))
    model = build("mobilenetv2_050_odconv", temperature=3.0)
    copies = [{k: v.clone() for k, v in weights.items()} for weights in (source, model.state_dict())]
    converted = dc.convert_checkpoint(source, model)
    for value in converted.values():
        value.zero_()
    for now, before in zip((source, model.state_dict()), copies, strict=True):
        assert list(now) == list(before) and all(torch.equal(v, before[k]) for k, v in now.items())


def without(weights: dict, *keys: str) -> dict:
    return {k: v for k, v in weights.items() if k not in keys}


REFUSED = {
    "number of kernels": (
        "resnet18_odconv",
        lambda: published.fill(published.resnet(18, 4, 5)),
        ["48 of another shape (layer1.0.conv1.weight [4, 64, 64, 3, 3] instead of [1, 64, 64, 3, 3]", "num_kernels=4"],
    ),
    "number of classes": (
        "resnet18_odconv",
        lambda: published.fill(published.resnet(18, 1, 7)),
        ["2 of another shape (fc.weight [7, 512] instead of [5, 512]", "num_classes=7", "model.reset_classifier(5)"],
    ),
    "classes of a renamed classifier": (
        "mobilenetv2_050_odconv",
        lambda: published.fill(published.mobilenetv2(0.5, 1, 7)),
        ["classifier.1.weight [7, 1280] instead of [5, 1280]", "the source has 7 classes, the model 5"],
    ),
    "another operator": (
        "resnet18_dyconv",
        lambda: published.fill(published.resnet(18, 4, 5)),
        [
            "224 of the source unknown to the model (layer1.0.conv1.attention.fc.weight",
            "and 221 more",
            "of the model not in the source (layer1.0.conv1.attention.temperature",
        ],
    ),
    "another depth": (
        "resnet34_odconv",
        lambda: published.fill(published.resnet(18, 1, 5)),
        ["of the model not in the source (layer1.2.conv1.weight"],
    ),
    "another width": (
        "mobilenetv2_050_odconv",
        lambda: published.fill(published.mobilenetv2(0.75, 1, 5)),
        ["of another shape (features.0.0.weight [24, 3, 3, 3] instead of [16, 3, 3, 3]"],
    ),
    "a static convolution of another width": (
        "resnet18_odconv4x",
        lambda: {k: v[:, :8] if k == "layer1.0.conv1.weight" else v for k, v in build("resnet18").state_dict().items()},
        ["the model: 1 of another shape (layer1.0.conv1.weight [64, 8, 3, 3] instead of [64, 64, 3, 3])"],
    ),
    "a static one of another depth": (
        "resnet34_odconv",
        lambda: build("resnet18").state_dict(),
        ["of the model not in the source (layer1.2.conv1.weight"],
    ),
    "a bottleneck of another width": (
        "resnet18_odconv",
        lambda: {
            k: v[:, :8] if k.endswith("conv1.attention.fc.weight") else v
            for k, v in published.fill(published.resnet(18, 1, 5)).items()
        },
        ["8 of another shape (layer1.0.conv1.attention.squeeze.weight [16, 8] instead of [16, 64]"],
    ),
    "missing": (
        "resnet18_odconv",
        lambda: without(published.fill(published.resnet(18, 1, 5)), "bn1.weight", "fc.bias"),
        ["the model: 2 of the model not in the source (bn1.weight, fc.bias)"],
    ),
    "unknown": (
        "resnet18_odconv",
        lambda: build("resnet18").state_dict() | {"head.extra": torch.ones(1)},
        ["the model: 1 of the source unknown to the model (head.extra)"],
    ),
    "nothing in it": ("resnet18_odconv", dict, ["not a state dict: it is empty"]),
    "an epoch": ("resnet18_odconv", lambda: {"epoch": 3}, ["not a state dict: 'epoch' is of type int"]),
    "a module": ("resnet18_odconv", lambda: nn.Linear(1, 1), ["no state dict but a Linear"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line(case):
    name, source, says = REFUSED[case]
    with pytest.raises(dc.UserError) as caught:
        dc.convert_checkpoint(source(), build(name))
    assert "\n" not in str(caught.value)
    for part in says:
        assert part in str(caught.value)


def test_routing_of_a_block_is_not_a_convolutions():
    source = build("efficientnet_cc_b0_4e").state_dict()
    model = dc.dynamize(build("efficientnet_b0"), "condconv", where=r"blocks\.[456]", num_kernels=4)
    with pytest.raises(dc.UserError, match="no weights make the two equal: convert for timm_models.adopt_condconv"):
        dc.convert_checkpoint(source, model)
    eight = timm_models.adopt_condconv(build("efficientnet_cc_b0_8e"))
    with pytest.raises(dc.UserError, match=r"\[4, 38400\] instead of \[8, 38400\].*the source has 4 kernels"):
        dc.convert_checkpoint(source, eight)
