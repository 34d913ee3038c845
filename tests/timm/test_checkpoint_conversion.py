"""convert_checkpoint: static networks and own weights go on computing the same, however they are wrapped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")
pytest.importorskip("torchvision", reason="comes with the timm extra")

import published_layouts as published
import torchvision
from conversion_networks import alive, assert_same_outputs, assert_same_outputs_in_double, build

import dynconv_plugins as dc

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
