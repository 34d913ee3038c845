"""Which of a run's weights are scored, and on what: checkpoints of random weights, counted again by hand."""

from __future__ import annotations

import json
from pathlib import Path

import by_hand
import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from torch import nn

import timm_models  # noqa: F401 - registers the models
from dynconv_plugins.study import hosts

OPTIONS = {"input_size": [3, by_hand.SIZE, by_hand.SIZE], "model_kwargs": {"channels": [4, 4, 4, 4]}}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
SAVED = {("last", "state_dict"): 1, ("last", "state_dict_ema"): 2}
SAVED |= {("model_best", "state_dict"): 3, ("model_best", "state_dict_ema"): 4}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("resnet18_odconv", num_classes=3, channels=(4, 4, 4, 4))


@pytest.fixture
def test_images(tmp_path: Path) -> Path:
    """``data/test/<class>/``, three classes of five images of noise."""
    rng = np.random.default_rng(0)
    for label in range(3):
        folder = tmp_path / "data" / "test" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (by_hand.SIZE, by_hand.SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "split.json").write_text(json.dumps({"words": {"class1": "one"}}))
    return tmp_path / "data" / "test"


def different(seed: int, images: Path) -> dict[str, torch.Tensor]:
    """Weights from a seed, that call the images by different names."""
    model = network(seed)
    _, logits = by_hand.classified(model, model.state_dict(), images, MEAN, STD)
    with torch.no_grad():
        model.fc.bias -= logits.mean(0)
        model.fc.weight *= 1 / logits.std(0).mean()
        model.fc.bias *= 1 / logits.std(0).mean()
    return model.state_dict()


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("early_stop", [0, 10])
def test_images_are_scored_with_the_weights_that_count(
    test_images: Path, tmp_path: Path, early_stop: int, averaged: bool
) -> None:
    """The best where the recipe stops early, else the last; the average where there is one."""
    weights = {key: different(seed, test_images) for key, seed in SAVED.items()}
    run = tmp_path / "cell" / "run"
    run.mkdir(parents=True)
    for number, name in enumerate(("last", "model_best")):
        parts = ("state_dict", "state_dict_ema")[: 1 + averaged]
        torch.save({"epoch": 7 - number, **{part: weights[name, part] for part in parts}}, run / f"{name}.pth.tar")
    words = {"early_stop": early_stop, "input_size": OPTIONS["input_size"], "mean": [*MEAN], "std": [*STD]}
    (run / "args.yaml").write_text(yaml.safe_dump({**words, "crop_pct": 1.0}))
    (run / "summary.csv").write_text("epoch,train_loss,eval_loss,eval_top1,lr\n0,1.5,1.25,50.0,0.1\n")
    record = {"network": "resnet18", "operator": "odconv", "recipe": "tiny_imagenet_study", "options": OPTIONS}
    record |= {"where": None, "arguments": {}, "data": {"classes": 3, "path": str(test_images.parent)}}
    (tmp_path / "cell" / "cell.json").write_text(json.dumps(record))

    metrics = hosts.get("timm").metrics(tmp_path / "cell", record)
    told = {}
    for key in weights:
        truth, logits = by_hand.classified(network(), weights[key], test_images, MEAN, STD)
        told[key] = (logits.argmax(1).numpy(), nn.functional.cross_entropy(logits, torch.from_numpy(truth)).item())
    wanted = ("model_best" if early_stop else "last", "state_dict_ema" if averaged else "state_dict")
    predicted, loss = told[wanted]
    assert all((found != predicted).any() for key, (found, _) in told.items() if key != wanted)
    found = np.load(tmp_path / "cell" / metrics["predictions"])
    assert found["truth"].tolist() == truth.tolist() and found["predicted"].tolist() == predicted.tolist()
    assert metrics["loss"] == pytest.approx(loss, rel=1e-4)
    assert metrics["score"] == pytest.approx((truth == predicted).mean())
    classes = [(predicted[truth == i] == i).mean() for i in range(3)]
    assert metrics["per_class"] == pytest.approx(dict(zip(("class0", "one", "class2"), classes, strict=True)))
    assert metrics["kept_epoch"] == (7 if early_stop else 8)
    assert metrics["curve"]["valid_score"] == [0.5] and metrics["curve"]["valid_loss"] == [1.25]


def test_segmentors_are_scored_with_the_best_else_the_last(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    for name in ("epoch_2.pth", "epoch_12.pth"):
        (run / name).touch()
    (run / "last_checkpoint").write_text("/where/it/was/run/epoch_12.pth\n")
    segmentation = hosts.get("mmseg")
    assert segmentation.kept(tmp_path) == run / "epoch_12.pth"
    (run / "best_mIoU_epoch_2.pth").touch()
    assert segmentation.kept(tmp_path) == run / "best_mIoU_epoch_2.pth"
