"""Putting a checkpoint's state back into a job that has just been built."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from timm.models import clean_state_dict

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError

from .build import load_plateau_state
from .job import Job
from .resume import check_arch, load_weights
from .state import Progress

_logger = logging.getLogger("train")

# What the course of a run depends on; a resumed run that changes one is a different run, which is worth a line.
_BINDING = (
    *("batch_size", "grad_accum_steps", "seed", "sched", "epochs", "lr", "mixup", "cutmix", "smoothing"),
    *("opt", "weight_decay", "momentum", "opt_betas", "opt_eps", "opt_kwargs", "layer_decay"),
    *("warmup_epochs", "warmup_lr", "min_lr", "decay_epochs", "decay_rate", "patience_epochs", "cooldown_epochs"),
)
# Those that an optimiser's groups of parameters hold, and come back with its state.
_IN_GROUPS = {
    "lr": ("lr", "initial_lr"),
    "weight_decay": ("weight_decay",),
    "momentum": ("momentum",),
    "opt_betas": ("betas",),
    "opt_eps": ("eps",),
    "layer_decay": ("lr_scale",),
}


def restore(job: Job, path: Path, state: dict[str, Any]) -> None:
    """Restores weights, average, optimiser, scaler, schedule and place from the checkpoint `state`.

    Must be called before the model is compiled or wrapped.

    Raises:
        UserError: If the checkpoint is of another architecture or does not fit.
    """
    args = job.args
    check_arch(state, path, args.model)
    weights = clean_state_dict(state["state_dict"])
    load_weights(job.model, weights, path)
    if job.task.has_ema():
        averaged = state.get("state_dict_ema")
        ema = job.task.get_trainable_module(ema=True).module
        load_weights(ema, clean_state_dict(averaged) if averaged is not None else weights, path)
    fresh = args.no_resume_opt or "optimizer" not in state
    if not fresh:
        _load_optimizer(job, path, state)
    if not args.no_resume_opt and job.scaler is not None and job.scaler.state_dict_key in state:
        job.scaler.load_state_dict(state[job.scaler.state_dict_key])
    _restore_place(job, path, state)
    _restore_schedule(job, fresh or "lr" in _changed(job, state))
    if job.temperature is not None:
        set_temperatures(job)
    _logger.info(f"resuming from {path}: epoch {job.progress.epoch}, batch {job.progress.batch}")


def _arguments(state: dict[str, Any]) -> dict[str, Any]:
    return state["args"] if isinstance(state.get("args"), dict) else {}


def _changed(job: Job, state: dict[str, Any]) -> list[str]:
    then = _arguments(state)
    return [k for k in _BINDING if k in then and then[k] != getattr(job.args, k)]


def _load_optimizer(job: Job, path: Path, state: dict[str, Any]) -> None:
    """Loads its state, but for what the arguments have changed.

    The state of another optimiser, or of other groups of parameters, would end in an error of torch's, or later.
    """
    then, args, optimizer = _arguments(state), job.args, job.optimizer
    advice = f"{path} holds the state of another optimiser; --no-resume-opt takes its weights alone"
    if then.get("opt", args.opt) != args.opt:
        raise UserError(f"{advice} (--opt {then['opt']} -> {args.opt})")
    asked = [dict(group) for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state["optimizer"])
    except (ValueError, KeyError) as e:
        raise UserError(f"{advice} ({' '.join(str(e).split())})") from None
    changed = _changed(job, state)
    keys = {key for name in changed for key in _IN_GROUPS.get(name, ())}
    if "opt_kwargs" in changed:
        keys |= {*args.opt_kwargs, *then["opt_kwargs"]}
    for group, new in zip(optimizer.param_groups, asked, strict=True):
        group.update({key: new[key] for key in keys if key in new})


def start_at(job: Job, epoch: int) -> None:
    """Lets a run without a checkpoint begin with a later epoch, as timm does: the schedules are where they would be."""
    job.progress.epoch = epoch
    _restore_schedule(job, fresh=True)
    if job.temperature is not None:
        set_temperatures(job)


def _restore_place(job: Job, path: Path, state: dict[str, Any]) -> None:
    args, batches = job.args, len(job.train_loader)
    saved = state.get("trainer")
    progress = Progress.from_dict(saved) if saved else Progress(epoch=state.get("epoch", -1) + 1)
    if not saved:
        _logger.warning(f"{path} was not written by this trainer: going on with the next epoch, without its history")
    then = _arguments(state)
    changed = [f"{k} {then[k]} -> {getattr(args, k)}" for k in _changed(job, state)]
    if (size := then.get("world_size", job.world.size)) != job.world.size:
        changed.append(f"processes {size} -> {job.world.size}")
    if changed:
        _logger.warning(f"not an exact resume, arguments changed: {', '.join(changed)}")
    if progress.batch and progress.batches != batches:
        _logger.warning(
            f"epochs had {progress.batches} batches and now have {batches}: epoch {progress.epoch} starts again"
        )
        progress.batch, progress.loss_sum, progress.loss_count = 0, 0.0, 0
    if args.start_epoch is not None:
        progress = Progress(epoch=args.start_epoch, history=progress.history, plateau=progress.plateau)
        progress.history = [row for row in progress.history if row["epoch"] < args.start_epoch]
    progress.batches = batches
    job.progress = progress


def _restore_schedule(job: Job, fresh: bool) -> None:
    """Brings the schedule to the place reached; `fresh` says that the learning rate is not the optimiser's of then."""
    progress, scheduler, args = job.progress, job.scheduler, job.args
    if scheduler is None:
        return
    if hasattr(scheduler, "lr_scheduler"):
        if not args.no_resume_opt:
            load_plateau_state(scheduler, progress.plateau)
        # Else its learning rate has come back with the optimiser.
        if fresh:
            scheduler.restore_lr = None
        if fresh and scheduler.warmup_t:
            scheduler.step(min(progress.epoch, scheduler.warmup_t))
        return
    if args.sched_on_updates:
        done = -(-progress.batch // args.grad_accum_steps)
        scheduler.step_update(progress.epoch * job.updates_per_epoch + done)
    elif progress.epoch:  # a run that was not interrupted begins with what the scheduler's constructor sets
        scheduler.step(progress.epoch)


def set_temperatures(job: Job) -> None:
    """Sets the temperature of the place reached on the model and its average, whose buffers would lag behind."""
    temperature = job.temperature(job.progress.epoch + job.progress.batch / len(job.train_loader))
    dc.set_temperature(job.model, temperature)
    if job.task.has_ema():
        dc.set_temperature(job.task.get_trainable_module(ema=True).module, temperature)
