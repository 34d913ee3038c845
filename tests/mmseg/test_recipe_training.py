"""What a recipe does while it trains: its schedule, its stopping, its checkpoints, and resuming by `mim` itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS, MODELS
from torch import nn
from torch.utils.data import TensorDataset

from mmseg_configs import recipes


class Line(BaseModel):
    """Something to train."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x, mode="tensor"):
        return {"loss": self.layer(x).mean()} if mode == "loss" else [x]


class Scores(BaseMetric):
    """Validation scores as given, one a validation."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.rates = iter(scores), []

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {"mIoU": next(self.scores)}


def train_on(scores, cfg, work_dir, epochs=30, resume=False, **saving) -> tuple[Runner, list[float]]:
    """mmengine's own runner with the schedule and the hooks of `cfg`; the learning rate of each epoch."""
    validation = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
    init_default_scope("mmseg")
    rates: list[float] = []
    loader = dict(dataset=TensorDataset(torch.ones(2, 2)), batch_size=2, sampler=dict(type=DefaultSampler))
    loader["collate_fn"] = dict(type="default_collate")
    if scores is not None:
        validation = dict(val_dataloader=loader, val_cfg=dict(), val_evaluator=Evaluator(Scores(scores)))
    runner = Runner(
        Line(),
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_begin=cfg.train_cfg.get("val_begin", 1)),
        **validation,
        optim_wrapper=cfg.optim_wrapper.to_dict(),
        param_scheduler=[dict(s) for s in cfg.param_scheduler],
        default_hooks=dict(checkpoint=dict(cfg.default_hooks.checkpoint, **saving)),
        custom_hooks=[dict(h) for h in cfg.custom_hooks],
        default_scope="mmseg",
        resume=resume,
        randomness=dict(seed=0),
        log_level="WARNING",
        experiment_name=f"{work_dir.parent.name}-{work_dir.name}-{epochs}-{resume}",
    )
    from mmengine.hooks import Hook

    class Notes(Hook):
        def before_train_epoch(self, runner):
            rates.append(runner.optim_wrapper.get_lr()["lr"][0])

    runner.register_hook(Notes())
    runner.train()
    return runner, rates


@pytest.mark.parametrize(("operator", "late"), [("static", 0), ("odconv", 3)])
def test_plateau_and_early_stopping(tmp_path, parts, operator, late):
    """Of a network whose temperature falls, over 3 of 30 epochs, nothing counts before it has fallen."""
    cfg = Config.fromfile(recipes.compose(tmp_path / "c.py", head="fpn", operator=operator, **parts))
    assert cfg.train_cfg.get("val_begin", 1) == late + 1
    scores = [10.0, 20.0, *[15.0] * 40]
    runner, rates = train_on(scores, cfg, tmp_path / "whole")
    # the best is the second: five without a better one, and the rate falls; ten, and it is over
    last = late + 12
    assert rates == pytest.approx([1e-3] * (late + 7) + [1e-4] * 5) and runner.epoch == last
    assert [p.name for p in (tmp_path / "whole").glob("best_*")] == [f"best_mIoU_epoch_{late + 2}.pth"]
    assert {p.name for p in (tmp_path / "whole").glob("epoch_*")} == {f"epoch_{last - 1}.pth", f"epoch_{last}.pth"}

    # the first part ends in an epoch without validation where there are such
    n = 2 if late else 6
    first = () if late else scores[:n]
    _, before = train_on(first, cfg, tmp_path / "cut", epochs=n)
    resumed, after = train_on(scores[len(first) :], cfg, tmp_path / "cut", resume=True)
    assert before + after == pytest.approx(rates) and resumed.epoch == last
    again, none = train_on([], cfg, tmp_path / "cut", resume=True)
    assert none == [] and again.epoch == last


def test_a_new_training_waits_anew(tmp_path, parts, monkeypatch):
    """Two trainings of one process and one second share mmengine's message hub."""
    monkeypatch.setattr("mmengine.runner.runner.time.strftime", lambda *_: "20261122_000000")
    cfg = Config.fromfile(recipes.compose(tmp_path / "c.py", head="fpn", operator="static", **parts))
    first, rates = train_on([2.0, *[1.0] * 40], cfg, tmp_path / "same")
    assert first.train_loop.stop_training and len(rates) == 11
    second, again = train_on([2.0, *[1.0] * 40], cfg, tmp_path / "same")
    assert second.message_hub is first.message_hub and again == rates


@pytest.mark.parametrize(
    ("scores", "interval", "kept"),
    [
        (None, -1, [4]),
        (None, 1, [1, 2, 3, 4]),
        (None, 3, [3, 4]),
        ([1.0] * 4, -1, [1, 2, 3, 4]),
        ([1.0] * 4, 3, [3, 4]),
    ],
)
def test_checkpoints_come_with_or_without_validation(tmp_path, parts, scores, interval, kept):
    cfg = Config.fromfile(recipes.compose(tmp_path / "c.py", head="fpn", operator="static", **parts))
    cfg.custom_hooks, cfg.param_scheduler = [], []
    work = tmp_path / f"{scores is None}{interval}"
    train_on(scores, cfg, work, epochs=4, interval=interval, max_keep_ckpts=-1)
    assert sorted(int(p.stem.rpartition("_")[2]) for p in work.glob("epoch_*")) == kept
    assert len(list(work.glob("best_*"))) == (scores is not None)


