"""`mim train` and `mim test` as a user types them, on the built-in data."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

import mmseg_configs
from mmseg_configs import processes
from mmseg_configs.processes import script

FEW = ("train_dataloader.batch_size=2", "default_hooks.logger.interval=1")


def shortened(work_dir, iters, *flags, options=()):
    options = [*FEW, f"train_cfg.max_iters={iters}", f"train_cfg.val_interval={iters}", *options]
    return ["--work-dir", work_dir, *flags, "--cfg-options", *options]


def mim_train(python, tmp_path, name, work_dir, iters, *flags, options=(), **kwargs):
    flags = ["--gpus", 0, *shortened(work_dir, iters, *flags, options=options)]
    return python("mim", "train", "mmsegmentation", mmseg_configs.path(name), *flags, cwd=tmp_path, **kwargs)


def mim_test(python, tmp_path, name, checkpoint, work_dir, **kwargs):
    flags = ["--checkpoint", checkpoint, "--gpus", 0, "--work-dir", work_dir]
    return python("mim", "test", "mmsegmentation", mmseg_configs.path(name), *flags, cwd=tmp_path, **kwargs)


# The processes that mim ends up with, after two others that take as long: mmseg's own scripts.
def train(python, tmp_path, name, options=(), **kwargs):
    flags = shortened(tmp_path / "w", 1, options=options)
    return python(script(), mmseg_configs.path(name), *flags, cwd=tmp_path, **kwargs)


def test(python, tmp_path, name, checkpoint):
    flags = ["--work-dir", tmp_path / "w"]
    return python(script().with_name("test.py"), mmseg_configs.path(name), checkpoint, *flags, cwd=tmp_path)


test.__test__ = False


def scalars(work_dir: Path) -> list[dict]:
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def errors(text: str) -> list[str]:
    return re.findall(r"^error: .*$", text, re.MULTILINE)


def test_train_resume_damage_and_test(python, tmp_path):
    name, work = "fpn_resnet18-odconv_diatoms-64x64", tmp_path / "work"
    options = ("default_hooks.checkpoint.interval=1", "default_hooks.temperature.iters=30")
    first = mim_train(python, tmp_path, name, work, 3, options=options)
    assert first.returncode == 0, first.stderr[-6000:]
    rows = [row for row in scalars(work) if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["temperature"] for row in rows] == pytest.approx([30, 30 - 29 / 30, 30 - 58 / 30])
    assert "mIoU" in first.stdout + first.stderr and list(work.glob("best_mIoU_*.pth"))

    last = work / "iter_3.pth"
    os.truncate(last, last.stat().st_size // 2)
    again = mim_train(python, tmp_path, name, work, 4, "--resume", options=options)
    assert again.returncode == 0, again.stderr[-6000:]
    assert re.search(r"iter_3.pth is missing or damaged: resuming from .*iter_2.pth", again.stdout + again.stderr)
    rows = [row for row in scalars(work) if "loss" in row][3:]
    assert [row["step"] for row in rows] == [3, 4]
    assert [row["temperature"] for row in rows] == pytest.approx([30 - 58 / 30, 30 - 87 / 30])

    tested = mim_test(python, tmp_path, name, work / "iter_4.pth", tmp_path / "test")
    assert tested.returncode == 0, tested.stderr[-6000:]
    assert re.search(r"mIoU: \d+\.\d+", tested.stdout + tested.stderr)


IN_ONE_PROCESS = tuple(
    f"{loader}.{option}"
    for loader in ("train_dataloader", "val_dataloader")
    for option in ("num_workers=0", "persistent_workers=False")
)


def test_hard_attention_trains_and_logs_its_budget(python, tmp_path):
    work = tmp_path / "work"
    trained = mim_train(python, tmp_path, "fpn_resnet18-hard_voc12-128x128", work, 2, options=IN_ONE_PROCESS)
    assert trained.returncode == 0, trained.stderr[-6000:]
    rows = [row for row in scalars(work) if "loss" in row]
    assert len(rows) == 2 and all(0 < row["mask_rate"] <= 1 and row["budget_loss"] >= 0 for row in rows)
    assert all("temperature" not in row for row in rows)


@pytest.mark.parametrize(
    ("devices", "joined", "device"), [(0, True, None), (1, True, 0), (2, True, 1), (3, False, None), (4, False, None)]
)
def test_processes_without_a_gpu_of_their_own_share(tmp_path, monkeypatch, devices, joined, device):
    seen = {}
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "set_device", lambda n: seen.update(device=n))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda kind, **_: seen.update(joined=kind))
    monkeypatch.setattr(runpy, "run_path", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["processes"])
    processes.main(["c.py"])
    assert seen.get("device") == device and seen.get("joined") == ("gloo" if joined else None)
    assert ("model_wrapper_cfg.device_ids=None" in sys.argv) == joined


def test_bad_input_ends_in_one_line(python, tmp_path, voc):
    nowhere = voc / "none"
    missing = train(python, tmp_path, "fpn_resnet18_diatoms-64x64", data=nowhere)
    assert missing.returncode != 0
    (line,) = errors(missing.stderr)
    assert "no data in" in line and str(nowhere) in line
    assert "Traceback" not in missing.stderr
    assert not list((tmp_path / "w").glob("*.pth"))


@pytest.mark.slow
def test_more_bad_input_ends_in_one_line(python, tmp_path, voc):
    name = "fpn_resnet18_diatoms-64x64"
    wrong = mim_train(python, tmp_path, name, tmp_path / "w", 1, options=("model.backbone.model_name=resnet18_odcnv",))
    assert wrong.returncode != 0 and "did you mean resnet18_odconv" in "".join(errors(wrong.stderr))
    # mim adds a traceback of its own about the exit code of mmseg's script: the script itself must add none
    assert 'tools/train.py", line' not in wrong.stderr
    wrong = train(python, tmp_path, name, options=("model.neck.conv_cfg.type=odcon",))
    assert wrong.returncode != 0 and "did you mean odconv" in "".join(errors(wrong.stderr))
    wrong = train(
        python, tmp_path, name, options=("model.neck.conv_cfg.type=odconv", "model.neck.conv_cfg.num_kernel=4")
    )
    assert wrong.returncode != 0 and "did you mean num_kernels" in "".join(errors(wrong.stderr))
    assert "Traceback" not in wrong.stderr
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    foreign = test(python, tmp_path, name, tmp_path / "other.pth")
    assert foreign.returncode != 0 and "another architecture" in "".join(errors(foreign.stderr))
    (tmp_path / "cut.pth").write_bytes((tmp_path / "other.pth").read_bytes()[:300])
    cut = test(python, tmp_path, name, tmp_path / "cut.pth")
    assert cut.returncode != 0 and "damaged" in "".join(errors(cut.stderr))
    masks = sorted((voc / "SegmentationClass").glob("*.png"))
    shutil.copyfile(masks[0], masks[0].with_suffix(".bak"))
    masks[0].unlink()
    gone = train(python, tmp_path, name, data=voc.parents[1])
    assert gone.returncode != 0 and "mask missing" in "".join(errors(gone.stderr))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fpn", "deeplabv3plus"])
@pytest.mark.parametrize("network", ["resnet18", "resnet18-odconv4x"])
def test_every_pair_trains_and_tests(python, tmp_path, head, network):
    name, work = f"{head}_{network}_diatoms-64x64", tmp_path / "work"
    trained = mim_train(python, tmp_path, name, work, 2)
    assert trained.returncode == 0, trained.stderr[-6000:]
    tested = mim_test(python, tmp_path, name, work / "iter_2.pth", tmp_path / "test")
    assert tested.returncode == 0 and "mIoU" in tested.stdout + tested.stderr, tested.stderr[-6000:]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fpn", "deeplabv3plus"])
def test_the_full_size_config_trains(python, tmp_path, head):
    name = f"{head}_resnet18-odconv_voc12-512x512"
    trained = mim_train(python, tmp_path, name, tmp_path / "w", 1, options=IN_ONE_PROCESS)
    assert trained.returncode == 0, trained.stderr[-6000:]
