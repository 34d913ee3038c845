"""Sets a run up: data, network, optimiser and schedule, what it resumes from, and its folder."""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack, nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path

import torch
import yaml
from timm import utils
from timm.data import Mixup
from timm.layers import convert_sync_batchnorm
from timm.models import safe_model_name
from torch import nn
from torch.utils.data import Dataset

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError
from dynconv_plugins.locking import sole

from ..inputs import data_config, input_channels
from . import build, data
from .checkpoint import Saver
from .job import Job, StopRequest
from .restore import restore, start_at
from .resume import check_metric, find
from .state import Progress
from .world import World

_logger = logging.getLogger("train")


def prepare(args: argparse.Namespace, world: World, stop: StopRequest, held: ExitStack) -> tuple[Job, Path]:
    """Builds everything, and only then writes anything, to a folder that is then `held`.

    Raises:
        UserError: For anything that is wrong with the arguments, the data or a checkpoint.
    """
    utils.random_seed(args.seed, world.rank)
    channels = input_channels(args)
    datasets = data.open_datasets(args, channels)
    num_classes = _num_classes(args, datasets[0])
    model = build.make_model(args, num_classes)
    args.num_classes = num_classes or model.num_classes
    try:
        config = data_config(vars(args), model, channels)
    except AssertionError:
        raise UserError(f"--mean and --std take 1 or {channels} values") from None
    job = _job(args, world, stop, _placed(args, model, world), datasets, config)
    folder = _name_folder(args, config)
    found = find(args.resume, folder) if args.resume else None
    if found is not None:
        check_metric(found[1], found[0], folder, args.eval_metric)
        restore(job, *found)
    elif args.start_epoch:
        start_at(job, args.start_epoch)
    if args.torchcompile:
        build.compile_task(job.task, args)
    if world.distributed:
        devices = None if world.device.type == "cpu" else [world.device]
        job.task.prepare_distributed(device_ids=devices, **({"broadcast_buffers": False} if args.no_ddp_bb else {}))
    world.barrier()  # nobody reads checkpoints any more
    if world.primary:
        _open_folder(job, folder, found, held)
        _announce(job, folder, datasets, config)
    return job, folder


def _num_classes(args: argparse.Namespace, train_set: Dataset) -> int | None:
    """As asked for, or as the data have; None leaves it to the model."""
    names = data.class_names(train_set)
    if not names:
        return args.num_classes
    most = max(names.values()) + 1
    if args.num_classes and args.num_classes < most:
        raise UserError(f"--num-classes {args.num_classes}, but {args.data_dir} has {most} classes")
    return args.num_classes or most


def _placed(args: argparse.Namespace, model: nn.Module, world: World) -> nn.Module:
    """On its device, in the memory format and with the batch norms that were asked for."""
    model.to(world.device)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    if world.distributed and args.sync_bn:
        args.dist_bn = ""
        model = convert_sync_batchnorm(model)
    return model


def _job(
    args: argparse.Namespace,
    world: World,
    stop: StopRequest,
    model: nn.Module,
    datasets: tuple[Dataset, Dataset | None],
    config: dict,
) -> Job:
    from timm.task import ClassificationTask

    train_set, eval_set = datasets
    train_loader = data.make_train_loader(train_set, args, config, world, args.num_classes)
    eval_loader = data.make_eval_loader(eval_set, args, config, world) if eval_set is not None else None
    if eval_loader is None:
        args.eval_metric = "loss"
    task = ClassificationTask(model, build.make_loss(args), device=world.device, verbose=False)
    args.lr = build.resolve_lr(args, world.size)
    autocast = partial(torch.autocast, world.device.type, getattr(torch, args.amp_dtype)) if args.amp else nullcontext
    # float16 needs its loss scaled; bfloat16 and the CPU do not.
    half = args.amp and world.device.type == "cuda" and args.amp_dtype == "float16"
    mixed = args.no_prefetcher and data.mixes(args)
    job = Job(
        args=args,
        world=world,
        model=model,
        task=task,
        optimizer=build.make_optimizer(model, args),
        scheduler=None,
        scaler=utils.NativeScaler(device=world.device.type) if half else None,
        autocast=autocast,
        mixup=Mixup(**data.mixup_options(args, args.num_classes)) if mixed else None,
        train_loader=train_loader,
        eval_loader=eval_loader,
        progress=Progress(batches=len(train_loader)),
        stop=stop,
        has_budget=bool(dc.budget(model)),
    )
    job.scheduler, args.total_epochs = build.make_scheduler(
        job.optimizer, args, job.updates_per_epoch, args.eval_metric == "loss"
    )
    job.temperature = build.make_temperature(args, model)
    if args.model_ema:
        task.setup_ema(
            decay=args.model_ema_decay,
            use_warmup=args.model_ema_warmup,
            device=torch.device("cpu") if args.model_ema_force_cpu else None,
        )
    return job


