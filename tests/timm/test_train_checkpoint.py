"""Checkpoints: whole or not there, readable by timm without unpickling, and survived by the run."""

from __future__ import annotations

import logging
import resource
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from training import DYNAMIC, SMALL, assert_same_run, command, environment, load, make_folder

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError
from dynconv_plugins.locking import sole
from timm_models.train.checkpoint import write
from timm_models.train.cli import main
from timm_models.train.resume import find, load_weights, place

FLAGS = (*DYNAMIC, *SMALL, "--batch-size", 4, "--epochs", 3, "--lr", 0.02, "--model-ema", "--recovery-interval", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), train=4, val=2)


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    train(folder, "--output", out, "--experiment", "whole")
    return out / "whole"


def train(folder: Path, *args: object) -> None:
    assert main([*map(str, (folder, *FLAGS, *args))]) == 0


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_timm_reads_them(finished: Path) -> None:
    path = finished / "model_best.pth.tar"
    state = load(path)
    assert state["arch"] == "resnet18_odconv" and state["args"]["lr"] == 0.02
    assert {"epoch", "version", "optimizer", "state_dict", "state_dict_ema", "metric"} <= state.keys()
    model = timm.create_model(
        "resnet18_odconv", num_classes=3, small_stem=True, channels=(8, 16, 16, 32), checkpoint_path=str(path)
    )
    # timm prefers the average
    torch.testing.assert_close(model.state_dict(), dict(state["state_dict_ema"]), rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "text"])
