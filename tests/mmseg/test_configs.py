"""The shipped configs: complete, loadable, and static and dynamic twins alike but for what makes them dynamic."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

import dynconv_plugins as dc
import mmseg_configs
from dynconv_plugins.errors import UnknownName

HEADS = ("fpn", "deeplabv3plus")
NETWORKS = ("resnet18", "resnet18-odconv", "resnet18-odconv4x")
DATA = ("voc12-512x512", "voc12aug-512x512", "voc12-128x128", "diatoms-64x64")
NAMES = [f"{head}_{network}_{data}" for head in HEADS for network in NETWORKS for data in DATA]


def test_names_and_paths(tmp_path):
    assert mmseg_configs.names() == sorted(NAMES)
    for name in NAMES:
        assert mmseg_configs.path(name) == mmseg_configs.path(f"{name}.py") and mmseg_configs.path(name).is_file()
    with pytest.raises(UnknownName, match="did you mean fpn_resnet18-odconv_diatoms-64x64"):
        mmseg_configs.path("fpn_resnet18-odconv_diatom-64x64")


def test_command_line(python, tmp_path):
    listed = python("mmseg_configs", "list", cwd=tmp_path)
    assert listed.returncode == 0 and listed.stdout.split() == sorted(NAMES)
    path = python("mmseg_configs", "path", NAMES[0], cwd=tmp_path)
    assert path.returncode == 0 and path.stdout == f"{mmseg_configs.path(NAMES[0])}\n"
    wrong = python("mmseg_configs", "path", "nonsense", cwd=tmp_path)
    assert wrong.returncode == 2 and not wrong.stdout
    assert wrong.stderr.startswith("error: unknown config 'nonsense'") and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_complete(name, monkeypatch):
    monkeypatch.setenv("DYNCONV_DATA", "some/where")
    cfg = Config.fromfile(mmseg_configs.path(name))
    size = int(name.rpartition("x")[2])
    assert tuple(cfg.model.data_preprocessor.size) == (size, size)
    assert cfg.val_dataloader.dataset.data_root == "some/where/VOCdevkit/VOC2012"
    assert cfg.custom_imports.imports == ["mmseg_configs.register"] and cfg.randomness.seed == 0
    assert cfg.val_evaluator == cfg.test_evaluator == dict(type="IoUMetric", iou_metrics=["mIoU"])
    assert cfg.default_hooks.checkpoint.save_best == "mIoU"
    assert "SyncBN" not in cfg.pretty_text and "http" not in cfg.pretty_text
    iters = cfg.train_cfg.max_iters
    assert iters == cfg.param_scheduler[0]["end"] and iters % cfg.train_cfg.val_interval == 0
    if "512" in name:
        assert iters == 20_000
    if "odconv" in name:
        assert cfg.default_hooks.temperature == dict(type="TemperatureHook", iters=iters // 10)
    parts = cfg.train_dataloader.dataset.get("datasets", [cfg.train_dataloader.dataset])
    masks = [part.data_prefix.seg_map_path for part in parts]
    assert masks == ["SegmentationClass"] + ["SegmentationClassAug"] * ("aug" in name)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("head", HEADS)
def test_twins_differ_in_nothing_else(head, data):
    static, *dynamic = (Config.fromfile(mmseg_configs.path(f"{head}_{n}_{data}")).to_dict() for n in NETWORKS)
    for cfg, name in zip(dynamic, ("resnet18_odconv", "resnet18_odconv4x"), strict=True):
        assert cfg["model"]["backbone"].pop("model_name") == name
        del cfg["default_hooks"]["temperature"]
    assert static["model"]["backbone"].pop("model_name") == "resnet18"
    assert dynamic == [static, static]


def test_data_root_without_the_variable(monkeypatch):
    monkeypatch.delenv("DYNCONV_DATA", raising=False)
    roots = [Config.fromfile(mmseg_configs.path(f"fpn_resnet18_{data}")).data_root for data in DATA]
    assert roots == ["data/VOCdevkit/VOC2012"] * 3 + ["data/diatoms/VOCdevkit/VOC2012"]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("head", HEADS)
def test_models_build_and_segment(head, network):
    cfg = Config.fromfile(mmseg_configs.path(f"{head}_{network}_diatoms-64x64"))
    model = MODELS.build(cfg.model).eval()
    assert len(dc.operators_in(model)) == (0 if network == "resnet18" else 16)
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 64, 64), mode="tensor")
    assert logits.shape == (1, 21, 16, 16)


@pytest.mark.parametrize("name", ["fpn_resnet18_voc12-512x512", "deeplabv3plus_resnet18_voc12-512x512"])
def test_time_augmented_testing_is_configured(name):
    cfg = Config.fromfile(mmseg_configs.path(name))
    cfg.tta_model.module = cfg.model
    assert MODELS.build(cfg.tta_model).module.backbone.channels == [64, 128, 256, 512]
