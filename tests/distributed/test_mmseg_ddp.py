"""Two processes with half the batch train what one process with the whole batch does: mmseg's script.

The network has group norm and no dropout, and the images are not augmented, since mmseg draws per process: then the
weights agree to rounding, and so do the temperature and the budget of hard attention.
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmseg")
pytest.importorskip("timm")

from mmengine.config import Config
from mmengine.runner import Runner
from side_by_side import assert_same_weights, run, started

import mmseg_configs
from dynconv_plugins.datasets import diatoms

# A hard backbone and a neck whose kernels are mixed at a temperature: both hooks. No max-pooling, where ties are
# settled by rounding. mmengine keeps visualizers by name for as long as a process lives, with the folder they write to:
# under the shipped name this test would get whichever ran here before.
CONFIG = """
_base_ = "{base}"
channels = [8, 16, 16, 32]
model = dict(
    backbone=dict(
        model_name="resnet18_hard", channels=channels, norm_layer="groupnorm1", replace_stem_pool=True, ramp=1
    ),
    neck=dict(in_channels=channels, out_channels=16, conv_cfg=dict(type="dyconv")),
    decode_head=dict(in_channels=[16] * 4, channels=16, dropout_ratio=0, norm_cfg=dict(type="GN", num_groups=1)),
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="SGD", lr=0.02, momentum=0.9))
train_dataloader = dict(dataset=dict(pipeline=[_base_.load_image, _base_.load_annotations, dict(type="PackSegInputs")]))
train_cfg = dict(max_iters=3, val_interval=3)
visualizer = dict(name="ddp")
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=3, save_best=None),
    temperature=dict(type="TemperatureHook", iters=2),
    budget=dict(type="BudgetHook"),
)
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(base=mmseg_configs.path("fpn_resnet18_diatoms-64x64")))
    # Not under `tmp_path`: a path too long for a line takes mmengine's formatter seconds at every start and checkpoint.
    with tempfile.TemporaryDirectory(prefix="d") as data:
        monkeypatch.setenv("DYNCONV_DATA", str(diatoms.make(data, classes=2, train=4, test=2)))
        yield path


def command(config: Path, work: Path, *flags: object, options: tuple[str, ...] = ()) -> tuple[object, ...]:
    flags = (config, "--gpus", 0, "--work-dir", work, *flags)
    return ("mim", "train", "mmsegmentation", *flags, "--cfg-options", "train_dataloader.batch_size=2", *options)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)["state_dict"]  # mmengine's own checkpoint, written just now


def scalars(work: Path) -> list[dict]:
    (file,) = work.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_two_processes_train_what_one_does(config: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    whole = Config.fromfile(config)
    whole.merge_from_dict({"work_dir": str(one), "train_dataloader.batch_size": 4})
    runner = Runner.from_cfg(whole)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    said = run(*command(config, two), processes=2, cwd=tmp_path)
    assert re.search(r"mIoU: \d+\.\d+", said)
    assert_same_weights(runner.model.state_dict(), weights(two / "iter_3.pth"), before)
    for expected, row in zip(scalars(one), scalars(two), strict=True):
        # The loss in mmseg's log is the first process's.
        for name in {"lr", "temperature", "mask_rate", "budget_loss", "mIoU", "aAcc"} & expected.keys():
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5)
    assert scalars(two)[1]["budget_loss"] > 1 and scalars(two)[2]["temperature"] == 1


@pytest.mark.slow
def test_both_stop_together_and_go_on(config: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    options = ("train_cfg.max_iters=500", "train_cfg.val_interval=500", "default_hooks.checkpoint.interval=500")
    with started(*command(config, work, options=options), processes=2, cwd=tmp_path) as process:
        seen = []
        while not (seen and re.search(r"Iter\(train\) +\[ *3/", seen[-1])):
            seen.append(process.stdout.readline())
            assert seen[-1], "".join(seen)
        os.kill(process.pid, signal.SIGINT)  # to torchrun, as a study does; SIGTERM does the same
        rest, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    said = re.findall(r"interrupted: saved (\S+iter_(\d+)\.pth)", rest)
    assert len(said) == 1, rest
    (saved,) = said
    assert (work / "last_checkpoint").read_text() == saved[0]
    steps = int(saved[1]) + 2
    options = (f"train_cfg.max_iters={steps}", f"train_cfg.val_interval={steps}")
    again = run(*command(config, work, "--resume", options=options), processes=2, cwd=tmp_path)
    done = [int(step) for step in re.findall(rf"Iter\(train\) +\[ *(\d+)/{steps}\]", again)]
    assert done == [steps - 1, steps]


def test_one_line_without_torchrun(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="error: start this with torchrun"):
        run("mmseg_configs.processes", "c.py", processes=1, cwd=tmp_path)
