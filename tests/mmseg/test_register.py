"""Operators in mmengine's registry: every component of mmseg that takes ``conv_cfg`` takes them."""

from __future__ import annotations

import importlib
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.registry import MODELS as ROOT
from mmseg.registry import MODELS
from torch import nn

import dynconv_plugins as dc
import mmseg_configs.register as register
from dynconv_plugins.errors import UserError
from mmseg_configs.one_line import in_our_words

BN = dict(type="BN", requires_grad=True)
CONV = dict(type="ODConv2d", num_kernels=4)
BACKBONES = {
    "resnet": dict(type="ResNet", depth=18, norm_cfg=BN),
    "resnetv1c": dict(type="ResNetV1c", depth=18, norm_cfg=BN),
    "mobilenetv2": dict(type="MobileNetV2", widen_factor=0.5, out_indices=(1, 2, 4, 6), norm_cfg=BN),
}


@pytest.mark.parametrize("name", dc.registry.names())
def test_short_names_build_two_dimensional_operators(name):
    conv = build_conv_layer(dict(type=name), 8, 6, 3, padding=1)
    operator = dc.registry.get(name)
    assert isinstance(conv, operator.classes[2])
    assert all(getattr(conv, key) == value for key, value in operator.defaults.items())
    assert conv(torch.randn(2, 8, 5, 5)).shape == (2, 6, 5, 5)


def test_a_network_of_conv_cfg_is_pickled():
    network = ConvModule(4, 4, 3, conv_cfg=dict(type="odconv4x"), norm_cfg=BN).eval()
    copy = pickle.loads(pickle.dumps(network))
    x = torch.randn(2, 4, 6, 6)
    assert type(copy.conv) is type(network.conv) and torch.equal(copy(x), network(x))


def test_short_name_takes_arguments():
    assert build_conv_layer(dict(type="odconv", num_kernels=2), 8, 8, 3).num_kernels == 2


@pytest.mark.parametrize(
    "cfg, says",
    [
        (dict(type="ODConv2d", num_kernel=4), "unknown argument of ODConv2d 'num_kernel'; did you mean num_kernels"),
        (dict(type="odconv4x", kernels=4), "unknown argument of ODConv2d 'kernels'"),
        (dict(type="globalsoft", num_kernels=2), "unknown argument of GlobalSoft2d"),
        (dict(type="odconv", num_kernels=0), "ODConv2d cannot be built with .*num_kernels must be at least 1"),
        (dict(type="odconv", num_kernels="4"), "ODConv2d cannot be built with .*num_kernels='4'"),
        (dict(type="dyconv", temperature=0), "temperature must be positive"),
    ],
)
def test_a_mistake_in_conv_cfg_is_one_line(cfg, says):
    with pytest.raises(UserError, match=says) as caught:
        ConvModule(4, 4, 3, conv_cfg=cfg)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_class_names(dims):
    conv = build_conv_layer(dict(type=f"ODConv{dims}d", num_kernels=2), 4, 4, 3)
    assert isinstance(conv, dc.registry.get("odconv").classes[dims]) and conv.num_kernels == 2


@pytest.mark.parametrize(
    "name, meant", [("odcon", "odconv"), ("ODConv2", "ODConv2d"), ("Conv2", "Conv2d"), ("sofft", None)]
)
def test_unknown_type_of_convolution_is_named(name, meant, capsys, monkeypatch):
    monkeypatch.delenv("DYNCONV_DEBUG", raising=False)
    with pytest.raises(KeyError) as caught:
        ConvModule(4, 4, 3, conv_cfg=dict(type=name))
    sys.excepthook(caught.type, caught.value, caught.tb)  # what a script that catches nothing ends with
    line = capsys.readouterr().err
    assert line.startswith(f"error: unknown convolution '{name}'") and line.count("\n") == 1
    assert (meant or "known: ") in line


def test_other_errors_stay_what_they_are():
    with pytest.raises(KeyError) as caught:
        build_conv_layer(dict(num_kernels=2), 4, 4, 3)
    assert in_our_words(caught.value) is caught.value
    assert in_our_words(KeyError("x")).args == ("x",)


def test_registering_again_changes_nothing():
    before = {name: ROOT.get(name) for name in ("ODConv2d", "odconv4x")}
    register.register_operators()
    assert {name: ROOT.get(name) for name in before} == before
    importlib.reload(register)
    assert ROOT.get("ODConv2d").__mro__[1] is dc.ODConv2d


def test_conv_module_keeps_the_operators_initialisation():
    torch.manual_seed(0)
    module = ConvModule(32, 64, 3, padding=1, conv_cfg=CONV, norm_cfg=dict(type="BN"))
    expected = math.sqrt(2 / (64 * 9))
    assert module.conv.weight.std().item() == pytest.approx(expected, rel=0.02)
    # without init_weights mmcv takes the four kernels for four times as many filters, and halves the scale
    bare = ConvModule(32, 64, 3, padding=1, norm_cfg=dict(type="BN"))
    bare.conv = dc.ODConv2d(32, 64, 3, num_kernels=4)
    bare.init_weights()
    assert bare.conv.weight.std().item() == pytest.approx(expected / 2, rel=0.02)


