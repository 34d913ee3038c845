"""timm's checkpoint saver, made safe against kills and full disks.

A checkpoint appears under its name when all of it is on the disk, or not at all. It has timm's keys, so that timm's
``validate.py`` and ``create_model(checkpoint_path=...)`` read it, and holds plain values only, so that it is read with
``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.utils import CheckpointSaver

from dynconv_plugins.errors import UserError

from .resume import place as place_of
from .resume import read

# It lists every checkpoint it keeps after each epoch.
logging.getLogger("timm.utils.checkpoint_saver").setLevel(logging.WARNING)


class CannotWrite(UserError):
    """A checkpoint could not be written; the ones there are intact."""


def write(state: dict[str, Any], path: str | os.PathLike) -> None:
    """Saves `state` to `path` and forces it to the disk.

    Raises:
        CannotWrite: If the disk is full or the file cannot be written. Nothing is left at `path`.
    """
    try:
        with open(path, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as e:
        # torch reports a failed write as its own error when it notices before Python does.
        cause = e if isinstance(e, OSError) else e.__context__
        if not isinstance(cause, OSError):
            raise
        Path(path).unlink(missing_ok=True)
        raise CannotWrite(
            f"cannot write a checkpoint to {Path(path).parent}: {cause.strerror}; the previous ones are "
            "intact: make room and go on with --resume auto"
        ) from None


def replace(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Renames `source` to `target`, which at every moment is the old file or the new one."""
    os.replace(source, target)
    if os.name == "posix":
        folder = os.open(Path(target).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def rankable(metric: float | None) -> float | None:
    """A metric by which timm's saver can rank: to it nothing is better than what is not a number."""
    return None if metric is None or math.isnan(metric) else metric


class Saver(CheckpointSaver):
    """timm's saver with atomic files, whose checkpoints also hold the place in the run.

    Args:
        arch: Model name.
        arguments: The run's arguments, plain values.
        progress: Called for the ``trainer`` entry of each checkpoint.
        **timm: timm's arguments; `task` is needed.
    """

    def __init__(
        self, arch: str, arguments: dict[str, Any], progress: Callable[[], dict[str, Any]], **timm: Any
    ) -> None:
        super().__init__(**timm)
        self.arch, self.arguments, self.progress = arch, arguments, progress

    def _save(self, save_path: str, epoch: int, metric: float | None = None) -> None:
        state = {
            "epoch": epoch,
            "version": 2,
            "arch": self.arch,
            "args": self.arguments,
            "optimizer": self.optimizer.state_dict(),
            **self.task.get_checkpoint_state(unwrap_fn=self.unwrap_fn),
            **self.task.get_checkpoint_state(ema=True, unwrap_fn=self.unwrap_fn),
            "trainer": self.progress(),
            "saver": self.state_dict(None if metric is None else epoch, metric),
        }
        if self.amp_scaler is not None:
            state[self.amp_scaler.state_dict_key] = self.amp_scaler.state_dict()
        if metric is not None:
            state["metric"] = metric
        write(state, save_path)

    def _replace(self, src: str, dst: str) -> None:
        replace(src, dst)

    def _duplicate(self, src: str, dst: str) -> None:
        copy = f"{dst}.tmp"
        Path(copy).unlink(missing_ok=True)
        try:
            try:
                os.link(src, copy)
            except (OSError, NotImplementedError):
                shutil.copy2(src, copy)
            replace(copy, dst)
        except OSError as e:
            Path(copy).unlink(missing_ok=True)
            raise CannotWrite(
                f"cannot write {dst}: {e.strerror}; {src} is intact: make room and go on with --resume auto"
            ) from None

    def adopt(self, state: dict[str, Any], path: Path, place: tuple[int, int], first: int = 0) -> None:
        """Takes over the ranking of the checkpoint the run goes on from, after all else has been restored.

        A kill may have fallen between the writing of ``last`` and its links. An epoch's saving is therefore repeated,
        which changes nothing if it was complete. Checkpoints of later places, left by a run that went another way or
        damaged, are moved to ``superseded/``.

        Args:
            state: The checkpoint's contents.
            path: Where it was read.
            place: The (epoch, update) the run goes on from.
            first: The epoch from which checkpoints are ranked.
        """
        folder = Path(self.checkpoint_dir)
        if path.parent.resolve() == folder.resolve():
            # Before the ranking is read, which leaves out what is no longer there.
            self._set_aside(folder, place)
            self.load_state_dict({**(state.get("saver") or {}), "pending": (None, None)})
            self._unrank(first)
            if self.best_epoch is not None and not first <= self.best_epoch < place[0]:
                self.best_epoch = self.best_metric = None
            if self.best_epoch is not None and Path(self._checkpoint_path(self.best_epoch)).exists():
                self._duplicate(self._checkpoint_path(self.best_epoch), str(folder / f"model_best{self.extension}"))
        for left in ("tmp", "recovery_tmp"):
            (folder / f"{left}{self.extension}").unlink(missing_ok=True)
        # That of an epoch, not of a place inside one.
        if "trainer" in state and state["epoch"] < min(place[0], state["trainer"]["epoch"]):
            self.save_checkpoint(state["epoch"], rankable(state.get("metric")) if state["epoch"] >= first else None)

    def _unrank(self, first: int) -> None:
        """Takes the metric from checkpoints of epochs before `first`: any that is ranked is better."""
        early = [file for file, _ in self.checkpoint_files if _epoch_of(file) < first]
        ranked = [entry for entry in self.checkpoint_files if entry[0] not in early]
        self.checkpoint_files = ranked + [(file, None) for file in sorted(early, key=_epoch_of, reverse=True)]

    def _set_aside(self, folder: Path, place: tuple[int, int]) -> None:
        recoveries = []
        for file in folder.glob(f"*-*{self.extension}"):
            prefix, *numbers = file.name.removesuffix(self.extension).split("-")
            if not all(n.isdigit() for n in numbers) or prefix not in (self.save_prefix, self.recovery_prefix):
                continue
            ordinal = tuple(int(n) for n in numbers)
            reached = ordinal if prefix == self.recovery_prefix else (ordinal[0] + 1, 0)
            if reached > place:
                (folder / "superseded").mkdir(exist_ok=True)
                replace(file, folder / "superseded" / file.name)
            elif prefix == self.recovery_prefix:
                recoveries.append((ordinal, str(file)))
        for name in ("last", "model_best"):
            file = folder / f"{name}{self.extension}"
            with contextlib.suppress(UserError):  # a damaged one is written anew
                if file.exists() and place_of(read(file, verify=False)) > (place[0], 0):
                    (folder / "superseded").mkdir(exist_ok=True)
                    replace(file, folder / "superseded" / file.name)
        kept = [file for _, file in sorted(recoveries)]
        for file in kept[:-2]:
            Path(file).unlink(missing_ok=True)
        self.prev_recovery_file, self.curr_recovery_file = (["", "", *kept])[-2:]


def _epoch_of(file: str) -> int:
    """The epoch in the name of a checkpoint, ``checkpoint-12.pth.tar``."""
    return int(Path(file).name.partition(".")[0].rpartition("-")[2])