def _announce(job: Job, folder: Path, datasets: tuple[Dataset, Dataset | None], config: dict) -> None:
    """The lines that a log begins with."""
    args, (train_set, eval_set) = job.args, datasets
    operators = len(dc.operators_in(job.model))
    _logger.info(
        f"{args.model}: {sum(p.numel() for p in job.model.parameters()):,} parameters"
        + (f", {operators} dynamic operators" if operators else "")
        + f"; {len(train_set)} training images, {len(eval_set) if eval_set is not None else 'no'} for validation, "
        f"{args.num_classes} classes, input {'x'.join(map(str, config['input_size']))}; "
        f"{args.opt}, lr {args.lr:g}, {args.sched}, {args.total_epochs} epochs; "
        f"{job.world.size} x {job.world.device.type}; writing to {folder}"
    )
    if job.first_watched:
        _logger.info(
            f"the temperature falls at first: --eval-metric counts from epoch {job.first_watched}, for the best "
            "checkpoint, a plateau and early stopping"
        )


def _name_folder(args: argparse.Namespace, config: dict) -> Path:
    if not args.experiment:
        now = datetime.now().strftime("%Y%m%d-%H%M%S")
        args.experiment = f"{now}-{safe_model_name(args.model)}-{config['input_size'][-1]}"
    return Path(args.output or "output/train") / args.experiment


def _open_folder(job: Job, folder: Path, found: tuple[Path, dict] | None, held: ExitStack) -> None:
    """Makes the run's folder and its saver; an earlier run of that name that is not resumed is moved aside."""
    if folder.is_dir():
        with sole(folder, "--experiment"):
            pass
    resumes_here = found is not None and found[0].parent.resolve() == folder.resolve()
    if not resumes_here and any(folder.glob("*.pth.tar")):
        number = next(n for n in range(1, 10**6) if not folder.with_name(f"{folder.name}.{n}").exists())
        aside = folder.with_name(f"{folder.name}.{number}")
        folder.rename(aside)
        _logger.info(f"{folder} held an earlier run, which is now {aside} (--resume auto would have continued it)")
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(sole(folder, "--experiment"))
    once = ("total_epochs", "resume", "start_epoch", "no_resume_opt")
    settings = {k: v for k, v in vars(job.args).items() if k not in once}
    temporary = folder / "args.yaml.tmp"
    temporary.write_text(yaml.safe_dump(settings, default_flow_style=False))
    temporary.replace(folder / "args.yaml")
    job.saver = Saver(
        arch=job.args.model,
        arguments={**settings, "world_size": job.world.size},
        progress=job.progress.to_dict,
        model=job.task.get_trainable_module(),
        optimizer=job.optimizer,
        amp_scaler=job.scaler,
        task=job.task,
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
        decreasing=job.args.eval_metric == "loss",
        max_history=job.args.checkpoint_hist,
    )
    if found is not None:
        path, state = found
        job.saver.adopt(state, path, (job.progress.epoch, job.updates_done), job.first_watched)
