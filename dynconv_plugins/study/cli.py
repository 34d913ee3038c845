"""``dynconv study``: runs a plan and prints its table; ``dynconv report`` draws the rest."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from .. import datasets
from ..errors import UserError, require


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``study`` to the commands of ``dynconv``."""
    from .plan import names

    parser = subparsers.add_parser(
        "study",
        help=__doc__,
        description="Runs a plan: tasks x models x seeds, each cell by its host's own trainer. A second call goes on.",
        epilog="A cell is a folder with command line, log, versions, metrics and checkpoint. See also: dynconv report.",
    )
    parser.add_argument("plan", nargs="?", default="quick", help=f"a YAML file, or one of {', '.join(names())}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/<plan>")
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds the real data sets; default $DYNCONV_DATA")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="only these tasks of the plan")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these networks of it")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these models of it, beside the static ones")
    parser.add_argument("--seeds", type=int, metavar="N", help="instead of the plan's; folds stay")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at a time (default 1)")
    parser.add_argument("--threads", type=int, metavar="N", help="for all of them together; default: all cores")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the cells and an estimate of the time; train nothing, prepare the data in DIR/data",
    )
    parser.add_argument("--no-costs", action="store_true", help="do not measure latency and memory at the end")
    parser.add_argument("--cluster", metavar="NAME", help="submit the cells by submitit: slurm, or local")
    parser.add_argument(
        "--cluster-arg", action="append", default=[], metavar="K=V", help="e.g. slurm_partition=gpu, timeout_min=600"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the study and returns its exit code: 1 if a cell failed, 130 if it was interrupted."""
    if os.name != "posix":
        raise UserError("dynconv study needs Linux or macOS; on Windows, WSL")
    for module in ("rich", "yaml", "fvcore"):
        require(module, extra="study")
    for what in ("jobs", "threads", "seeds"):
        if getattr(args, what) is not None and getattr(args, what) < 1:
            raise UserError(f"--{what} must be at least 1, not {getattr(args, what)}")
    if args.cluster and args.jobs:
        raise UserError("--jobs is for this machine; on a cluster say --cluster-arg array_parallelism=N")
    if args.cluster_arg and not args.cluster:
        raise UserError("--cluster-arg needs --cluster, e.g. --cluster slurm")
    if args.cluster and args.threads:
        raise UserError("--threads is for this machine; on a cluster say --cluster-arg cpus_per_task=N")
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"--data {args.data} is not a folder")
    from ..demo.machine import cores
    from . import plan as plans
    from .study import Study

    plan = plans.narrowed(plans.load(args.plan), args.tasks, args.networks, args.models, args.seeds)
    out = args.out or Path("runs") / plan.name
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; choose another name")
    found = datasets.find(args.data) if args.data is not None else datasets.find()
    # So that a plain `kill`, or a terminal that is closed, stops what is running as Ctrl-C does. Not under nohup.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    study = Study(plan, out, found, args.threads or cores())
    if args.dry_run:
        return study.dry_run(args.jobs or 1)
    if args.cluster:
        return study.submit(args.cluster, args.cluster_arg, args.no_costs)
    return study.run(args.jobs or 1, args.no_costs)
