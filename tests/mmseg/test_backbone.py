"""DynConvBackbone: shapes, freezing, and a checkpoint that is loaded completely or not at all."""

from __future__ import annotations

import argparse

import pytest
import timm
import torch
from mmengine.logging import HistoryBuffer
from mmseg.registry import MODELS
from safetensors.torch import save_file
from torch.nn.modules.batchnorm import _BatchNorm

import dynconv_plugins as dc
from dynconv_plugins.errors import UnknownName, UserError

X = torch.randn(2, 3, 64, 64)


def build(model_name="resnet18_odconv", **kwargs):
    return MODELS.build(dict(type="DynConvBackbone", model_name=model_name, **kwargs))


def start(model_name="resnet18_odconv", **kwargs):
    """As a training starts it."""
    backbone = build(model_name, **kwargs)
    backbone.init_weights()
    return backbone


@pytest.mark.parametrize(
    "name, kwargs, strides",
    [
        ("resnet18", {}, [4, 8, 16, 32]),
        ("resnet18_odconv", {}, [4, 8, 16, 32]),
        ("resnet18_odconv", dict(output_stride=16), [4, 8, 16, 16]),
        ("resnet18_odconv", dict(output_stride=8), [4, 8, 8, 8]),
        ("resnet18_odconv", dict(small_stem=True), [1, 2, 4, 8]),
        ("resnet18_odconv4x", dict(out_indices=(0, 2)), [2, 8]),
        ("mobilenetv2_050_odconv", dict(out_indices=(1, 2, 3, 4), output_stride=16), [4, 8, 16, 16]),
        ("convnext_atto", dict(out_indices=(0, 3)), [4, 32]),
    ],
)
def test_features(name, kwargs, strides):
    backbone = build(name, **kwargs).eval()
    with torch.no_grad():
        maps = backbone(X)
    assert [64 // m.shape[-1] for m in maps] == strides == backbone.strides
    assert [m.shape[1] for m in maps] == backbone.channels
    assert bool(dc.operators_in(backbone)) == ("odconv" in name)


def test_init_weights_keeps_the_models_own():
    backbone = build()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_model_arguments_and_channels():
    backbone = build("resnet18_odconv", in_channels=1, num_kernels=2, reduction=1 / 4)
    operators = dc.operators_in(backbone).values()
    assert {op.num_kernels for op in operators} == {2}
    assert backbone.eval()(torch.randn(1, 1, 32, 32))[0].shape == (1, 64, 8, 8)


def test_frozen_stages_stay_put():
    torch.manual_seed(0)
    backbone = build(frozen_stages=2)
    backbone.train()
    frozen = ("conv1", "bn1", "layer1", "layer2")
    before = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(f.pow(2).mean() for f in backbone(X)).backward()
    optimizer.step()
    after = backbone.model.state_dict()
    for key, value in before.items():
        if key.startswith(frozen):
            assert torch.equal(value, after[key]), f"{key} moved"
    # timm starts with the last norm of a block at zero, so nothing inside the branches moves in the first step
    for key in ("layer3.0.downsample.0.weight", "layer3.0.conv1.attention.norm.running_mean", "layer4.1.bn2.weight"):
        assert not torch.equal(before[key], after[key]), f"{key} did not move"
    for name, module in backbone.model.named_modules():
        if name:
            assert module.training != name.startswith((*frozen, "act1", "maxpool")), name


def test_frozen_stages_of_a_network_with_nested_stages():
    backbone = build("mobilenetv2_050_odconv", frozen_stages=1).train()
    assert not any(p.requires_grad for p in backbone.model.blocks[1].parameters())
    assert all(p.requires_grad for p in backbone.model.blocks[2].parameters())


def test_norm_eval_reaches_the_attention():
    backbone = build(norm_eval=True).train()
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) > 20 and not any(m.training for m in norms)
    assert backbone.model.layer1[0].conv1.training


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(model_name="resnet18_odcnv"), "did you mean resnet18_odconv"),
        (dict(frozen_stages=9), "frozen_stages=9"),
        (dict(out_indices=(1, 2), frozen_stages=4), "frozen_stages=4"),
        (dict(out_indices=(1, 12)), "out_indices"),
        (dict(output_stride=5), "output_stride"),
        (dict(num_kernel=4), "num_kernel"),
        (dict(checkpoint="none.pth"), "does not exist"),
        (dict(model_name="resnet18_odconv4x.pth"), "resnet18_odconv4x.pth takes no"),
        (dict(model_name=None), "model_name must be"),
        (dict(frozen_stages="2"), "frozen_stages must be"),
        (dict(out_indices=4), "out_indices must be"),
        (dict(in_channels=0), "in_channels must be"),
        (dict(in_chans=4), "write in_channels="),
        (dict(pretrained=True), "resnet18_odconv takes no .*pretrained"),
        (dict(pretrained="open-mmlab://resnet18_v1c"), r"set model=dict\(pretrained=None\).*checkpoint=FILE"),
        (dict(model_name="resnet18", pretrained="resnet18.pth"), "checkpoint=FILE"),
        (dict(init_cfg=dict(type="Pretrained", checkpoint="odconv.pth")), "checkpoint=FILE"),
        (dict(init_cfg=[dict(type="Pretrained", checkpoint="odconv.pth")]), "checkpoint=FILE"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(UserError, match=message) as caught:
        start(**kwargs)
    assert "\n" not in str(caught.value)


def test_unknown_model_is_an_unknown_name():
    with pytest.raises(UnknownName):
        build("resnet18_nothing_of_the_kind")


def _save(path, model, kind):
    state = model.state_dict()
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif kind == "plain":
        torch.save(state, path)
    elif kind == "compiled":
        torch.save({"state_dict": {f"_orig_mod.{k}": v for k, v in state.items()}}, path)
    else:  # what timm's CheckpointSaver writes: the command line, the optimizer, weights and their average
        noise = {k: torch.zeros_like(v) for k, v in state.items()}
        content = {"epoch": 1, "arch": "a", "state_dict": noise, "state_dict_ema": state, "metric": 0.5}
        torch.save({**content, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}}, path)
    return str(path)