@pytest.mark.parametrize("named", [True, False], ids=["path", "auto"])
def test_damaged_checkpoint_falls_back(
    folder: Path, finished: Path, copy: Path, caplog: pytest.LogCaptureFixture, damage: str, named: bool
) -> None:
    last = copy / "last.pth.tar"
    content = last.read_bytes()
    if damage == "altered":
        with zipfile.ZipFile(last) as archive:
            largest = max(archive.infolist(), key=lambda info: info.file_size)
        middle = largest.header_offset + largest.file_size // 2
        content = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    damaged = {"truncated": content[: len(content) // 2], "altered": content, "empty": b"", "text": b"hello"}[damage]
    for path in (last, copy / "checkpoint-2.pth.tar", copy / "model_best.pth.tar"):
        path.unlink()
        path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING, "train"):
        train(folder, "--output", copy.parent, "--experiment", copy.name, "--resume", last if named else "auto")
    lines = [r.getMessage() for r in caplog.records if "damaged" in r.getMessage()]
    assert len(lines) == 1 and "\n" not in lines[0]
    assert f"{last} is damaged" in lines[0] and "going on from the previous good one, " in lines[0]
    assert_same_run(finished, copy)


def test_all_damaged(folder: Path, copy: Path) -> None:
    for path in copy.glob("*.pth.tar"):
        path.unlink()
        path.write_bytes(b"hello")
    with pytest.raises(UserError, match="there is no good checkpoint in"):
        train(folder, "--output", copy.parent, "--experiment", copy.name, "--resume", "auto")


def test_another_architecture(folder: Path, finished: Path, tmp_path: Path) -> None:
    path = finished / "last.pth.tar"
    for flag in ("--resume", "--initial-checkpoint"):
        with pytest.raises(UserError, match=r"last.pth.tar holds resnet18_odconv, but the model is resnet10t"):
            train(folder, "--model", "resnet10t", "--model-kwargs", "--output", tmp_path / "new", flag, path)
    with pytest.raises(UserError, match="does not fit the model: .* of another shape") as caught:
        train(folder, "--model-kwargs", "channels=(8,8,8,8)", "--output", tmp_path / "new", "--resume", path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_the_state_of_another_optimiser_is_refused(folder: Path, copy: Path) -> None:
    words = ("--output", copy.parent, "--experiment", copy.name, "--resume", copy / "checkpoint-1.pth.tar")
    for flags in (("--opt", "adam"), ("--weight-decay", 0)):
        with pytest.raises(UserError, match="another optimiser; --no-resume-opt takes its weights alone"):
            train(folder, *words, *flags)


def test_a_folder_that_another_run_writes_to_is_left_alone(folder: Path, copy: Path, monkeypatch) -> None:
    monkeypatch.setattr("dynconv_plugins.locking.PATIENCE", 0.1)
    before = sorted(copy.rglob("*"))
    words = ("--output", copy.parent, "--experiment", copy.name)
    with sole(copy, "--experiment"):
        for more in ((), ("--resume", "auto")):
            with pytest.raises(UserError, match="another run writes to"):
                train(folder, *words, *more)
    assert sorted(copy.rglob("*")) == before


def test_a_finished_run_resumes_to_itself(folder: Path, finished: Path, copy: Path) -> None:
    # As if killed between writing `last` and its links.
    (copy / "checkpoint-2.pth.tar").unlink()
    (copy / "model_best.pth.tar").unlink()
    (copy / "summary.csv").write_text("epoch,train_loss\n0,1\n2,")
    train(folder, "--output", copy.parent, "--experiment", copy.name, "--resume", "auto")
    assert_same_run(finished, copy)


def test_going_back_sets_later_checkpoints_aside(folder: Path, finished: Path, copy: Path) -> None:
    back = copy / "checkpoint-0.pth.tar"
    train(folder, "--output", copy.parent, "--experiment", copy.name, "--resume", back)
    assert_same_run(finished, copy)
    assert (copy / "superseded" / "checkpoint-2.pth.tar").exists()


def test_weights_of_a_model_that_annealed_itself(finished: Path) -> None:
    path = finished / "last.pth.tar"
    weights = load(path)["state_dict"]
    model = timm.create_model(DYNAMIC[1], num_classes=3, small_stem=True, channels=(8, 16, 16, 32))
    load_weights(model, {**weights, "annealing_step": torch.tensor(5)}, path)
    load_weights(dc.anneal(model, steps=9), weights, path)
    load_weights(model, {**weights, "annealing_step": torch.tensor(5)}, path)
    assert model.annealing_step == 5


def test_resume_into_another_folder(folder: Path, finished: Path, tmp_path: Path) -> None:
    train(folder, "--output", tmp_path, "--experiment", "new", "--resume", finished / "checkpoint-1.pth.tar")
    assert load(tmp_path / "new" / "last.pth.tar")["epoch"] == 2
    assert (tmp_path / "new" / "summary.csv").read_text() == (finished / "summary.csv").read_text()
    assert (tmp_path / "new" / "model_best.pth.tar").exists()


def test_weights_only_resume(folder: Path, finished: Path, tmp_path: Path) -> None:
    path = finished / "checkpoint-1.pth.tar"
    train(folder, "--output", tmp_path, "--experiment", "new", "--resume", path, "--no-resume-opt", "--opt", "adam")
    assert load(tmp_path / "new" / "last.pth.tar")["epoch"] == 2


def test_an_earlier_run_is_moved_aside(folder: Path, copy: Path) -> None:
    content = {p.name: p.read_bytes() for p in copy.iterdir()}
    train(folder, "--output", copy.parent, "--experiment", copy.name, "--epochs", 1)
    aside = copy.with_name(f"{copy.name}.1")
    assert {p.name: p.read_bytes() for p in aside.iterdir()} == content
    assert len((copy / "summary.csv").read_text().splitlines()) == 2


def test_full_disk_keeps_the_previous_checkpoint(folder: Path, finished: Path, copy: Path) -> None:
    (copy / "checkpoint-2.pth.tar").unlink()
    back = copy / "checkpoint-1.pth.tar"
    content = back.read_bytes()

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, len(content) // 2))

    args = (folder, *FLAGS, "--output", copy.parent, "--experiment", copy.name, "--resume", back)
    done = subprocess.run(
        command(*args), env=environment(), capture_output=True, text=True, timeout=300, preexec_fn=little_room
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: cannot write a checkpoint to {copy}: ")
    assert "Traceback" not in done.stderr
    assert back.read_bytes() == content
    assert not [p.name for p in copy.iterdir() if "tmp" in p.name]
    train(*args[:1], *args[1 + len(FLAGS) : -1], "auto")
    assert_same_run(finished, copy)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_left(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left on device; the previous ones are intact"):
        write({"weights": torch.zeros(10)}, tmp_path / "full")
    assert not list(tmp_path.iterdir())


def test_what_was_left_behind_is_not_gone_on_from(folder: Path, finished: Path, copy: Path, monkeypatch) -> None:
    """Also `last` and `model_best`, until the new course has its own."""

    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("timm_models.train.epochs.train_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(
            folder,
            *("--output", copy.parent, "--experiment", copy.name),
            *("--resume", copy / "last.pth.tar", "--start-epoch", 1),
        )
    found = find("auto", copy)
    assert found is None or place(found[1]) <= (1, 0)
    assert (copy / "superseded" / "last.pth.tar").exists()


def test_what_is_no_number_is_not_the_best(folder: Path, tmp_path: Path, monkeypatch) -> None:
    rows = iter({"loss": loss, "top1": 1.0, "top5": 1.0} for loss in (float("nan"), 2.0, 3.0))
    monkeypatch.setattr("timm_models.train.epochs._validate", lambda job: next(rows))
    train(folder, "--output", tmp_path, "--experiment", "nan", "--eval-metric", "loss", "--temperature-epochs", 0)
    assert load(tmp_path / "nan" / "model_best.pth.tar")["epoch"] == 1


def test_another_metric_does_not_rank_by_the_old_one(folder: Path, finished: Path, copy: Path, tmp_path: Path) -> None:
    words = ("--resume", copy / "checkpoint-1.pth.tar", "--eval-metric", "loss")
    with pytest.raises(UserError, match="ranks its checkpoints by --eval-metric top1"):
        train(folder, "--output", copy.parent, "--experiment", copy.name, *words)
    train(folder, "--output", tmp_path, "--experiment", "new", *words)


def test_automatic_resumption_needs_a_name(folder: Path) -> None:
    with pytest.raises(UserError, match="--experiment NAME"):
        train(folder, "--resume", "auto")
