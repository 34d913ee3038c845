"""Where a run begins: with weights from elsewhere, at their temperature, in a later epoch."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.task import ClassificationTask
from torch import nn
from training import DYNAMIC, SMALL, load, make_folder, summary

import dynconv_plugins as dc
import timm_models  # noqa: F401 - registers the models
from dynconv_plugins.cli import run as dynconv
from dynconv_plugins.errors import UserError
from dynconv_plugins.temperature import came_trained
from timm_models.train.args import parse
from timm_models.train.build import make_model, make_temperature
from timm_models.train.epochs import _finish_training
from timm_models.train.restore import _restore_schedule
from timm_models.train.state import Progress
from timm_models.train.world import World

NETWORK = {"num_classes": 3, "small_stem": True, "channels": (8, 16, 16, 32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), train=4, val=2)


def train(folder: Path, out: Path, *args: object) -> list[dict[str, str]]:
    return summary(folder, out, "--batch-size", 4, *args)


def static_weights(path: Path) -> Path:
    """What a trainer saved of the static twin."""
    torch.manual_seed(0)
    torch.save({"state_dict": timm.create_model("resnet18_static", **NETWORK).state_dict()}, path)
    return path


def converted(source: Path, out: Path) -> Path:
    """What ``dynconv convert`` makes of `source`."""
    kwargs = ("num_classes=3", *DYNAMIC[3:])
    assert not dynconv(["convert", str(source), "--model", DYNAMIC[1], "--model-kwargs", *kwargs, "--out", str(out)])
    return out


def test_from_a_converted_file_and_from_bare_weights(folder: Path, tmp_path: Path) -> None:
    file = converted(static_weights(tmp_path / "static.pth"), tmp_path / "converted.safetensors")
    source = load(tmp_path / "static.pth")["state_dict"]
    bare = tmp_path / "bare.pth"
    rows = train(folder, tmp_path / "a", "--epochs", 1, "--lr", 1e-30, "--initial-checkpoint", file)
    weights = load(tmp_path / "a" / "x" / "last.pth.tar")["state_dict"]
    assert len(rows) == 1 and torch.equal(weights["conv1.weight"], source["conv1.weight"])
    torch.save(weights, bare)
    args = parse([str(folder), *map(str, (*DYNAMIC, *SMALL)), "--initial-checkpoint", str(bare)])
    assert torch.equal(make_model(args, 3).conv1.weight, source["conv1.weight"])


def test_a_damaged_file_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="bad.safetensors cannot be read as weights") as caught:
        train(folder, tmp_path / "out", "--initial-checkpoint", tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flag", ["--initial-checkpoint", "--pretrained-path"])
def test_weights_without_attention_are_refused(tmp_path: Path, flag: str) -> None:
    static = static_weights(tmp_path / "static.pth")
    source = load(static)["state_dict"]
    torch.save({k: v for k, v in source.items() if not k.startswith("layer3.0.bn1")}, tmp_path / "part.pth")
    converted(static, tmp_path / "whole.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")

    def made(model: str, name: str, *more: str) -> nn.Module:
        words = ("data", "--model", model, *DYNAMIC[2:], *more, flag, tmp_path / name)
        return make_model(parse([*map(str, words)]), 5 if flag == "--pretrained-path" else 3)

    none = [
        (
            name,
            "static.pth",
            f"has no attention: start.*--pretrained-path.*'dynconv convert {static} --model {name} --out",
        )
        for name in ("resnet18_odconv", "resnet18_odconv4x")
    ]
    if flag == "--pretrained-path":  # its weights start the dynamic network
        for name, *_ in none:
            model, network = made(name, "static.pth").eval(), timm.create_model("resnet18_static", **NETWORK)
            network.load_state_dict(source)
            x = torch.randn(2, 3, 64, 64)
            torch.testing.assert_close(
                model.forward_features(x), network.eval().forward_features(x), rtol=1e-4, atol=1e-4
            )
            assert not any(map(came_trained, dc.operators_in(model).values())), "so that its attention anneals"
        none = []
    for model, name, said in (
        *none,
        ("resnet18_odconv", "part.pth", "does not fit resnet18_odconv: "),
        (
            "resnet18_static",
            "part.pth",
            r"4 tensors missing \(first: layer3.0.bn1.weight\)",
        ),
        ("resnet18_odconv", "bad.pth", "bad.pth is damaged"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            made(model, name)
        assert "\n" not in str(caught.value)
    for words in (("resnet18_odconv", "whole.safetensors", "anneal_steps=5"), ("resnet18_orconv", "static.pth")):
        model = made(*words)
        assert torch.equal(model.conv1.weight, source["conv1.weight"])


@pytest.mark.parametrize("flag", ["--initial-checkpoint", "--pretrained-path"])
def test_trained_attention_keeps_its_temperature(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, flag: str
) -> None:
    caplog.set_level(logging.INFO, "train")
    train(folder, tmp_path / "first", "--epochs", 2)
    last = tmp_path / "first" / "x" / "last.pth.tar"
    said = "trained attention keeps its temperature, 1; --temperature-epochs N would anneal it"
    assert said not in caplog.messages
    train(folder, tmp_path / "second", "--epochs", 4, flag, last)
    assert caplog.messages.count(said) == 1
    recorded = load(tmp_path / "second" / "x" / "checkpoint-0.pth.tar")["state_dict"]
    assert {v.item() for k, v in recorded.items() if k.endswith("temperature")} == {1.0}

    def schedule(*flags: object) -> dc.LinearTemperature | None:
        args = parse([str(folder), *map(str, (*DYNAMIC, *SMALL, *flags))])
        return make_temperature(args, make_model(args, 3))

    assert schedule("--epochs", 4) == dc.LinearTemperature(30.0, 1.0, 2.0)
    assert schedule("--epochs", 4, flag, last) is None
    assert schedule("--epochs", 4, flag, last, "--temperature-epochs", 3) == dc.LinearTemperature(30.0, 1.0, 3.0)
    assert schedule("--epochs", 4, "--temperature-epochs", 0) is None
    file = converted(static_weights(tmp_path / "static.pth"), tmp_path / "converted.safetensors")
    assert schedule("--epochs", 4, flag, file) == dc.LinearTemperature(30.0, 1.0, 2.0), "it has yet to learn"


@pytest.mark.parametrize("operator", ["dyconv", "odconv4x", "a2d2c", "localsoft", "fdconv"])
def test_converted_attention_anneals_whatever_the_operator(tmp_path: Path, operator: str) -> None:
    weights = load(static_weights(tmp_path / "static.pth"))
    model = timm.create_model(f"resnet18_{operator}", **NETWORK)
    model.load_state_dict(dc.convert_checkpoint(weights, model))
    args = parse(["data", "--initial-checkpoint", "converted.safetensors"])
    assert make_temperature(args, model) == dc.LinearTemperature()
    for op in dc.operators_in(model).values():
        for parameter in op.parameters():
            nn.init.normal_(parameter)
    assert make_temperature(args, model) is None


def test_a_later_first_epoch(folder: Path, tmp_path: Path) -> None:
    flags = ("--epochs", 4, "--temperature-epochs", 4, "--lr", 0.02)
    whole = train(folder, tmp_path / "whole", *flags)
    later = train(folder, tmp_path / "later", *flags, "--start-epoch", 2)
    assert [row["epoch"] for row in later] == ["2", "3"]
    assert [row["lr"] for row in later] == [row["lr"] for row in whole[2:]]
    on_updates = train(folder, tmp_path / "updates", *flags, "--start-epoch", 3, "--sched-on-updates")
    assert [row["epoch"] for row in on_updates] == ["3"] and float(on_updates[0]["lr"]) < float(whole[2]["lr"])
    temperatures = (load(tmp_path / name / "x" / "checkpoint-2.pth.tar")["state_dict"] for name in ("whole", "later"))
    assert len({v.item() for state in temperatures for k, v in state.items() if k.endswith("temperature")}) == 1


def test_an_average_on_the_cpu_is_not_exchanged() -> None:
    """As in timm. This group exchanges nothing on the CPU, as one of GPUs, for whose device ``meta`` stands."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    task = ClassificationTask(model, nn.CrossEntropyLoss(), device=torch.device("cpu"), verbose=False)
    task.setup_ema(decay=0.5)
    args = SimpleNamespace(dist_bn="reduce", model_ema_force_cpu=True)
    world = World(torch.device("cpu"), 0, 2)
    job = SimpleNamespace(args=args, world=world, model=model.to("meta"), task=task, temperature=None)
    torch.distributed.init_process_group("cuda:gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        _finish_training(job)
        args.model_ema_force_cpu = False
        with pytest.raises(RuntimeError, match="cpu"):
            _finish_training(job)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_first_epoch_that_goes_on_has_the_rate_it_had(epoch: int) -> None:
    """Nobody has stepped the schedule before the first epoch ends; noise would change its rate."""
    stepped = []
    scheduler = SimpleNamespace(step=stepped.append)
    job = SimpleNamespace(
        progress=Progress(epoch=epoch, batch=1), scheduler=scheduler, args=SimpleNamespace(sched_on_updates=False)
    )
    _restore_schedule(job, fresh=False)
    assert stepped == [2] * (epoch > 0)