def _step(modules: nn.Module, loss: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.1)
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("config", BACKBONES.values(), ids=BACKBONES)
def test_mmsegs_own_backbones(config):
    torch.manual_seed(0)
    model = MODELS.build(dict(config, conv_cfg=CONV))
    operators = dc.operators_in(model)
    assert operators and not any(isinstance(m, nn.Conv2d) for m in model.modules())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.init_weights()
    for key, value in model.state_dict().items():
        if "attention" in key or key.rpartition(".")[0] in operators:
            assert torch.equal(value, before[key]), f"{key} was initialised again"
    model.train()
    x = torch.randn(2, 3, 64, 64)
    _step(model, sum(f.pow(2).mean() for f in model(x)))
    name, operator = next(iter(operators.items()))
    assert not torch.equal(operator.weight, before[f"{name}.weight"])
    twin = MODELS.build(dict(config, conv_cfg=CONV))
    twin.load_state_dict(model.state_dict())
    model.eval(), twin.eval()  # mmseg's own train() returns nothing
    with torch.no_grad():
        for ours, theirs in zip(model(x), twin(x), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["odconv", "odconv4x", "dyconv", "hard"])
def test_a_static_backbones_weights_are_taken_over(tmp_path, name):
    torch.manual_seed(0)
    static = MODELS.build(BACKBONES["resnetv1c"])
    torch.save(static.state_dict(), tmp_path / "static.pth")
    start = dict(type="Pretrained", checkpoint=str(tmp_path / "static.pth"))
    dynamic = MODELS.build(dict(BACKBONES["resnetv1c"], conv_cfg=dict(type=name), init_cfg=start))
    dynamic.init_weights()
    assert len(dc.operators_in(dynamic)) == 22
    static.eval(), dynamic.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(dynamic(x), static(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_static_kernel_of_another_shape_is_refused():
    module = ConvModule(4, 4, 3, conv_cfg=CONV)
    with pytest.raises(RuntimeError, match=r"conv.weight: \[4, 4, 1, 1\] instead of \[4, 4, 3, 3\]"):
        module.load_state_dict(ConvModule(4, 4, 1).state_dict())


def test_what_the_page_shows_is_a_config(tmp_path):
    """Of docs/using.md, read as a user's file is; everything in it is built."""
    page = (Path(__file__).parents[2] / "docs" / "using.md").read_text().partition("\n## mmsegmentation\n")[2]
    block = page.partition("```python\n")[2].partition("```")[0]
    file = tmp_path / "own.py"
    file.write_text(block)
    config = Config.fromfile(file)
    assert set(config) == {"custom_imports", "backbone", "conv_cfg", "default_hooks"}
    assert dc.operators_in(MODELS.build(config.backbone))
    assert isinstance(build_conv_layer(config.conv_cfg, 4, 8, 3), dc.ODConv2d)
    for hook in config.default_hooks.values():
        HOOKS.build(hook)
    for name, value in {"iters": 2000, "epochs": 10}.items():  # which a comment of it names
        assert f"{name}={value}" in block
        HOOKS.build({"type": "TemperatureHook", name: value})


def test_fpn_neck_and_head():
    neck = MODELS.build(dict(type="FPN", in_channels=[8, 16], out_channels=16, num_outs=2, conv_cfg=CONV))
    head = MODELS.build(
        dict(
            type="FPNHead",
            in_channels=[16, 16],
            in_index=[0, 1],
            feature_strides=[4, 8],
            channels=16,
            num_classes=21,
            conv_cfg=CONV,
            norm_cfg=BN,
        )
    )
    model = nn.ModuleList([neck, head])
    neck.init_weights()
    head.init_weights()
    assert len(dc.operators_in(neck)) == 4 and len(dc.operators_in(head)) == 2
    logits = head(neck([torch.randn(2, 8, 16, 16), torch.randn(2, 16, 8, 8)]))
    assert logits.shape == (2, 21, 16, 16)
    _step(model, logits.pow(2).mean())
    assert all(op.weight.grad.abs().sum() > 0 for op in dc.operators_in(model).values())


def test_deeplab_head():
    head = MODELS.build(
        dict(
            type="DepthwiseSeparableASPPHead",
            in_channels=32,
            in_index=1,
            channels=16,
            dilations=(1, 6, 12),
            c1_in_channels=8,
            c1_channels=4,
            num_classes=21,
            conv_cfg=dict(type="odconv"),
            norm_cfg=BN,
        )
    )
    head.init_weights()
    operators = dc.operators_in(head)
    # the separable convolutions inside take no conv_cfg: that is mmseg's choice
    assert {"image_pool.1.conv", "bottleneck.conv", "c1_bottleneck.conv"} <= set(operators)
    logits = head([torch.randn(2, 8, 16, 16), torch.randn(2, 32, 8, 8)])
    assert logits.shape == (2, 21, 16, 16)
    _step(head, logits.pow(2).mean())
    assert all(op.weight.grad.abs().sum() > 0 for op in operators.values())
