"""Ctrl-C and SIGTERM end training after the iteration or validation under way, all saved for ``--resume``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@HOOKS.register_module(force=True)
class InterruptHook(Hook):
    """Saves ``iter_N.pth`` when the process is told to stop, and exits with 130; a second signal stops at once.

    An iteration or a validation that is under way is finished first. Where several processes train, all of them end
    after the same one.

    For iteration-based loops; with others signals keep their usual meaning. ``mim train`` itself kills mmseg's script
    a quarter of a second after Ctrl-C, often before the iteration ends: then the last regular checkpoint is what
    ``--resume`` continues from. Under mmseg's ``tools/train.py``, torchrun or a batch system the time suffices.
    """

    priority = "LOWEST"  # the state is whole only when all other hooks have done their part of the iteration

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, object] = {}

    def before_train(self, runner: Runner) -> None:
        """Starts to listen."""
        if isinstance(runner.train_loop, IterBasedTrainLoop) and threading.current_thread() is threading.main_thread():
            self._pid = os.getpid()
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Saves and exits, if asked to."""
        self._leave(runner, runner.iter + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """The same when a validation is over, which `runner.iter` whole iterations precede."""
        # Not amid it: until here mmengine's EMAHook has the average in the model's place, and a resumed training never
        # makes up for a validation. One that takes longer than whoever stops the process allows costs little: the
        # shipped schedules save just before each, and that is what `--resume` finds then.
        self._leave(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Stops listening."""
        self._restore()

    def _on_signal(self, number: int, _frame) -> None:
        self._restore()
        if os.getpid() == self._pid:
            self._asked = True
            # Not print, amid which the signal may have come.
            os.write(2, b"interrupted: finishing this iteration or validation; once more stops at once\n")
        else:  # a data loader's worker, which has inherited this handler
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _leave(self, runner: Runner, done: int) -> None:
        asked = torch.tensor(float(self._asked))
        dist.all_reduce(asked, "max")
        if not asked:
            return
        name = f"iter_{done}.pth"
        meta = {"epoch": runner.epoch, "iter": done}
        runner.save_checkpoint(runner.work_dir, name, meta=meta, by_epoch=False)
        path = Path(runner.work_dir) / name
        if dist.is_main_process():
            (path.parent / "last_checkpoint").write_text(str(path))
            print(f"interrupted: saved {path}; continue with --resume", file=sys.stderr)
        dist.barrier()  # torchrun ends the others as soon as one has left
        sys.exit(130)