def test_the_rate_has_a_floor(tmp_path, parts):
    cfg = Config.fromfile(recipes.compose(tmp_path / "c.py", head="fpn", operator="static", **parts))
    cfg.custom_hooks = []
    _, rates = train_on([1.0] * 40, cfg, tmp_path / "w", epochs=40)
    assert min(rates) == pytest.approx(1e-6) == rates[-1]


def scalars(work: Path) -> list[dict]:
    files = sorted(work.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def run(path: Path, work: Path, resume: bool = False, test: Path | None = None) -> dict[str, float] | None:
    """What mmseg's train.py and test.py do with a config, in this process."""
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.resume, cfg.load_from = str(work), resume, test and str(test)
    cfg.experiment_name = f"{work.parent.name}-{work.name}-{resume}"
    runner = Runner.from_cfg(cfg)
    return runner.test() if test else runner.train() and None


def loaded(path: Path) -> dict:
    return torch.load(path, weights_only=False, map_location="cpu")


def killed(whole: Path, cut: Path) -> Path:
    """A copy of a work folder as it was when its second epoch was under way."""
    shutil.copytree(whole, cut)
    for gone in (*cut.glob("epoch_2.pth"), *cut.glob("best_mIoU_epoch_2.pth")):
        gone.unlink()
    (cut / "last_checkpoint").write_text(str(cut / "epoch_1.pth"))
    return cut


def same(one: Path, other: Path) -> bool:
    one, other = loaded(one)["state_dict"], loaded(other)["state_dict"]
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow  # tests/study trains, keeps and scores a short run by the same recipe
@pytest.mark.parametrize(("recipe", "operator"), [("study", "localsoft"), ("modern", "hard")])
def test_trains_resumes_and_tests(tmp_path, parts, recipe, operator):
    path = recipes.compose(
        tmp_path / "config.py", head="fpn", operator=operator, recipe=recipe, epochs=2, batch_size=3, **parts
    )
    whole = tmp_path / "whole"
    run(path, whole)
    cut = killed(whole, tmp_path / "cut")
    run(path, cut, resume=True)
    assert same(whole / "epoch_2.pth", cut / "epoch_2.pth")
    (best,) = whole.glob("best_*")
    if recipe == "modern":
        # what is kept, validated and tested is the mean; what goes on training lies beside it
        stored = loaded(whole / "epoch_2.pth")
        key = "decode_head.conv_seg.weight"
        assert not torch.equal(stored["state_dict"][key], stored["ema_state_dict"][f"module.{key}"])
    tested = run(path, tmp_path / "test", test=best)
    model = MODELS.build(Config.fromfile(path).model)
    model.load_state_dict(loaded(best)["state_dict"])
    assert tested["mIoU"] == pytest.approx(_mean_iou(model.eval(), Config.fromfile(path)), abs=0.02)


@pytest.mark.slow
def test_by_mims_own_command(python, tmp_path, parts):
    path = recipes.compose(tmp_path / "config.py", head="fpn", operator="odconv", epochs=2, batch_size=3, **parts)
    flags = ("--gpus", 0, "--work-dir")

    def mim(work, *more):
        done = python("mim", "train", "mmsegmentation", path, *flags, work, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-6000:]

    whole = tmp_path / "whole"
    mim(whole)
    rows = scalars(whole)
    assert [row["epoch"] for row in rows if "loss" in row] == [1, 2]
    assert [row["step"] for row in rows if "mIoU" in row] == [1, 2]
    assert rows[0]["temperature"] == pytest.approx(1) and len(list(whole.glob("best_mIoU_epoch_*.pth"))) == 1
    cut = killed(whole, tmp_path / "cut")
    mim(cut, "--resume")
    assert same(whole / "epoch_2.pth", cut / "epoch_2.pth")


@torch.inference_mode()
def _mean_iou(model: nn.Module, cfg: Config) -> float:
    """Per cent, over the classes that occur in the truth or the prediction, from the definition."""
    data = DATASETS.build(cfg.test_dataloader.dataset)
    both, either = np.zeros(21), np.zeros(21)
    for sample in data:
        done = model.test_step({k: [v] for k, v in sample.items()})[0]
        truth, found = (x.data[0].numpy() for x in (sample["data_samples"].gt_sem_seg, done.pred_sem_seg))
        for c in range(21):
            a, b = truth[truth != 255] == c, found[truth != 255] == c
            both[c] += (a & b).sum()
            either[c] += (a | b).sum()
    return float(100 * np.mean(both[either > 0] / either[either > 0]))