@pytest.mark.parametrize("kind", ["plain", "compiled", "trainer", "safetensors", "annealed"])
@pytest.mark.parametrize("name", ["resnet18_odconv", "mobilenetv2_050_odconv", "convnext_atto"])
def test_checkpoint_is_loaded(tmp_path, name, kind):
    if name != "resnet18_odconv" and kind != "plain":
        pytest.skip("the file's format does not depend on the model")
    torch.manual_seed(1)
    indices = (0, 1, 2, 3)
    source = timm.create_model(name, num_classes=10).eval()  # another head than the default: dropped all the same
    if kind == "annealed":
        dc.anneal(source, steps=5)
    backbone = start(name, out_indices=indices, checkpoint=_save(tmp_path / "w.pth.tar", source, kind)).eval()
    with torch.no_grad():
        expected = source.forward_intermediates(X, indices=indices, intermediates_only=True)
        for ours, theirs in zip(backbone(X), expected, strict=True):
            if ours.shape == theirs.shape:  # the stems of ResNets differ in where they are tapped
                torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("by", ["checkpoint", "init_cfg"])
def test_a_segmentors_backbone_is_loaded(tmp_path, by):
    torch.manual_seed(1)
    path, source = str(tmp_path / "iter_1.pth"), build()
    state = {f"backbone.{key}": value for key, value in source.state_dict().items()}
    log = HistoryBuffer([1.0], [1])  # as mmengine's runner saves it
    torch.save({"state_dict": {**state, "decode_head.w": X}, "message_hub": {"log_scalars": {"loss": log}}}, path)
    given = path if by == "checkpoint" else dict(type="Pretrained", checkpoint=path, prefix="backbone.")
    loaded = start(**{by: given}).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.state_dict().items())
    assert HistoryBuffer([1.0], [1]).statistics("current") == 1, "the runner's own logs go on"


@pytest.mark.parametrize("operator", ["odconv", "odconv4x", "globalsoft", "hard", "dcd"])
def test_a_static_networks_weights_start_its_dynamic_twin(tmp_path, operator):
    torch.manual_seed(1)
    source = timm.create_model("resnet18", num_classes=10).eval()
    path = _save(tmp_path / "w.pth.tar", source, "trainer")
    static, dynamic = (start(name, checkpoint=path).eval() for name in ("resnet18", f"resnet18_{operator}"))
    with torch.no_grad():
        for ours, theirs in zip(dynamic(X), static(X), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_heads_start_alike_with_and_without_reading_the_checkpoint(tmp_path):
    """Nothing random hangs on when the file is read: neither heads nor what is trained afterwards."""
    path = _save(tmp_path / "w.pth", timm.create_model("resnet18"), "plain")
    states = []
    for read in (False, True):
        torch.manual_seed(0)
        backbone = build("resnet18", checkpoint=path)
        if read:
            backbone.load_checkpoint()
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize(
    "source, target, kwargs, message",
    [
        ("resnet18", "resnet34_odconv", {}, "keys missing"),
        ("resnet18", "resnet18_odconv", dict(in_channels=1), r"conv1.weight, \[64, 3, 7, 7\] instead of"),
        ("resnet18_odconv", "resnet18", {}, "keys unknown"),
        ("resnet18_odconv", "resnet18_odconv4x", {}, "shapes differ"),
        ("resnet18_odconv", "resnet18_odconv", dict(small_stem=True), r"conv1.weight, \[64, 3, 7, 7\] instead of"),
        ("resnet18_odconv", "resnet18_odconv", dict(in_channels=1), "conv1.weight"),
        ("mobilenetv2_050_odconv", "resnet18_odconv", {}, "another architecture"),
    ],
)
def test_checkpoint_of_another_architecture(tmp_path, source, target, kwargs, message):
    path = _save(tmp_path / "w.pth.tar", timm.create_model(source), "plain")
    with pytest.raises(UserError, match=message) as caught:
        start(target, checkpoint=path, **kwargs)
    assert "\n" not in str(caught.value) and path in str(caught.value)


def test_a_static_kernel_of_another_shape_is_named(tmp_path):
    model = timm.create_model("resnet18")
    model.layer2[0].conv1 = torch.nn.Conv2d(64, 128, 1, bias=False)
    path = _save(tmp_path / "w.pth", model, "plain")
    with pytest.raises(UserError, match=r"layer2.0.conv1.weight, \[128, 64, 1, 1\] instead of \[128, 64, 3, 3\]"):
        start("resnet18_odconv", checkpoint=path)


class _Evil:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("damage", ["cut", "text", "pickle", "tensor"])
def test_checkpoint_that_is_none(tmp_path, capsys, damage):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "text":
        path.write_text("not weights")
    else:
        torch.save(_Evil() if damage == "pickle" else torch.zeros(3), path)
    with pytest.raises(UserError, match="w.pth") as caught:
        start(checkpoint=str(path))
    assert "\n" not in str(caught.value)
    assert "unpickled" not in capsys.readouterr().out
