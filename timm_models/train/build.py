"""The model and what trains it, from timm's factories."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.checkpoints.differences import compare
from dynconv_plugins.checkpoints.reading import read, unwrap
from dynconv_plugins.errors import UnknownName, UserError
from dynconv_plugins.temperature import came_trained

from .. import list_models
from ..inputs import input_channels
from .data import mixes
from .resume import check_arch

_logger = logging.getLogger("train")

# The part of a plateau schedule that training changes.
_COUNTED = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")


def make_model(args: argparse.Namespace, num_classes: int | None) -> nn.Module:
    """Makes the model on the CPU.

    Raises:
        UserError: For an unknown model (with suggestions), unknown or wrong ``--model-kwargs``, weights that are not
            there or lack what the model has.
    """
    name = args.model
    if ":" not in name and not timm.is_model(name.partition(".")[0]):
        raise UnknownName("model", name, timm.list_models())
    if args.model_kwargs.get("features_only"):
        raise UserError("a classifier is trained here: leave features_only out of --model-kwargs")
    ours = name.partition(".")[0] in list_models()
    if args.pretrained_path and not Path(args.pretrained_path).is_file():
        raise UserError(f"checkpoint {args.pretrained_path} does not exist")
    # Of a network of timm's own timm knows more layouts.
    paths = (args.initial_checkpoint, args.pretrained_path if ours else None)
    start = {path: read(path) for path in paths if path}
    content = start.get(args.initial_checkpoint)
    if isinstance(content, dict):  # weights alone do not say whose they are
        check_arch(content, Path(args.initial_checkpoint), name)
    options = {
        "in_chans": input_channels(args),
        "num_classes": num_classes,
        "drop_rate": args.drop,
        "drop_path_rate": args.drop_path,
        "drop_block_rate": args.drop_block,
        "global_pool": args.gp,
        "bn_momentum": args.bn_momentum,
        "bn_eps": args.bn_eps,
    }
    try:
        for path, content in start.items() if ours else ():
            _check(content, path, name, {**options, **args.model_kwargs}, static=path == args.pretrained_path)
        if args.pretrained_path:
            # With a number of classes that is never the model's, timm leaves the file's classifier out.
            options["pretrained_cfg_overlay"] = {"file": args.pretrained_path, "num_classes": -1}
        model = timm.create_model(
            name,
            pretrained=args.pretrained or bool(args.pretrained_path),
            checkpoint_path=args.initial_checkpoint,
            **options,
            **args.model_kwargs,
        )
    except UserError:
        raise
    except Exception as e:  # whatever a model's constructor makes of its arguments
        kwargs = f" with {' '.join(f'{k}={v}' for k, v in args.model_kwargs.items())}" if args.model_kwargs else ""
        raise UserError(f"cannot make {name}{kwargs}: {' '.join(str(e).split())}") from e
    if args.grad_checkpointing:
        try:
            model.set_grad_checkpointing(enable=True)
        except AssertionError:
            raise UserError(f"{name} cannot recompute activations: leave --grad-checkpointing out") from None
    return model


def _check(content: Any, path: str, name: str, options: dict[str, Any], static: bool) -> None:
    """Raises a UserError if a file lacks more than the classifier of a model of ours: timm would leave it random.

    A `static` network's weights may start its dynamic twin, see `DynamicModel.load_state_dict`.
    """
    try:
        weights = unwrap(content)
    except UserError as e:
        raise UserError(f"checkpoint {path}: {e}") from None
    with torch.device("meta"):
        model = timm.create_model(name, **{key: value for key, value in options.items() if key != "anneal_steps"})
    missing = compare(model.state_dict(), weights).missing
    head = f"{model.pretrained_cfg['classifier']}."
    missing = [key for key in missing if not key.startswith(head) and not key.endswith("num_batches_tracked")]
    operators = tuple(f"{operator}." for operator in dc.operators_in(model))
    if not missing:
        return
    if all(key.startswith(operators) for key in missing) and not any(".attention." in key for key in weights):
        if static:
            return
        raise UserError(
            f"{path} has no attention: start from it by --pretrained-path, or by what 'dynconv convert {path} "
            f"--model {name} --out FILE.safetensors' makes of it, with the same --model-kwargs"
        )
    raise UserError(f"{path} does not fit {name}: {len(missing)} tensors missing (first: {missing[0]})")


def make_temperature(args: argparse.Namespace, model: nn.Module) -> dc.LinearTemperature | None:
    """Makes the temperature's schedule; None where it stays what the model, or its weights, make it.

    Trained attention is used to its temperature, and would forget at another; what was converted from a static network
    computes the same at any, and has yet to learn.
    """
    operators = [op for op in dc.operators_in(model).values() if hasattr(op.attention, "temperature")]
    # A model built with anneal_steps lowers its temperature by itself.
    if not operators or args.model_kwargs.get("anneal_steps"):
        return None
    loaded = args.pretrained or args.pretrained_path or args.initial_checkpoint
    if loaded and args.temperature_epochs is None and any(map(came_trained, operators)):
        now = operators[0].attention.temperature.item()
        _logger.info(f"trained attention keeps its temperature, {now:g}; --temperature-epochs N would anneal it")
        return None
    falling = min(10.0, args.epochs / 2) if args.temperature_epochs is None else args.temperature_epochs
    return dc.LinearTemperature(args.temperature_start, args.temperature_end, falling) if falling > 0 else None


def make_loss(args: argparse.Namespace) -> nn.Module:
    """Makes the training loss; with mixup the smoothing is already in the targets."""
    smoothing = 0.0 if mixes(args) else args.smoothing
    if args.bce_loss:
        return BinaryCrossEntropy(
            smoothing=smoothing,
            target_threshold=args.bce_target_thresh,
            sum_classes=args.bce_sum,
            pos_weight=args.bce_pos_weight,
        )
    if mixes(args):
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(smoothing=smoothing) if smoothing else nn.CrossEntropyLoss()


def resolve_lr(args: argparse.Namespace, world_size: int) -> float:
    """Returns ``--lr``, or timm's scaling of ``--lr-base`` with the global batch size."""
    if args.lr:
        return args.lr
    ratio = args.batch_size * world_size * args.grad_accum_steps / args.lr_base_size
    adaptive = any(word in args.opt.lower() for word in ("ada", "lamb"))
    scale = args.lr_base_scale or ("sqrt" if adaptive else "linear")
    return args.lr_base * (ratio**0.5 if scale == "sqrt" else ratio)


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """Makes timm's optimiser."""
    try:
        return create_optimizer_v2(model, **optimizer_kwargs(cfg=args), **args.opt_kwargs)
    except IndexError:
        raise UserError(f"--opt {args.opt} takes more than {len(args.opt_betas or ())} --opt-betas") from None
    except (AssertionError, ValueError, TypeError, KeyError) as e:
        raise UserError(f"--opt {args.opt}: {' '.join(str(e).split()) or 'not available here'}") from None


