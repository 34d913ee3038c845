"""A trained segmentor at work: mmseg's `init_model` and `inference_model`, and tests with augmentation."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import inference_model, init_model
from mmseg.registry import DATASETS, MODELS

import mmseg_configs
from dynconv_plugins.errors import UserError
from mmseg_configs import recipes


def save(cfg: Config, path: Path) -> Path:
    """What a training leaves behind of a network that has learnt nothing but to keep to the first three classes."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.nn.init.constant_(model.decode_head.conv_seg.bias[3:], -100)
    meta = {"dataset_meta": DATASETS.build(cfg.test_dataloader.dataset).metainfo}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, path)
    return path


def test_of(cfg: Config, weights: Path, work_dir: Path, augmented: bool) -> float:
    """What mmseg's test.py does, with and without ``--tta``: the mIoU."""
    cfg = cfg.copy()
    cfg.work_dir, cfg.load_from = str(work_dir), str(weights)
    cfg.experiment_name = f"{work_dir.parent.name}-{work_dir.name}-{augmented}"
    if augmented:
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.tta_model.module = cfg.model
        cfg.model = cfg.tta_model
    return Runner.from_cfg(cfg).test()["mIoU"]


test_of.__test__ = False


@pytest.fixture(params=["shipped", pytest.param("composed", marks=pytest.mark.slow)])
def cfg(request, monkeypatch, diatoms_root, tmp_path, parts) -> Config:
    monkeypatch.setenv("DYNCONV_DATA", str(diatoms_root))
    if request.param == "shipped":
        path = mmseg_configs.path("fpn_resnet18_diatoms-64x64")
    else:
        path = recipes.compose(tmp_path / "c.py", head="fpn", operator="static", recipe="modern", **parts)
    cfg = Config.fromfile(path)
    cfg.test_dataloader.dataset.indices = 2
    return cfg


def test_augmented_tests_run(cfg, tmp_path):
    weights = save(cfg, tmp_path / "w.pth")
    plain, augmented = (test_of(cfg, weights, tmp_path / "w", how) for how in (False, True))
    assert 0 < plain < 100 and 0 < augmented < 100
    resizes, flips, *_ = cfg.tta_pipeline[1]["transforms"]
    assert len(resizes) == 6 and len(flips) == 2
    # the size in the middle, unturned, is the plain test
    cfg.tta_pipeline[1]["transforms"][:2] = [[r for r in resizes if r == cfg.test_pipeline[1]], flips[:1]]
    assert test_of(cfg, weights, tmp_path / "one", True) == plain


@pytest.mark.parametrize("cfg", ["shipped"], indirect=True)
def test_augmented_tests_refuse_a_foreign_checkpoint(cfg, tmp_path):
    weights = save(cfg, tmp_path / "w.pth")
    stored = torch.load(weights, weights_only=False)
    stored["state_dict"].pop("decode_head.conv_seg.weight")
    torch.save(stored, weights)
    with pytest.raises(UserError, match="1 of .* keys missing .first: decode_head.conv_seg.weight"):
        test_of(cfg, weights, tmp_path / "foreign", True)


def test_the_hosts_interface(tmp_path, parts):
    classifier = tmp_path / "classifier.pth"
    torch.save(timm.create_model("resnet18").state_dict(), classifier)
    options = dict(head="deeplabv3plus", operator="static", backbone_checkpoint=classifier)
    path = recipes.compose(tmp_path / "c.py", **options, **parts)
    weights = save(Config.fromfile(path), tmp_path / "w.pth")
    classifier.unlink()  # all weights are in the segmentor's checkpoint
    model = init_model(str(path), str(weights), device="cpu")
    image = next((parts["data_root"] / "JPEGImages").glob("*.jpg"))
    done = inference_model(model, str(image))
    assert done.seg_logits.data.shape[0] == 21 and done.pred_sem_seg.shape == done.ori_shape
    # trained anew, the network needs it
    with pytest.raises(UserError, match="classifier.pth does not exist"):
        MODELS.build(Config.fromfile(path).model).init_weights()
