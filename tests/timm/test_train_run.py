"""What a run does: loaders, schedules, temperature, averaging, records."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.utils import NativeScaler
from training import DYNAMIC, SMALL, load, make_folder, summary

import dynconv_plugins as dc
from dynconv_plugins.datasets import diatoms, tiny_imagenet
from timm_models.train import data
from timm_models.train.args import parse
from timm_models.train.budgets import match_scale
from timm_models.train.cli import main
from timm_models.train.job import Job
from timm_models.train.state import Progress
from timm_models.train.world import World

CONFIG = {
    "input_size": (3, 32, 32),
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "crop_pct": 1.0,
    "crop_mode": "center",
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), train=8, val=2)


def train(folder: Path, out: Path, *args: object) -> list[dict[str, str]]:
    return summary(folder, out, "--lr", 0.05, *args)


def loader(folder: Path, *flags: object, world: World | None = None) -> object:
    args = parse([*map(str, (folder, *SMALL, *flags))])
    return data.make_train_loader(data.open_datasets(args, 3)[0], args, CONFIG, world or World(CPU), 3)


def batches(loader: object, epoch: int, batch: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    data.start_epoch(loader, epoch, batch, 8)
    return [(images.clone(), targets.clone()) for images, targets in loader]


AUGMENT = ("--mixup", 0.4, "--cutmix", 1.0, "--reprob", 0.5, "--aa", "rand-m5-inc1", "--rotate", 15, "--zoom", 0.2)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_starts_anywhere_with_the_same_batches(folder: Path, workers: int) -> None:
    whole = batches(loader(folder, *AUGMENT), epoch=3)
    assert len(whole) == 3
    other = loader(folder, *AUGMENT, "--workers", workers)
    batches(other, epoch=1)
    torch.manual_seed(123)
    for start in (0, 2):
        for (a, x), (b, y) in zip(whole[start:], batches(other, 3, start), strict=True):
            assert torch.equal(a, b) and torch.equal(x, y)
    assert not torch.equal(whole[0][0], batches(other, 4)[0][0])
    del other


def test_ranks_share_an_epoch(folder: Path) -> None:
    flags = ("--no-aug", "--smoothing", 0)
    together = torch.cat([images for images, _ in batches(loader(folder, *flags, "--batch-size", 8), 0)])
    apart = [
        torch.cat(
            [images for images, _ in batches(loader(folder, *flags, "--batch-size", 4, world=World(CPU, r, 2)), 0)]
        )
        for r in range(2)
    ]
    assert torch.equal(torch.stack(apart, 1).flatten(0, 1), together)


def test_mixing_stops_in_persistent_workers(folder: Path) -> None:
    mixed = loader(folder, "--mixup", 1.0, "--mixup-off-epoch", 1, "--smoothing", 0, "--workers", 1)
    assert any(((y > 0) & (y < 1)).any() for _, y in batches(mixed, 0))
    assert all(((y == 0) | (y == 1)).all() for _, y in batches(mixed, 1))


def test_class_without_validation_images_does_not_shift_the_others(folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(folder, tmp_path / "data"))
    shutil.rmtree(root / "val" / "class0")
    _, val = data.open_datasets(parse([str(root)]), 3)
    assert data.class_names(val) == {"class0": 0, "class1": 1, "class2": 2}
    assert sorted({target for _, target in val.reader.samples}) == [1, 2]


def test_a_run_learns_and_records(folder: Path, tmp_path: Path) -> None:
    rows = train(
        folder, tmp_path, "--epochs", 6, "--model-ema", "--model-ema-decay", 0.5, "--temperature-epochs", 4,
        "--log-tensorboard", "--amp", "--amp-dtype", "bfloat16", "--clip-grad", 5, "--clip-mode", "agc",
        "--validation-batch-size", 4,
    )  # fmt: skip
    assert list(rows[0]) == ["epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr"]
    assert [int(row["epoch"]) for row in rows] == list(range(6))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[0]["lr"]) > float(rows[-1]["lr"])
    out = tmp_path / "x"
    assert list(out.glob("events.out.tfevents*"))
    best = max(rows[4:], key=lambda row: float(row["eval_top1"]))  # before, the temperature falls
    best_state = load(out / "model_best.pth.tar")
    assert (best_state["epoch"], best_state["metric"]) == (int(best["epoch"]), float(best["eval_top1"]))
    assert "metric" not in load(out / "checkpoint-3.pth.tar")

    # halfway through epoch 0 of 4 it is not yet 1; after epoch 3 it is, on the average too
    def temperatures(name: str, key: str) -> set[float]:
        state = load(out / name)[key]
        return {v.item() for k, v in state.items() if k.endswith("temperature")}

    assert temperatures("checkpoint-0.pth.tar", "state_dict") == {30 - 29 / 4}
    for key in ("state_dict", "state_dict_ema"):
        assert temperatures("last.pth.tar", key) == {1.0}

    # what is recorded is of the average, and of every validation image once
    recorded = [float(rows[-1][f"eval_{name}"]) for name in ("loss", "top1", "top5")]
    last = load(out / "last.pth.tar")
    assert recorded == pytest.approx(validated(last["state_dict_ema"], folder / "val"), rel=1e-3)
    assert recorded[0] != pytest.approx(validated(last["state_dict"], folder / "val")[0], rel=5e-3)


@torch.inference_mode()
def validated(state: dict[str, torch.Tensor], folder: Path) -> list[float]:
    """Loss, top-1 and top-5 in per cent of `DYNAMIC` in bfloat16, one image at a time."""
    model = timm.create_model(DYNAMIC[1], num_classes=3, small_stem=True, channels=(8, 16, 16, 32)).eval()
    model.load_state_dict(state)
    config = timm.data.resolve_data_config({"input_size": (3, 32, 32)}, model=model)
    images = timm.data.ImageDataset(str(folder), transform=timm.data.create_transform(**config))
    sums = torch.zeros(3, dtype=torch.float64)
    for image, target in images:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(image[None])[0].double()
        place = (logits > logits[target]).sum()
        sums += torch.stack([-logits.log_softmax(0)[target], 100.0 * (place < 1), 100.0 * (place < 5)])
    return (sums / len(images)).tolist()


def test_the_budget_is_trained_with_and_recorded(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = train(
        folder, tmp_path, "--model", "resnet18_hard", *DYNAMIC[2:], "ramp=0", "--epochs", 4, "--grad-accum-steps", 2,
        "--log-interval", 1,
    )  # fmt: skip
    assert list(rows[0]) == [
        "epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr", "mask_rate", "budget_loss"
    ]  # fmt: skip
    rates = [float(row["mask_rate"]) for row in rows]
    assert all(0 <= rate <= 1 for rate in rates) and min(rates) < 1
    history = load(tmp_path / "x" / "last.pth.tar")["trainer"]["history"]
    assert [row["budget"]["mask_rate"] for row in history] == rates
    said = [line for line in caplog.messages if line.startswith("hard: ")]
    assert [line.split()[3] for line in said] == [f"{rate:.3f}," for rate in rates]
    assert sum("mask_rate" in line for line in caplog.messages) == 4 * 2
    rows = train(folder, tmp_path / "none", "--model", "resnet18_hard", *DYNAMIC[2:], "--epochs", 1, "--val-split", "")
    assert list(rows[0])[-2:] == ["mask_rate", "budget_loss"]


@pytest.mark.parametrize("batches_per_update", [1, 3])
def test_the_budget_is_scaled_like_the_loss(batches_per_update: int) -> None:
    conv = dc.Hard2d(4, 8, 3, padding=1, ramp=0)
    x = torch.randn(2, 4, 6, 6)

    def gradients(scaler: NativeScaler | None) -> list[torch.Tensor]:
        optimizer = torch.optim.SGD(conv.parameters(), lr=0.0)
        optimizer.zero_grad()
        for number in range(batches_per_update):
            match_scale(conv, scaler, batches_per_update)
            loss = conv(x).square().mean() / batches_per_update
            if scaler is None:
                loss.backward()
            else:
                scaler(loss, optimizer, need_update=number + 1 == batches_per_update)
        return [p.grad.clone() for p in conv.parameters()]  # a scaler's step has unscaled them

    budget = conv.attention.budget
    conv(x).square().mean().backward()
    expected = [p.grad.clone() for p in conv.parameters()]
    torch.testing.assert_close(gradients(None), expected)
    assert budget.loss_scale == 1 / batches_per_update
    torch.testing.assert_close(gradients(NativeScaler("cpu")), expected)
    assert budget.loss_scale == 2**16 / batches_per_update


@pytest.mark.parametrize(("model", "first"), [("resnet18_static", 0), ("resnet18_odconv", 4)])
def test_plateau_and_early_stopping(folder: Path, tmp_path: Path, model: str, first: int) -> None:
    # Too high a rate: the validation loss goes up and down. What follows from it is worked out again here.
    rows = train(
        folder, tmp_path, "--model", model, "--temperature-epochs", 3.5, "--epochs", 20, "--lr", 0.5,
        "--min-lr", 0.004, "--sched", "plateau", "--patience-epochs", 0, "--decay-rate", 0.5,
        "--eval-metric", "loss", "--early-stop", 3,
    )  # fmt: skip
    losses = [float(row["eval_loss"]) for row in rows]
    lr, best, rates = 0.5, float("inf"), []
    for epoch, loss in enumerate(losses):
        rates.append(lr)
        if epoch < first:
            continue  # the temperature falls
        if loss < best * (1 - 1e-4):
            best = loss
        else:
            lr = max(lr / 2, 0.004)
    assert [float(row["lr"]) for row in rows] == pytest.approx(rates)
    assert rates[-1] < rates[0]
    losses = losses[first:]
    stale = [len(losses[:n]) - 1 - losses.index(min(losses[:n])) for n in range(1, len(losses) + 1)]
    assert all(s < 3 for s in stale[:-1]) and (stale[-1] == 3 or len(rows) == 20)
    best_state = load(tmp_path / "x" / "model_best.pth.tar")
    assert (best_state["epoch"], best_state["metric"]) == (first + losses.index(min(losses)), min(losses))


def test_patience_counts_from_the_first_best() -> None:
    history = [{"epoch": n, "train": {"loss": 1.0}, "eval": {"loss": x}} for n, x in enumerate([3.0, 1.0, 2.0, 1.0])]
    progress = Progress(history=history)
    assert progress.best("loss")["epoch"] == 1 and progress.stale("loss") == 2
    assert Progress().stale("loss") == 0
    for name, values in (("loss", [math.nan, 2.0, 1.0]), ("top1", [math.nan, 1.0, 2.0])):
        history = [{"epoch": n, "train": {"loss": 1.0}, "eval": {name: x}} for n, x in enumerate(values)]
        assert Progress(history=history).best(name)["epoch"] == 2 and Progress(history=history).stale(name) == 0
    assert progress.best("loss", 2)["epoch"] == 3 and progress.stale("loss", 2) == 0 and progress.stale("loss", 4) == 0


@pytest.mark.parametrize(
    ("schedule", "anneal_steps", "first"),
    [(None, 0, 0), (dc.LinearTemperature(epochs=2.5), 0, 3), (dc.LinearTemperature(), 0, 7), (None, 9, 3)],
)
def test_the_metric_counts_once_the_temperature_is_down(
    schedule: dc.LinearTemperature | None, anneal_steps: int, first: int
) -> None:
    model = dc.dynamize(torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3)), "odconv", "all")
    if anneal_steps:
        dc.anneal(model, steps=anneal_steps)
    job = SimpleNamespace(
        temperature=schedule, model=model, train_loader=range(4), args=SimpleNamespace(total_epochs=8)
    )
    assert Job.first_watched.fget(job) == first


def test_epochs_between_validations_and_none_at_all(folder: Path, tmp_path: Path) -> None:
    rows = train(folder, tmp_path / "a", "--epochs", 3, "--val-interval", 2)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    rows = train(folder / "train", tmp_path / "b", "--epochs", 1, "--val-split", "")
    assert list(rows[0]) == ["epoch", "train_loss", "lr"]
    assert (tmp_path / "b" / "x" / "model_best.pth.tar").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--in-chans", 1),
        ("--input-size", 1, 32, 32, "--no-prefetcher", "--rotate", 5),
        ("--in-chans", 4, "--input-img-mode", "CMYK"),
    ],
)
def test_images_of_other_channels(folder: Path, tmp_path: Path, flags: tuple) -> None:
    train(folder, tmp_path, "--epochs", 1, *flags)
    channels = flags[1]
    assert load(tmp_path / "x" / "last.pth.tar")["state_dict"]["conv1.weight"].shape[1] == channels


def test_compiled_and_channels_last(folder: Path, tmp_path: Path) -> None:
    plain = train(folder, tmp_path / "plain", "--epochs", 1)
    other = train(folder, tmp_path / "other", "--epochs", 1, "--torchcompile", "eager", "--channels-last")
    assert float(other[0]["train_loss"]) == pytest.approx(float(plain[0]["train_loss"]), rel=1e-3)
    states = [load(tmp_path / name / "x" / "last.pth.tar")["state_dict"] for name in ("plain", "other")]
    assert states[0].keys() == states[1].keys()


@pytest.mark.parametrize("recipe", ["tiny_imagenet_64", "tiny_imagenet_study"])
def test_recipes_run_on_prepared_tiny_imagenet(tmp_path: Path, recipe: str) -> None:
    made = diatoms.make(tmp_path / "made", classes=2, train=8, test=4)
    folder = tiny_imagenet.prepare(made / "tiny-imagenet-200", tmp_path / "prepared")
    small = ("--model-kwargs", "small_stem=True", "channels=(8,8,8,8)", "--batch-size", 8, "--workers", 0)
    size = ("--epochs", 1, "--input-size", 3, 32, 32, "--device", "cpu")
    flags = (folder, "-c", recipe, *small, *size, "--output", tmp_path / "out", "--experiment", "x")
    assert main([*map(str, flags)]) == 0
    state = load(tmp_path / "out" / "x" / "last.pth.tar")
    assert state["arch"] == "resnet18_odconv" and state["args"]["num_classes"] == 2
