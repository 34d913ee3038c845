"""The epochs of a run: train, validate, schedule, record, save."""

from __future__ import annotations

import csv
import logging
import os
import time
from pathlib import Path
from typing import Any

from timm import utils

from dynconv_plugins.errors import require

from .build import plateau_state
from .checkpoint import rankable
from .job import Job
from .loop import evaluate, lr_of, train_epoch
from .restore import set_temperatures

_logger = logging.getLogger("train")


def run_epochs(job: Job, folder: Path) -> None:
    """Goes from the place reached to the last epoch, or to where early stopping ends the run."""
    args, progress, world = job.args, job.progress, job.world
    board = _open_board(job, folder)
    if world.primary:
        rewrite_summary(folder / "summary.csv", progress.history)
    try:
        while progress.epoch < args.total_epochs and not _is_stale(job):
            started = time.monotonic()
            if progress.batch < len(job.train_loader):
                train_epoch(job)
                _finish_training(job)
                # A checkpoint after the last update waits until here: before, the ranks' statistics differ.
                job.save_or_stop(world.any(job.stop.signum > 0))
            last = progress.epoch + 1 == args.total_epochs
            if (progress.epoch + 1) % args.val_interval and not last:
                _step_schedule(job, None)
                progress.next_epoch()
                continue
            row = {"epoch": progress.epoch, "train": {"loss": progress.train_loss}, "eval": _validate(job)}
            row |= {"lr": lr_of(job), "budget": dict(progress.budget)}
            metric = progress.metric(row, args.eval_metric)
            progress.history.append(row)
            if row["epoch"] < job.first_watched:
                metric = None
            _step_schedule(job, metric)
            progress.next_epoch()
            if world.primary:
                _record(row, folder, board, time.monotonic() - started)
                job.saver.save_checkpoint(row["epoch"], metric=rankable(metric))
            if world.any(job.stop.signum > 0):
                job.stop_now(save=False)
    finally:
        if board is not None:
            board.close()
    if world.primary:
        _conclude(job, folder)


def _finish_training(job: Job) -> None:
    """Brings the ranks' statistics and the average's temperature together."""
    args, world = job.args, job.world
    ema = job.task.get_trainable_module(ema=True)
    if world.distributed and args.dist_bn:
        utils.distribute_bn(job.model, world.size, args.dist_bn == "reduce")
        # Not on the CPU, which the processes of GPUs cannot exchange (as in timm): there only the primary's is used.
        if ema is not None and not args.model_ema_force_cpu:
            # From the primary, whose average a checkpoint inside an epoch holds: that resume must be exact too.
            utils.distribute_bn(ema.module, world.size, False)
    if job.temperature is not None:
        set_temperatures(job)


def _validate(job: Job) -> dict[str, float]:
    """Validates the model and, if there is one, its average, whose numbers then count (as in timm)."""
    if job.eval_loader is None:
        return {}
    metrics = evaluate(job, job.task.get_eval_model(), f"validate {job.progress.epoch}")
    if job.task.has_ema() and not job.args.model_ema_force_cpu:
        if job.world.primary:
            _logger.info(f"epoch {job.progress.epoch}: without averaging " + _numbers(metrics))
        metrics = evaluate(job, job.task.get_eval_model(ema=True), f"validate {job.progress.epoch} (EMA)")
    return metrics


def _step_schedule(job: Job, metric: float | None) -> None:
    if job.scheduler is not None:
        job.scheduler.step(job.progress.epoch + 1, metric)
        job.progress.plateau = plateau_state(job.scheduler)


def _is_stale(job: Job) -> bool:
    patience = job.args.early_stop
    return patience > 0 and job.progress.stale(job.args.eval_metric, job.first_watched) >= patience


def _open_board(job: Job, folder: Path) -> Any:
    if not (job.args.log_tensorboard and job.world.primary):
        return None
    require("tensorboard", extra="timm")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=job.progress.epoch)


def rewrite_summary(path: Path, history: list[dict[str, Any]]) -> None:
    """Makes summary.csv hold exactly the rows of `history`, or removes it if there are none."""
    temporary = path.with_suffix(".csv.tmp")
    temporary.unlink(missing_ok=True)
    for number, row in enumerate(history):
        _append(temporary, row, header=number == 0)
    if history:
        os.replace(temporary, path)
    else:
        path.unlink(missing_ok=True)


def _append(path: Path, row: dict[str, Any], header: bool) -> None:
    """Appends a row with timm's columns and, for hard attention, its two numbers after them."""
    values = {"epoch": row["epoch"]}
    for split in ("train", "eval"):
        values |= {f"{split}_{name}": value for name, value in row[split].items()}
    values |= {"lr": row["lr"], **row.get("budget", {})}
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, values)
        if header:
            writer.writeheader()
        writer.writerow(values)


def _record(row: dict[str, Any], folder: Path, board: Any, seconds: float) -> None:
    path = folder / "summary.csv"
    _append(path, row, header=not path.exists())
    if board is not None:
        for split in ("train", "eval", "budget"):
            for name, value in row[split].items():
                board.add_scalar(f"{split}/{name}", value, row["epoch"])
        board.add_scalar("lr", row["lr"], row["epoch"])
        board.flush()
    evaluated = f", validation {_numbers(row['eval'])}" if row["eval"] else ""
    _logger.info(
        f"epoch {row['epoch']}: training loss {row['train']['loss']:.4f}{evaluated}, lr {row['lr']:.3e}, "
        f"{seconds:.1f} s"
    )


def _numbers(metrics: dict[str, float]) -> str:
    return f"loss {metrics['loss']:.4f} top1 {metrics['top1']:.2f} top5 {metrics['top5']:.2f}"


def _conclude(job: Job, folder: Path) -> None:
    name, progress = job.args.eval_metric, job.progress
    best = progress.best(name, job.first_watched)
    if _is_stale(job):
        _logger.info(f"stopped early: no better {name} in {job.args.early_stop} validations")
    if best is not None:
        _logger.info(
            f"done after {progress.epoch} epochs; best {name} {progress.metric(best, name):.4f} in epoch "
            f"{best['epoch']}{_where(job, folder / 'model_best.pth.tar', best['epoch'])}"
        )


def _where(job: Job, path: Path, epoch: int) -> str:
    """Where the best checkpoint lies: of a run that went on in a folder of its own, it may lie in the one before."""
    if job.saver.best_epoch == epoch:
        return f": {path}"
    return ", in the run before" + (f"; {path} is of epoch {job.saver.best_epoch}" if path.is_file() else "")
