"""The study's recipes: one config file each, whole and checked before anything is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

import dynconv_plugins as dc
from dynconv_plugins.errors import UnknownName, UserError
from mmseg_configs import recipes

LISTS = "ImageSets/Segmentation"
HOOKS = {
    **dict.fromkeys(
        ("dyconv", "odconv", "odconv4x", "a2d2c", "a2d2cplus", "localsoft", "fdconv"),
        {"temperature": {"type": "TemperatureHook", "epochs": 3.0}},
    ),
    "hard": {"budget": {"type": "BudgetHook"}},
}


def composed(tmp_path, parts, operator="odconv", head="fpn", **options) -> Config:
    path = recipes.compose(tmp_path / f"{operator}.py", head=head, operator=operator, **{**parts, **options})
    return Config.fromfile(path)


@pytest.mark.parametrize("operator", ["static", *dc.registry.names()])
def test_every_operator_builds(tmp_path, parts, operator):
    cfg = composed(tmp_path, parts, operator)
    model = MODELS.build(cfg.model)
    assert bool(dc.operators_in(model)) == (operator != "static")
    needed = {name: dict(cfg.default_hooks[name]) for name in ("temperature", "budget") if name in cfg.default_hooks}
    assert needed == HOOKS.get(operator, {})
    assert cfg.model.decode_head.dropout_ratio == 0.2 and cfg.optim_wrapper.optimizer == dict(type="Adam", lr=1e-3)


@pytest.mark.parametrize("recipe", recipes.names())
def test_heads_and_data(tmp_path, parts, recipe):
    cfg = composed(tmp_path, parts, head="deeplabv3plus", recipe=recipe, seed=3)
    model = MODELS.build(cfg.model)
    sets = {kind: DATASETS.build(cfg[f"{kind}_dataloader"].dataset) for kind in ("train", "val", "test")}
    assert {kind: len(data) for kind, data in sets.items()} == {"train": 5, "val": 3, "test": 4}
    assert len(sets["test"].metainfo["classes"]) == len(sets["test"].metainfo["palette"]) == 21
    batch = {k: [sets["train"][i][k] for i in range(2)] for k in ("inputs", "data_samples")}
    assert model.data_preprocessor(batch, training=True)["inputs"].shape == (2, 3, 64, 64)
    assert model.auxiliary_head.dropout_ratio == model.decode_head.dropout_ratio > 0
    assert cfg.randomness.seed == 3
    assert cfg.test_pipeline == cfg.test_dataloader.dataset.pipeline
    augmented = cfg.tta_pipeline[1]["transforms"][0]
    assert [step["scale"] for step in augmented] == [(4 * side, side) for side in (32, 48, 64, 80, 96, 112)]
    assert augmented.count(cfg.test_pipeline[1]) == 1


def test_the_studys_augmentation_is_its_own(tmp_path, parts):
    steps = {step["type"]: step for step in recipes.study.augmentation(64)}
    assert steps["RandomRotate"]["degree"] == 15 and steps["RandomResize"]["ratio_range"] == (0.8, 1.2)
    from mmseg.registry import TRANSFORMS

    bright = TRANSFORMS.build(steps["PhotoMetricDistortion"])
    image = np.full((4, 4, 3), 100, np.uint8)
    seen = {int(bright({"img": image.copy()})["img"].mean()) for _ in range(3000)}
    assert min(seen) in (80, 81) and max(seen) in (119, 120), "0.8 to 1.2 times as bright"


@pytest.mark.parametrize(
    ("operator", "options", "begin"),
    [
        ("static", {}, None),
        ("hard", {}, None),
        ("odconv", {}, 4),  # 3 epochs, and the iteration after them
        ("odconv", dict(epochs=35), 5),  # 3.5 epochs of one iteration each: that of the fourth is before
        ("odconv", dict(epochs=35, batch_size=2), 4),  # of three: it ends in the middle of the fourth
        ("odconv", dict(epochs=35, batch_size=4), 5),  # of one, as the last image is left out
        ("odconv", dict(epochs=1), 1),  # there is one validation at least
        ("odconv", dict(recipe="modern"), None),
    ],
)
def test_validation_waits_for_the_temperature(tmp_path, parts, operator, options, begin):
    cfg = composed(tmp_path, parts, operator, **options)
    assert cfg.train_cfg.get("val_begin") == begin
    assert cfg.default_hooks.checkpoint.get("interval") == (1 if begin else None), "what validates late is saved before"


def test_arguments_and_placement_reach_the_network(tmp_path, parts):
    def counted(**options):
        return dc.operators_in(MODELS.build(composed(tmp_path, parts, **options).model.backbone))

    assert {op.num_kernels for op in counted(arguments={"num_kernels": 3}).values()} == {3}
    assert list(counted(where="initial")) == ["model.conv1"]
    assert list(counted(where="terminal")) == ["model.layer4.1.conv2"]
    assert len(counted(where="median", operator="a2d2c")) == 1
    assert len(counted(where="block_first")) == 8


def test_a_backbone_starts_from_a_classifiers_weights(tmp_path, parts):
    import timm

    weights = timm.create_model("resnet18_odconv", num_classes=7).state_dict()
    torch.save({"state_dict": weights}, tmp_path / "classifier.pth")
    cfg = composed(tmp_path, parts, backbone_checkpoint=tmp_path / "classifier.pth")
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    assert torch.equal(backbone.state_dict()["model.layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    with pytest.raises(UserError, match="another architecture"):
        composed(tmp_path, parts, operator="dyconv", backbone_checkpoint=tmp_path / "classifier.pth")


def test_a_last_batch_of_one_is_left_out(tmp_path, parts):
    assert composed(tmp_path, parts, batch_size=4).train_dataloader.drop_last
    assert not composed(tmp_path, parts, batch_size=3).train_dataloader.drop_last


def test_a_processs_last_batch_of_one_is_left_out(tmp_path, parts):
    # 5 images: 3 for each of two processes
    assert composed(tmp_path, parts, batch_size=2, processes=2).train_dataloader.drop_last
    assert not composed(tmp_path, parts, batch_size=4, processes=2).train_dataloader.drop_last
    assert not composed(tmp_path, parts, batch_size=2, processes=5).train_dataloader.drop_last, "nothing would be left"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(head="fpm"), "unknown head 'fpm'; did you mean fpn"),
        (dict(recipe="studio"), "unknown recipe 'studio'; did you mean study"),
        (dict(operator="odcnv"), "did you mean odconv"),
        (dict(operator="static", where="initial"), "takes neither arguments= nor where="),
        (dict(arguments={"kernels": 4}), "unknown model argument 'kernels'"),
        (dict(arguments={"num_kernels": 0}), "num_kernels"),
        (dict(arguments={"out_indices": (1,)}), "out_indices is no argument of odconv"),
        (dict(where="nowhere"), "unknown placement 'nowhere'"),
        (dict(epochs=1.5), "epochs must be a whole number"),
        (dict(batch_size=0), "batch_size must be a whole number of at least 1"),
        (dict(pixels=8), "pixels must be"),
        (dict(processes=0), "processes must be a whole number of at least 1"),
        (dict(valid_list=f"{LISTS}/none.txt"), "valid_list .*none.txt is missing"),
        (dict(valid_list=f"{LISTS}/train.txt"), "train_list and valid_list share 5 images"),
        (dict(test_list=f"{LISTS}/look.txt"), "valid_list and test_list share 3 images"),
        (dict(data_root="/nowhere"), "no VOC 2012 in /nowhere"),
        (dict(backbone_checkpoint="/nowhere.pth"), "/nowhere.pth"),
    ],
)
def test_a_mistake_is_one_line_and_no_file(tmp_path, parts, options, says):
    with pytest.raises(UserError, match=says) as caught:
        composed(tmp_path, parts, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.py*"))


def test_an_unknown_name_is_of_its_kind(tmp_path, parts):
    with pytest.raises(UnknownName):
        composed(tmp_path, parts, head="unet")
