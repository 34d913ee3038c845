"""Bad input ends in one line that says what to do, before anything is written."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from training import DYNAMIC, SMALL, fails, make_folder

from dynconv_plugins.errors import UserError
from timm_models.train.args import parse, recipes
from timm_models.train.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), train=4, val=2)


def complaint(*args: object) -> str:
    with pytest.raises(UserError) as caught:
        main([*map(str, args)])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--epoch", 3), "unknown flag '--epoch'; did you mean --epochs"),
        (("--lr", "fast"), "--lr: invalid float value: 'fast'"),
        (("--model-kwargs", "small_stem"), "key=value"),
        (("--model", "resnet18_odcnv"), "unknown model 'resnet18_odcnv'; did you mean resnet18_odconv"),
        ((*DYNAMIC, "num_kernel=2"), "num_kernel"),
        ((*DYNAMIC, "where=block"), "unknown placement 'block'"),
        (("--mixup", 0.2, "--batch-size", 3), "even --batch-size"),
        (("--batch-size", 0), "--batch-size must be at least 1"),
        (("--batch-size", 999), "12 images, less than one batch of 999"),
        (("--num-classes", 2), "has 3 classes"),
        (("--device", "cpux"), "not a device of torch"),
        (("--opt", "sgdd"), "--opt sgdd"),
        (("--sched", "cosin"), "--sched cosin"),
        (("--aa", "nonsense"), "augmentation flags"),
        (("--resume", "nowhere.pth.tar"), "no checkpoint nowhere.pth.tar"),
        (("--initial-checkpoint", "nowhere.pth.tar"), "checkpoint nowhere.pth.tar does not exist"),
        (("--temperature-start", 0), "--temperature-start must be positive"),
        (("--temperature-start", "inf"), "--temperature-start must be positive, and finite, not inf"),
        (("--temperature-end", -1), "--temperature-end must be positive"),
        (("--seed", 2**32), "--seed must be below"),
        (("--temperature-epochs", -1), "--temperature-epochs must not be negative"),
        (("--start-epoch", -1), "--start-epoch must not be negative"),
        (("--config", "tiny_imagenet_46"), "did you mean tiny_imagenet_64"),
        (("--mean", 0.5, 0.5), "--mean and --std"),
        (("--scale", 0.5), "--scale: expected 2 arguments"),
        (("--ratio", 1.5, 0.5), "--ratio takes a smaller and a larger number above 0, not 1.5 0.5"),
        (("--cutmix-minmax", 0.2), "--cutmix-minmax: expected 2 arguments"),
        (("--cutmix-minmax", 0.8, 0.2), "--cutmix-minmax takes a smaller and a larger share"),
        (("--interpolation", "foo"), "--interpolation: invalid choice: 'foo'"),
        (("--validation-batch-size", -1), "--validation-batch-size must be at least 1, not -1"),
        (("--smoothing", 2), "--smoothing must be at least 0 and below 1, not 2.0"),
        (("--drop", 2), "--drop must be at least 0 and below 1"),
        (("--drop-path", 2), "--drop-path must be at least 0 and below 1"),
        (("--hflip", 2), "--hflip must be between 0 and 1"),
        (("--crop-pct", -1), "--crop-pct must be positive"),
        (("--input-size", 3, 0, 0), "--input-size must be channels, height and width, not 3 0 0"),
        (("--sched", "step", "--decay-epochs", 0), "--decay-epochs must be positive"),
        (("--opt", "adamw", "--opt-betas", 0.9), "--opt adamw takes more than 1 --opt-betas"),
        (("--model", "dla46_c", "--grad-checkpointing"), "dla46_c cannot recompute activations"),
        (("--device-modules", "no_such_module"), "--device-modules no_such_module: No module named"),
        (("--torchcompile", "foo"), "--torchcompile foo: Invalid backend"),
        ((*DYNAMIC, "features_only=True"), "leave features_only out of --model-kwargs"),
        (("--in-chans", 1, "--input-size", 3, 32, 32), "--in-chans 1, but --input-size has 3 channels"),
        (("--in-chans", 2), "images of 2 channels: say which with --input-img-mode"),
        (("--in-chans", 4, "--input-img-mode", "RGB"), "--input-img-mode RGB has 3 channels, not 4: give --in-chans 3"),
        (("--input-img-mode", "grey"), "--input-img-mode grey is not a mode of PIL's"),
        (("--pretrained-path", "nowhere.pth"), "checkpoint nowhere.pth does not exist"),
    ],
)
def test_flags(folder: Path, tmp_path: Path, flags: tuple, said: str) -> None:
    model = () if "--model" in flags else ("--model", "resnet10t")
    assert said in complaint(folder, *model, *SMALL, "--output", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", "unknown key 'epoch'; did you mean epochs"),
        ("epochs: many", "epochs must be of type int, not 'many'"),
        ("epochs:", "epochs has no value"),
        ("mixup: null", "mixup has no value"),
        ("opt:", "opt has no value"),
        ("model_kwargs:", "model_kwargs has no value"),
        ("model:", "model has no value"),
        ("lr: [1, 2]", "lr takes one value"),
        ("scale: 0.5", "scale takes 2 values"),
        ("lr_noise: 0.5", "lr_noise takes a list"),
        ("input_size: [3, 64]", "input_size takes 3 values"),
        ("amp: 1", "amp must be true or false"),
        ("eval_metric: accuracy", "must be one of 'top1'"),
        ("model_kwargs: small_stem", "takes a mapping"),
        ("- 1", "must hold 'flag: value' lines"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_config_file(folder: Path, tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert said in complaint(folder, "-c", config)


def test_command_line_overrides_yaml_overrides_defaults(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("lr: 1e-3\nbatch-size: 16\nmodel_ema: true\nepochs: 7\ncolor_jitter: null\nscale: [0.5, 1]")
    args = parse(["data", "-c", str(config), "--epochs", "9", "--no-model-ema"])
    assert (args.lr, args.batch_size, args.epochs, args.model_ema) == (1e-3, 16, 9, False)
    assert args.scale == [0.5, 1.0] and args.color_jitter is None and args.momentum == 0.9
    assert args.data_dir == "data"


def test_recipes_are_found_by_name() -> None:
    assert recipes() == ["tiny_imagenet_64", "tiny_imagenet_study"]
    study = parse(["data", "-c", "tiny_imagenet_study"])
    assert (study.opt, study.lr, study.batch_size, study.epochs, study.drop) == ("adam", 1e-3, 32, 30, 0.2)
    assert (study.sched, study.decay_rate, study.patience_epochs, study.min_lr) == ("plateau", 0.1, 4, 1e-6)
    assert (study.eval_metric, study.early_stop, study.rotate, study.zoom) == ("loss", 10, 15, 0.2)
    small = parse(["data", "-c", "tiny_imagenet_64"])
    assert small.input_size == [3, 64, 64] and small.model_kwargs == {"small_stem": True} and small.model_ema


def test_data_folders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--model", "resnet10t", *SMALL, "--output", tmp_path / "out")
    assert "no data:" in complaint(*flags)
    assert "no data folder" in complaint(tmp_path / "missing", *flags)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "cannot open split 'train' of hfds/foo: " in complaint(folder, *flags, "--dataset", "hfds/foo")
    (tmp_path / "empty").mkdir()
    assert "no images for split 'train'" in complaint(tmp_path / "empty", *flags)
    shutil.copytree(folder / "train", tmp_path / "flat" / "train")
    assert "no folder of its own for the split 'validation'" in complaint(tmp_path / "flat", *flags)
    shutil.copytree(folder / "val", tmp_path / "other" / "val")
    assert "no folder of its own for the split 'train'" in complaint(tmp_path / "other", *flags)
    (tmp_path / "flat" / "val").mkdir()
    assert "no images for split 'validation'" in complaint(tmp_path / "flat", *flags)
    shutil.copytree(folder / "val" / "class0", tmp_path / "flat" / "val" / "classX")
    assert "lacks: classX" in complaint(tmp_path / "flat", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_unorganised_tiny_imagenet(folder: Path, tmp_path: Path, split: str) -> None:
    root = tmp_path / "tiny-imagenet-200"
    shutil.copytree(folder, root)
    if split == "train":
        for label in (root / "train").iterdir():
            shutil.move(label, root / "moved")
            shutil.move(root / "moved", label / "images")
    else:
        shutil.rmtree(root / "val")
        shutil.copytree(folder / "val" / "class0", root / "val" / "images")
    said = complaint(root, "--model", "resnet10t", *SMALL)
    assert f"dynconv data tiny-imagenet {root} --out DIR" in said


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_image(folder: Path, tmp_path: Path, workers: int) -> None:
    root = tmp_path / "data"
    shutil.copytree(folder, root)
    bad = root / "train" / "class1" / "0.jpg"
    bad.write_bytes(bad.read_bytes()[:400])
    flags = (*DYNAMIC, *SMALL, "--batch-size", 4, "--output", tmp_path / "out", "--epochs", 1, "--workers", workers)
    said = fails(root, *flags)
    assert f"cannot read {bad}: " in said and "truncated" in said


def test_broken_link(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(folder, root)
    bad = root / "val" / "class1" / "0.jpg"
    bad.unlink()
    bad.symlink_to(tmp_path / "gone.jpg")
    assert f"cannot read {bad}: " in complaint(root, *DYNAMIC, *SMALL, "--output", tmp_path / "out", "--epochs", 1)


def test_diverging_loss(folder: Path, tmp_path: Path) -> None:
    flags = (*DYNAMIC, *SMALL, "--lr", 1e30, "--epochs", 3, "--batch-size", 4, "--output", tmp_path / "out")
    assert "the loss became nan in epoch 0" in complaint(folder, *flags)
