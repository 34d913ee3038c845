"""``python -m timm_models train DATA --model NAME``: sets a run up, goes through its epochs, ends it."""

from __future__ import annotations

import argparse
import importlib
import logging
import shlex
import sys
from collections.abc import Sequence
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
from tqdm.contrib.logging import logging_redirect_tqdm

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError, require
from dynconv_plugins.locking import sole

from ..inputs import data_config, input_channels
from . import build, data
from .args import parse
from .checkpoint import Saver
from .epochs import run_epochs
from .job import Job, Stopped, StopRequest
from .restore import restore, start_at
from .resume import check_metric, find
from .state import Progress
from .world import World, join

_logger = logging.getLogger("train")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains as the command line `argv` says.

    Returns:
        0, or 128 + the signal that stopped the run; then it can be resumed, and the command has been printed.

    Raises:
        UserError: For anything that is wrong with the arguments, the data or a checkpoint.
    """
    args = parse(argv)
    require("timm.task", extra="timm")
    if not logging.root.handlers:
        utils.setup_default_logging()
    for module in args.device_modules or ():
        try:
            importlib.import_module(module)
        except ImportError as e:
            raise UserError(f"--device-modules {module}: {e}") from None
    world = join(args.device)
    if not world.primary:
        logging.disable(logging.WARNING)
    try:
        with StopRequest() as stop, logging_redirect_tqdm():
            return _run(args, world, stop)
    finally:
        world.close()


def _run(args: argparse.Namespace, world: World, stop: StopRequest) -> int:
    with ExitStack() as held:
        return _train(args, world, *_prepare(args, world, stop, held))


def _train(args: argparse.Namespace, world: World, job: Job, folder: Path) -> int:
    try:
        run_epochs(job, folder)
    except Stopped as e:
        if world.primary:
            resume = f"{Path(sys.executable).name} -m timm_models train -c {shlex.quote(str(folder / 'args.yaml'))}"
            _logger.info(
                f"stopped in epoch {job.progress.epoch} after {job.progress.batch} batches, all is saved; "
                f"go on with: {resume} --resume auto"
            )
        return 128 + e.signum
    except torch.OutOfMemoryError:
        raise UserError(
            f"out of memory on {world.device}: use a smaller --batch-size, with --grad-accum-steps for the "
            "same optimiser step; earlier checkpoints are intact"
        ) from None
    return 0


def _prepare(args: argparse.Namespace, world: World, stop: StopRequest, held: ExitStack) -> tuple[Job, Path]:
    """Builds everything, and only then writes anything, to a folder that is then `held`."""
    utils.random_seed(args.seed, world.rank)
    channels = input_channels(args)
    train_set, eval_set = data.open_datasets(args, channels)
    names = data.class_names(train_set)
    num_classes = args.num_classes or (max(names.values()) + 1 if names else None)
    if names and num_classes <= max(names.values()):
        raise UserError(f"--num-classes {num_classes}, but {args.data_dir} has {max(names.values()) + 1} classes")

    model = build.make_model(args, num_classes)
    num_classes = args.num_classes = num_classes or model.num_classes
    try:
        config = data_config(vars(args), model, channels)
    except AssertionError:
        raise UserError(f"--mean and --std take 1 or {channels} values") from None
    model.to(world.device)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    if world.distributed and args.sync_bn:
        args.dist_bn = ""
        model = convert_sync_batchnorm(model)
    train_loader = data.make_train_loader(train_set, args, config, world, num_classes)
    eval_loader = data.make_eval_loader(eval_set, args, config, world) if eval_set is not None else None
    if eval_loader is None:
        args.eval_metric = "loss"

    from timm.task import ClassificationTask

    task = ClassificationTask(model, build.make_loss(args), device=world.device, verbose=False)
    args.lr = build.resolve_lr(args, world.size)
    optimizer = build.make_optimizer(model, args)
    # float16 needs its loss scaled; bfloat16 and the CPU do not.
    half = args.amp and world.device.type == "cuda" and args.amp_dtype == "float16"
    job = Job(
        args=args,
        world=world,
        model=model,
        task=task,
        optimizer=optimizer,
        scheduler=None,
        scaler=utils.NativeScaler(device=world.device.type) if half else None,
        autocast=partial(torch.autocast, world.device.type, getattr(torch, args.amp_dtype))
        if args.amp
        else nullcontext,
        mixup=Mixup(**data.mixup_options(args, num_classes)) if args.no_prefetcher and data.mixes(args) else None,
        train_loader=train_loader,
        eval_loader=eval_loader,
        progress=Progress(batches=len(train_loader)),
        stop=stop,
        has_budget=bool(dc.budget(model)),
    )
    job.scheduler, args.total_epochs = build.make_scheduler(
        optimizer, args, job.updates_per_epoch, args.eval_metric == "loss"
    )
    job.temperature = build.make_temperature(args, model)
    if args.model_ema:
        task.setup_ema(
            decay=args.model_ema_decay,
            use_warmup=args.model_ema_warmup,
            device=torch.device("cpu") if args.model_ema_force_cpu else None,
        )

    folder = _name_folder(args, config)
    found = find(args.resume, folder) if args.resume else None
    if found is not None:
        check_metric(found[1], found[0], folder, args.eval_metric)
        restore(job, *found)
    elif args.start_epoch:
        start_at(job, args.start_epoch)
    if args.torchcompile:
        build.compile_task(task, args)
    if world.distributed:
        devices = None if world.device.type == "cpu" else [world.device]
        task.prepare_distributed(device_ids=devices, **({"broadcast_buffers": False} if args.no_ddp_bb else {}))
    world.barrier()  # nobody reads checkpoints any more
    if world.primary:
        _open_folder(job, folder, found, held)
        operators = len(dc.operators_in(model))
        _logger.info(
            f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters"
            + (f", {operators} dynamic operators" if operators else "")
            + f"; {len(train_set)} training images, {len(eval_set) if eval_set is not None else 'no'} for validation, "
            f"{num_classes} classes, input {'x'.join(map(str, config['input_size']))}; "
            f"{args.opt}, lr {args.lr:g}, {args.sched}, {args.total_epochs} epochs; "
            f"{world.size} x {world.device.type}; writing to {folder}"
        )
        if job.first_watched:
            _logger.info(
                f"the temperature falls at first: --eval-metric counts from epoch {job.first_watched}, for the best "
                "checkpoint, a plateau and early stopping"
            )
    return job, folder


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
    settings = {k: v for k, v in vars(job.args).items() if k not in ("total_epochs", "resume", "start_epoch")}
    temporary = folder / "args.yaml.tmp"
    temporary.write_text(yaml.safe_dump(settings, default_flow_style=False))
    temporary.replace(folder / "args.yaml")
    job.saver = Saver(
        arch=job.args.model,
        arguments=settings,
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
