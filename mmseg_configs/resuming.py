"""Checkpoints from which an epoch-based training goes on exactly as if it had never been interrupted."""

from __future__ import annotations

import bisect
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_KEY = "random_state"


@HOOKS.register_module(force=True)
class ExactCheckpointHook(CheckpointHook):
    """``CheckpointHook`` for epoch-based loops that saves after each validation instead of before it.

    mmengine saves first and validates then: a training resumed from there has never seen that validation, so that
    schedules and early stopping which watch it count differently. The states of the random generators are saved too,
    which mmengine does not; with data loaders that run in the main process (``num_workers=0``) the augmentation goes on
    where it was. Each process goes on with its own, where as many train as before.

    Args:
        interval: Epochs between two checkpoints; by default there is one after each validation, and after the last
            epoch.
        **kwargs: Of ``CheckpointHook``.
    """

    _due: bool | None = None  # None: no validation of a training is under way
    _states: list[dict[str, Any]] | None = None

    def before_train(self, runner: Runner) -> None:
        """Sets the generators of a resumed training; nothing is drawn between here and the first sample."""
        super().before_train(runner)
        states = getattr(self, "_resumed", None) or []
        states = [states] if isinstance(states, dict) else states  # of one process, in older checkpoints
        if len(states) == get_world_size():
            _restore(states[get_rank()])

    def after_train_epoch(self, runner: Runner) -> None:
        """Saves as mmengine does, but where a validation follows only notes whether to save after it."""
        self._due = None
        if not _validates(runner, runner.epoch + 1):
            super().after_train_epoch(runner)
        else:
            last = self.save_last and self.is_last_train_epoch(runner)
            self._due = last or self.interval < 1 or self.every_n_epochs(runner, self.interval, self.save_begin)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Saves the best weights if these are, and the state to resume from."""
        self.last_ckpt = None  # or mmengine would save the same state twice
        super().after_val_epoch(runner, metrics or {})
        # A training that is stopped here has no other epoch to save.
        if self._due or (self._due is not None and runner.train_loop.stop_training):
            self._save_checkpoint_with_step(runner, runner.epoch, meta={"epoch": runner.epoch, "iter": runner.iter})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the states of the random generators."""
        checkpoint[_KEY] = self._states or [_state()]

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # The first process alone gets to `before_save_checkpoint`.
        self._states = all_gather_object(_state())
        super()._save_checkpoint_with_step(runner, step, meta)
        self._states = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keeps the states of a checkpoint to resume from until training starts."""
        if runner._resume:
            self._resumed = checkpoint.get(_KEY)


def _validates(runner: Runner, epoch: int) -> bool:
    """Whether the training loop validates after `epoch`, counted from one."""
    loop = runner.train_loop
    if runner.val_loop is None or epoch < loop.val_begin:
        return False
    interval = loop.dynamic_intervals[bisect.bisect(loop.dynamic_milestones, epoch + 1) - 1]
    return epoch % interval == 0 or epoch == loop.max_epochs


def _state() -> dict[str, Any]:
    # Tensors, lists and numbers only: the file can be read with weights_only=True.
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - what mmseg's transforms draw from
    version, numbers, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }


def _restore(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002 - as above
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