def compile_task(task: Any, args: argparse.Namespace) -> None:
    """Compiles the training step and the average's forward, as ``--torchcompile`` says."""
    try:
        task.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
        if task.has_ema():
            task.compile_ema(backend=args.torchcompile, mode=args.torchcompile_mode)
    except RuntimeError as e:  # backends and modes that torch does not know
        raise UserError(f"--torchcompile {args.torchcompile}: {' '.join(str(e).split())}") from None


def make_scheduler(
    optimizer: torch.optim.Optimizer, args: argparse.Namespace, updates_per_epoch: int, decreasing: bool
) -> tuple[Any, int]:
    """Makes timm's learning rate schedule.

    Returns:
        The schedule (None for ``--sched none``) and the number of epochs to train.
    """
    with warnings.catch_warnings():
        # timm warns that checkpoints do not hold the plateau schedule's state; these do.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return create_scheduler_v2(
                optimizer, **scheduler_kwargs(args, decreasing_metric=decreasing), updates_per_epoch=updates_per_epoch
            )
        except (AssertionError, ValueError) as e:
            raise UserError(f"--sched {args.sched}: {' '.join(str(e).split())}") from None


def plateau_state(scheduler: Any) -> dict[str, Any] | None:
    """Returns the state of a plateau schedule, None for the others: they are functions of the epoch or update."""
    inner = getattr(scheduler, "lr_scheduler", None)
    if inner is None:
        return None
    plain = {k: v for k, v in inner.state_dict().items() if isinstance(v, (int, float, str, bool, list, type(None)))}
    return {"inner": plain, "restore_lr": scheduler.restore_lr}


def load_plateau_state(scheduler: Any, state: dict[str, Any] | None) -> None:
    """Restores what `plateau_state` returned, as far as it is not an option; does nothing for other schedules."""
    inner = getattr(scheduler, "lr_scheduler", None)
    # What was best by accuracy says nothing of a loss.
    if state is not None and inner is not None and state["inner"].get("mode", inner.mode) == inner.mode:
        inner.load_state_dict({k: v for k, v in state["inner"].items() if k in _COUNTED})
        scheduler.restore_lr = state["restore_lr"]
