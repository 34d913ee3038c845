"""``python -m timm_models train DATA --model NAME``: sets a run up, goes through its epochs, ends it."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from timm import utils
from tqdm.contrib.logging import logging_redirect_tqdm

from dynconv_plugins.errors import UserError, require

from .args import parse
from .epochs import run_epochs
from .job import Job, Stopped, StopRequest
from .prepare import prepare
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
        return _train(args, world, *prepare(args, world, stop, held))


def _train(args: argparse.Namespace, world: World, job: Job, folder: Path) -> int:
    try:
        run_epochs(job, folder)
    except Stopped as e:
        if world.primary:
            _logger.info(
                f"stopped in epoch {job.progress.epoch} after {job.progress.batch} batches, all is saved; "
                f"go on with: {_again(world)} -m timm_models train -c {shlex.quote(str(folder / 'args.yaml'))} "
                "--resume auto"
            )
        return 128 + e.signum
    except torch.OutOfMemoryError:
        raise UserError(
            f"out of memory on {world.device}: use a smaller --batch-size, with --grad-accum-steps for the "
            "same optimiser step; earlier checkpoints are intact"
        ) from None
    return 0


def _again(world: World) -> str:
    """What starts as many processes as there are."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    if world.distributed and local == str(world.size):
        return f"torchrun --nproc-per-node={local}"
    return f"{'(under the same launcher) ' if world.distributed else ''}{Path(sys.executable).name}"
