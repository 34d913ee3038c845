"""What an interrupted training leaves, and what resuming makes of it and of damaged or foreign checkpoints."""

from __future__ import annotations

import os
import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hook_runs import Regressor, run
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import set_random_seed
from yapf.yapflib import yapf_api

from dynconv_plugins.errors import UserError
from mmseg_configs import resuming


def test_interrupted_training_saves_and_resumes_exactly(tmp_path, capsys):
    hook = dict(iters=5, start=11.0, end=1.0)
    whole, _ = run(tmp_path / "whole", hook, by_epoch=False, max_iters=6)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "cut", hook, signal_in_step=5, by_epoch=False, max_iters=6)
    assert caught.value.code == 130
    assert "interrupted: saved" in capsys.readouterr().err
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert (tmp_path / "cut" / "last_checkpoint").read_text().endswith("iter_5.pth")
    resumed, _ = run(tmp_path / "cut", hook, resume=True, by_epoch=False, max_iters=6)
    assert len(resumed.seen) == 1
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


HOOK = dict(iters=5)


def test_resume_steps_over_damaged_checkpoints(tmp_path):
    run(tmp_path, HOOK, by_epoch=False, max_iters=9)
    os.truncate(tmp_path / "iter_9.pth", 1000)
    path = tmp_path / "iter_6.pth"
    weight = torch.load(path, weights_only=False)["state_dict"]["conv.weight"].numpy().tobytes()
    altered = bytearray(path.read_bytes())
    altered[altered.index(weight)] ^= 255
    path.write_bytes(altered)
    model, _ = run(tmp_path, HOOK, resume=True, by_epoch=False, max_iters=5)
    assert len(model.seen) == 2  # from iteration 3
    (tmp_path / "iter_3.pth").write_bytes(b"")
    (tmp_path / "iter_5.pth").unlink()
    with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
        run(tmp_path, HOOK, resume=True, by_epoch=False, max_iters=6)


def test_resume_in_a_folder_that_was_moved(tmp_path):
    run(tmp_path / "here", HOOK, by_epoch=False, max_iters=3)
    (tmp_path / "here").rename(tmp_path / "there")
    model, _ = run(tmp_path / "there", HOOK, resume=True, by_epoch=False, max_iters=5)
    assert len(model.seen) == 2


def test_resume_of_nothing_starts_at_the_beginning(tmp_path):
    model, _ = run(tmp_path, HOOK, resume=True, by_epoch=False, max_iters=2)
    assert len(model.seen) == 2


def test_checkpoints_hold_a_config_that_loads_and_do_not_wait_for_its_format(tmp_path, monkeypatch):
    formatted = []

    def note(text, style_config):
        formatted.append(text)
        return text, False

    monkeypatch.setattr(yapf_api, "FormatCode", note)
    _, runner = run(tmp_path, HOOK, by_epoch=False, max_iters=3)
    once = len(formatted)
    _, runner = run(tmp_path, HOOK, by_epoch=False, max_iters=9, resume=True)
    assert once and len(formatted) == 2 * once, "at the start only, however many checkpoints are saved"
    stored = torch.load(tmp_path / "iter_9.pth", weights_only=False)["meta"]["cfg"]
    dumped = tmp_path / "dumped.py"
    runner.cfg.dump(dumped)
    assert runner.cfg.to_dict() == Config.fromstring(stored, ".py").to_dict() == Config.fromfile(dumped).to_dict()


def test_loading_a_foreign_checkpoint(tmp_path):
    path = tmp_path / "other.pth"
    state = Regressor().state_dict()
    loop = dict(by_epoch=False, max_iters=1, load_from=str(path))
    torch.save({"state_dict": {**state, "head.weight": torch.zeros(3)}}, path)
    with pytest.raises(UserError, match="1 keys unknown \\(first: head.weight\\).*strict=False"):
        run(tmp_path / "a", HOOK, **loop)
    run(tmp_path / "b", HOOK, strict=False, **loop)
    torch.save({"state_dict": {"head.weight": torch.zeros(3)}}, path)
    with pytest.raises(UserError, match="no key matches"):
        run(tmp_path / "c", HOOK, strict=False, **loop)
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path / "d", HOOK, **loop)


def test_torchs_older_format(tmp_path):
    path = tmp_path / "old.pth"
    loop = dict(by_epoch=False, max_iters=1, load_from=str(path))
    state = {key: value + 1 for key, value in Regressor().state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, path, _use_new_zipfile_serialization=False)
    model, _ = run(tmp_path / "a", HOOK, **loop)
    torch.testing.assert_close(
        model.conv.weight.detach(), state["conv.weight"], atol=0.1, rtol=0
    )  # one step from there
    whole = path.read_bytes()
    for length, says in ((len(whole) - 9, "unexpected EOF"), (200, "damaged"), (0, "damaged")):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"old.pth .*{says}") as caught:
            run(tmp_path / "b", HOOK, **loop)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("saved", "size", "rank", "goes_on"),
    [(2, 2, 0, 0), (2, 2, 1, 1), (2, 1, 0, None), (1, 2, 1, None), (1, 1, 0, 0), ("older", 1, 0, 0)],
)
def test_each_process_goes_on_with_its_own_random_numbers(monkeypatch, saved, size, rank, goes_on):
    def drawn(seed):
        set_random_seed(seed)  # torch's, numpy's and Python's
        return resuming._state(), draw()

    states, numbers = zip(*map(drawn, (0, 1)), strict=True)
    checkpoint, runner = {resuming._KEY: states[0]}, SimpleNamespace(_resume=True)

    def save(self, runner, step, meta):
        self.before_save_checkpoint(runner, checkpoint)

    monkeypatch.setattr(CheckpointHook, "_save_checkpoint_with_step", save)
    monkeypatch.setattr(CheckpointHook, "before_train", lambda self, runner: None)
    monkeypatch.setattr(resuming, "get_world_size", lambda: size)
    monkeypatch.setattr(resuming, "get_rank", lambda: rank)
    hook = resuming.ExactCheckpointHook()
    if saved != "older":
        monkeypatch.setattr(resuming, "all_gather_object", lambda own: list(states[:saved]))
        hook._save_checkpoint_with_step(runner, 1, {})
    hook.after_load_checkpoint(runner, checkpoint)
    _, otherwise = drawn(2)
    set_random_seed(2)
    hook.before_train(runner)
    assert draw() == (otherwise if goes_on is None else numbers[goes_on])


def draw():
    return [torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random(), random.gauss(0, 1)]  # noqa: NPY002
