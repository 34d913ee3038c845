"""DynConvBackbone: how mmseg's own ways of loading start it from a static segmentor, and what else its ResNets can."""

from __future__ import annotations

import pytest
import timm
import torch
from mmengine.registry import HOOKS
from mmengine.runner.checkpoint import load_checkpoint
from mmseg.registry import MODELS
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError

X = torch.randn(2, 3, 64, 64)


def build(model_name: str, **options) -> nn.Module:
    torch.manual_seed(1)
    return MODELS.build(dict(type="DynConvBackbone", model_name=model_name, **options))


@pytest.fixture(scope="module")
def segmentor(tmp_path_factory):
    """A static one's backbone, with residual branches that are not zero, and its checkpoint."""
    backbone = build("resnet18").eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    path = str(tmp_path_factory.mktemp("static") / "iter_1.pth")
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in backbone.state_dict().items()}}, path)
    return backbone, path


@pytest.mark.parametrize("operator", ["odconv", "odconv4x", "dcd"])
@pytest.mark.parametrize("way", ["init_cfg", "load_from"])
@torch.no_grad()
def test_a_static_segmentors_weights_start_it(segmentor, operator: str, way: str) -> None:
    static, path = segmentor
    given = dict(init_cfg=dict(type="Pretrained", checkpoint=path, prefix="backbone.")) if way == "init_cfg" else {}
    model = nn.ModuleDict({"backbone": build(f"resnet18_{operator}", **given)}).eval()
    if given:
        model["backbone"].init_weights()
    else:
        load_checkpoint(model, path)  # what the runner does, not strictly
    for ours, theirs in zip(model["backbone"](X), static(X), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_attention_that_no_file_held_anneals(tmp_path) -> None:
    """The deep stem of ResNetV1c is not in a plain ResNet's file."""
    torch.manual_seed(0)
    options = dict(depth=18, conv_cfg=dict(type="odconv4x"), norm_cfg=dict(type="BN"))
    plain = MODELS.build(dict(type="ResNet", **options))
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    start = dict(type="Pretrained", checkpoint=str(tmp_path / "plain.pth"))
    model = MODELS.build(dict(type="ResNetV1c", **options, init_cfg=start))
    model.init_weights()
    hook = HOOKS.build(dict(type="TemperatureHook", iters=4))
    said: list[str] = []
    hook.before_train(_runner(model, said))
    hook.before_train_iter(_runner(model, said), 0)
    temperatures = {name: op.attention.temperature.item() for name, op in dc.operators_in(model).items()}
    assert {name.partition(".")[0] for name, t in temperatures.items() if t == 30} == {"stem"}
    assert len(said) == 1 and "(19 of 22 layers)" in said[0]


def _runner(model: nn.Module, said: list[str]):
    from types import SimpleNamespace

    hub = SimpleNamespace(update_info=lambda *_: None, update_scalar=lambda *_: None)
    return SimpleNamespace(model=model, iter=0, message_hub=hub, logger=SimpleNamespace(info=said.append))


@pytest.mark.parametrize(
    ("name", "option"),
    [("mobilenetv2_050_odconv", dict(feature_location="expansion")), ("resnet18_odconv", dict(feature_cls="hook"))],
)
def test_how_features_are_taken_is_no_matter_of_the_checkpoint(tmp_path, name: str, option: dict) -> None:
    whole = timm.create_model(name)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    indices = (1, 2, 3)
    started = build(name, out_indices=indices, checkpoint=str(tmp_path / "whole.pth"), **option)
    fresh = build(name, out_indices=indices, **option)
    assert list(started.state_dict()) == list(fresh.state_dict())


@pytest.mark.parametrize("name", ["resnet18_odconv4x", "mobilenetv2_050_odconv"])
def test_recomputed_activations_have_the_same_gradients(name: str) -> None:
    gradients = []
    for with_cp in (False, True):
        model = build(name, with_cp=with_cp).train()
        sum(each.square().mean() for each in model(X)).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again, rtol=1e-4, atol=1e-6)


def test_networks_that_do_not_fit_mmsegs_heads() -> None:
    with pytest.raises(UserError, match="channels last"):
        build("swin_tiny_patch4_window7_224", out_indices=(0, 1), img_size=64)
    with pytest.raises(UserError, match="leave with_cp out"):
        build("vgg11", out_indices=(1, 2), feature_cls="getter", with_cp=True)
