"""One epoch of training, one pass of validation."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext

import torch
from timm import utils
from torch import nn
from tqdm import tqdm

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError

from .budgets import match_scale
from .data import start_epoch
from .job import Job
from .replay import BadImage
from .seeds import Purpose, seed_device

_logger = logging.getLogger("train")


def batches(bar: tqdm):
    """Yields a loader's batches; a bad image ends in its own one line, not in a worker's traceback."""
    try:
        yield from bar
    except BadImage as e:
        raise UserError(str(e).strip().splitlines()[-1].rpartition("BadImage: ")[2]) from None
    except RuntimeError as e:
        if not str(e).startswith("DataLoader worker"):
            raise
        raise UserError(f"a loader process died ({str(e).splitlines()[0]}): out of memory? try fewer --workers") from e
    finally:
        bar.close()


def train_epoch(job: Job) -> None:
    """Trains from ``job.progress`` to the end of its epoch, and keeps it up to date."""
    args, world, task, progress = job.args, job.world, job.task, job.progress
    total, group = len(job.train_loader), args.grad_accum_steps
    if job.mixup is not None:
        job.mixup.mixup_enabled = not args.mixup_off_epoch or progress.epoch < args.mixup_off_epoch
    start_epoch(job.train_loader, progress.epoch, progress.batch, args.batch_size)
    task.get_trainable_module().train()
    job.optimizer.zero_grad()
    bar = job.bar(job.train_loader, f"epoch {progress.epoch}", progress.batch)
    loss_sum, loss_count = 0.0, 0  # of this rank, since the last update
    for batch, (images, targets) in enumerate(batches(bar), progress.batch):
        seed_device(world.device, Purpose.STEP, args.seed, world.rank, progress.epoch, batch)
        if job.temperature is not None:
            dc.set_temperature(job.model, job.temperature(progress.epoch + batch / total))
        if args.no_prefetcher:
            images, targets = images.to(world.device), targets.to(world.device)
            if job.mixup is not None:
                images, targets = job.mixup(images, targets)
        if args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        update = (batch + 1) % group == 0 or batch + 1 == total
        in_group = min(group, total - batch // group * group)
        if job.has_budget:
            match_scale(job.model, job.scaler, in_group)
        with nullcontext() if update else task.no_sync():
            with job.autocast():
                loss = task(images, targets)["loss"]
            _backward(job, loss / in_group, update)
        loss_sum += loss.item() * len(images)
        loss_count += len(images)
        if not math.isfinite(loss_sum):
            raise UserError(
                f"the loss became {loss.item()} in epoch {progress.epoch}, batch {batch}: try a lower "
                "--lr, --clip-grad or a longer warm-up; earlier checkpoints are intact"
            )
        if not update:
            continue
        job.optimizer.zero_grad()
        # One exchange between the ranks: the loss, and whether any of them has been asked to stop.
        numbers = dc.budget(job.model) if job.has_budget else {}
        stop, loss_sum, loss_count, *sums = world.sum(
            [float(job.stop.signum > 0), loss_sum, loss_count, *numbers.values()]
        )
        progress.batch = batch + 1
        progress.budget = {name: total / world.size for name, total in zip(numbers, sums, strict=True)}
        progress.loss_sum += loss_sum
        progress.loss_count += int(loss_count)
        loss_sum, loss_count = 0.0, 0
        _after_update(job, bar)
        if batch + 1 < total:
            job.save_or_stop(bool(stop))
    if hasattr(job.optimizer, "sync_lookahead"):
        job.optimizer.sync_lookahead()


def _backward(job: Job, loss: torch.Tensor, update: bool) -> None:
    args, task, optimizer = job.args, job.task, job.optimizer
    second_order = getattr(optimizer, "is_second_order", False)
    clipped = None if args.clip_grad is None else list(task.get_trainable_module().parameters())
    if clipped and args.clip_mode == "agc":
        clipped = clipped[:-2]  # adaptive clipping leaves the classifier alone
    if job.scaler is not None:
        job.scaler(loss, optimizer, args.clip_grad, args.clip_mode, clipped, second_order, update)
        return
    loss.backward(create_graph=second_order)
    if update:
        if clipped:
            utils.dispatch_clip_grad(clipped, args.clip_grad, mode=args.clip_mode)
        optimizer.step()


def _after_update(job: Job, bar: tqdm) -> None:
    args, progress, done = job.args, job.progress, job.updates_done
    updates = progress.epoch * job.updates_per_epoch + done
    job.task.update_ema(step=updates)
    if job.scheduler is not None:
        job.scheduler.step_update(num_updates=updates)
    budget = {name: f"{value:.3g}" for name, value in progress.budget.items()}
    bar.set_postfix(loss=f"{progress.train_loss:.4f}", lr=f"{lr_of(job):.2e}", **budget, refresh=False)
    if job.world.primary and bar.disable and (done - 1) % args.log_interval == 0:
        _logger.info(
            f"epoch {progress.epoch} [{done}/{job.updates_per_epoch}] loss {progress.train_loss:.4f} "
            + " ".join([f"lr {lr_of(job):.3e}", *(f"{name} {value}" for name, value in budget.items())])
        )


def lr_of(job: Job) -> float:
    """Returns the mean learning rate of the parameter groups."""
    rates = [group["lr"] for group in job.optimizer.param_groups]
    return sum(rates) / len(rates)


@torch.inference_mode()
def evaluate(job: Job, model: nn.Module, title: str) -> dict[str, float]:
    """Returns the loss and the top-1 and top-5 accuracies (per cent) over the validation split.

    Every image counts once, whatever the number of processes.
    """
    world, loss_fn = job.world, nn.CrossEntropyLoss()
    model.eval()
    left = len(range(world.rank, len(job.eval_loader.dataset), world.size))  # the sampler pads ranks to one length
    sums = [0.0, 0.0, 0.0, 0.0]
    for images, targets in batches(job.bar(job.eval_loader, title)):
        if job.args.no_prefetcher:
            images, targets = images.to(world.device), targets.to(world.device)
        if job.args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with job.autocast():
            logits = model(images)
        logits, targets = logits[:left].float(), targets[:left]
        count = len(targets)
        left -= count
        if count:
            top1, top5 = utils.accuracy(logits, targets, topk=(1, 5))
            row = (loss_fn(logits, targets).item() * count, top1.item() * count, top5.item() * count, count)
            sums = [total + value for total, value in zip(sums, row, strict=True)]
        if world.any(job.stop.signum > 0):
            job.stop_now()
    *totals, count = world.sum(sums)
    return dict(zip(("loss", "top1", "top5"), (total / count for total in totals), strict=True))
