"""The shipped configs: complete, loadable, and static and dynamic twins alike but for what makes them dynamic."""

from __future__ import annotations

import functools
import sys

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

import dynconv_plugins as dc
import mmseg_configs
from dynconv_plugins.errors import UnknownName, run_cli
from mmseg_configs import __main__ as command_line
from mmseg_configs.writing import text, texts, write

HEADS = ("fpn", "deeplabv3plus")
NETWORKS = ("resnet18", *(f"resnet18-{operator}" for operator in dc.registry.names()))
DATA = ("voc12-512x512", "voc12-128x128", "voc12aug-512x512", "diatoms-64x64")
EVERYWHERE = ("resnet18", "resnet18-odconv", "resnet18-odconv4x")
PAIRS = [(network, data) for network in NETWORKS for data in (DATA if network in EVERYWHERE else DATA[:2])]
NAMES = [f"{head}_{network}_{data}" for head in HEADS for network, data in PAIRS]
# Which hooks an operator's training needs; a new one without a line here needs none.
HOOKS = {
    **dict.fromkeys(("dyconv", "odconv", "odconv4x", "a2d2c", "a2d2cplus", "localsoft"), "temperature"),
    "hard": "budget",
    "fdconv": "temperature",
}


def test_files_are_what_the_writer_makes_of_the_registry(tmp_path):
    folder = mmseg_configs.path(NAMES[0]).parent
    assert {path.name: path.read_text() for path in folder.glob("*-*.py")} == texts(), "python -m mmseg_configs write"
    (tmp_path / f"{NAMES[0]}.py").write_text("stale")
    assert len(write(tmp_path)) == len(NAMES) and write(tmp_path) == []
    assert (tmp_path / f"{NAMES[0]}.py").read_text() == texts()[f"{NAMES[0]}.py"]


@pytest.mark.parametrize("operator", dc.registry.names())
def test_an_operators_file_is_a_few_lines_on_one_base(operator):
    lines = [line for line in text("fpn", operator, "voc12-128x128").splitlines() if not line.startswith("#")]
    assert lines[0] == '_base_ = "./fpn_resnet18_voc12-128x128.py"' and len(lines) <= 3
    cfg = config(f"fpn_resnet18-{operator}_voc12-128x128")
    hooks = {"temperature": {"type": "TemperatureHook", "part": 0.1}, "budget": {"type": "BudgetHook"}}
    needed = HOOKS.get(operator)
    assert {name: cfg.default_hooks[name] for name in hooks if name in cfg.default_hooks} == (
        {needed: hooks[needed]} if needed else {}
    )


def test_names_and_paths(tmp_path):
    assert mmseg_configs.names() == sorted(NAMES)
    for name in NAMES:
        assert mmseg_configs.path(name) == mmseg_configs.path(f"{name}.py") and mmseg_configs.path(name).is_file()
    with pytest.raises(UnknownName, match="did you mean fpn_resnet18-odconv_diatoms-64x64"):
        mmseg_configs.path("fpn_resnet18-odconv_diatom-64x64")


def test_command_line(python, tmp_path, monkeypatch, capsys):
    path = python("mmseg_configs", "path", NAMES[0], cwd=tmp_path)
    assert path.returncode == 0 and path.stdout == f"{mmseg_configs.path(NAMES[0])}\n"

    def here(*words):
        monkeypatch.setattr(sys, "argv", ["mmseg_configs", *words])
        with pytest.raises(SystemExit) as ended:
            run_cli(command_line.main)
        return ended.value.code, *capsys.readouterr()

    code, out, _ = here("list")
    assert code == 0 and out.split() == sorted(NAMES)
    code, out, err = here("path", "nonsense")
    assert code == 2 and not out
    assert err.startswith("error: unknown config 'nonsense'") and err.count("\n") == 1


@functools.cache
def config(name: str) -> Config:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNCONV_DATA", "some/where")
        return Config.fromfile(mmseg_configs.path(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_complete(name):
    cfg = config(name)
    size = int(name.rpartition("x")[2])
    assert tuple(cfg.model.data_preprocessor.size) == (size, size)
    assert cfg.val_dataloader.dataset.data_root == "some/where/VOCdevkit/VOC2012"
    assert cfg.custom_imports.imports == ["mmseg_configs.register"] and cfg.randomness.seed == 0
    assert cfg.val_evaluator == cfg.test_evaluator == dict(type="IoUMetric", iou_metrics=["mIoU"])
    assert cfg.default_hooks.checkpoint.save_best == "mIoU"
    said = str(cfg.to_dict())
    assert "SyncBN" not in said and "http" not in said
    iters = cfg.train_cfg.max_iters
    assert iters == cfg.param_scheduler[0]["end"] and iters % cfg.train_cfg.val_interval == 0
    if "512" in name:
        assert iters == 20_000
    operator = name.split("_")[1].partition("-")[2]
    if HOOKS.get(operator) == "temperature":
        assert cfg.default_hooks.temperature == dict(type="TemperatureHook", part=0.1)
    parts = cfg.train_dataloader.dataset.get("datasets", [cfg.train_dataloader.dataset])
    masks = [part.data_prefix.seg_map_path for part in parts]
    assert masks == ["SegmentationClass"] + ["SegmentationClassAug"] * ("aug" in name)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("head", HEADS)
def test_twins_differ_in_nothing_else(head, data):
    networks = [network for network, d in PAIRS if d == data]
    configs = [config(f"{head}_{network}_{data}").to_dict() for network in networks]
    for cfg, network in zip(configs, networks, strict=True):
        assert cfg["model"]["backbone"].pop("model_name") == network.replace("-", "_")
        cfg["default_hooks"].pop(HOOKS.get(network.partition("-")[2]), None)
    assert all(cfg == configs[0] for cfg in configs[1:])


def test_data_root_without_the_variable(monkeypatch):
    monkeypatch.delenv("DYNCONV_DATA", raising=False)
    roots = [Config.fromfile(mmseg_configs.path(f"fpn_resnet18_{data}")) for data in DATA]
    roots = [(c.train_dataloader.dataset.get("datasets") or [c.train_dataloader.dataset])[-1].data_root for c in roots]
    assert roots == ["data/VOCdevkit/VOC2012"] * 3 + ["data/diatoms/VOCdevkit/VOC2012"]


@pytest.mark.parametrize("network", EVERYWHERE)
@pytest.mark.parametrize("head", HEADS)
def test_models_build_and_segment(head, network):
    cfg = Config.fromfile(mmseg_configs.path(f"{head}_{network}_diatoms-64x64"))
    model = MODELS.build(cfg.model).eval()
    assert len(dc.operators_in(model)) == (0 if network == "resnet18" else 16)
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 64, 64), mode="tensor")
    assert logits.shape == (1, 21, 16, 16)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("head", HEADS)
def test_time_augmented_testing_is_configured(head, data):
    cfg = Config.fromfile(mmseg_configs.path(f"{head}_resnet18_{data}"))
    resizes = cfg.tta_pipeline[1]["transforms"][0]
    assert len(resizes) == 6 and resizes.count(cfg.test_pipeline[1]) == 1, "sizes around that of the plain test"
    cfg.tta_model.module = cfg.model
    assert MODELS.build(cfg.tta_model).module.backbone.channels == [64, 128, 256, 512]
