"""``python -m tsai_models train ...`` and ``python -m tsai_models list``."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from dynconv_plugins.errors import UnknownName, UserError, require, run_cli


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def _positive(kind: type, least: float = 0.0):
    def convert(text: str):
        value = kind(text)
        if not least < value < float("inf"):
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}" if not least else f"{kind.__name__} above {least:g}"
    return convert


def _nonnegative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return value


def _assignment(text: str) -> tuple[str, object]:
    name, equals, word = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        value = ast.literal_eval(word)
        json.dumps(value)  # results.json says what a run was made with
    except (ValueError, SyntaxError, TypeError):
        value = word  # so that `mask=task` needs no quotes within quotes
    return name, value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = _Parser(
        prog="python -m tsai_models",
        description="Classifies time series of equal length by networks with dynamic convolutions, trained with tsai.",
    )
    commands = p.add_subparsers(dest="command", required=True, parser_class=_Parser)
    commands.add_parser("list", help="the architectures of this package")
    t = commands.add_parser("train", help="train over folds or seeds and print the table", allow_abbrev=False)
    t.add_argument("--arch", required=True, help="one of 'list', or any architecture of tsai")
    t.add_argument("--dataset", required=True, help="a UCR data set, or the built-in Diatoms")
    t.add_argument(
        "--folds", type=_positive(int, 1), help="stratified folds of all series; default: the official split"
    )
    t.add_argument("--fold", type=int, metavar="K", help="train only this one of --folds, from 0")
    t.add_argument("--seeds", type=_positive(int), help="runs on the official split (default 1)")
    t.add_argument("--seed", type=int, default=0, help="of the first run (default 0)")
    t.add_argument("--data", metavar="DIR", help="holds UCR/ or the data sets; default $DYNCONV_DATA, else ./data")
    t.add_argument("--out", metavar="DIR", type=Path, help="default runs/tsai/<arch>-<dataset>-<split>")
    t.add_argument("--overwrite", action="store_true", help="forget earlier results in --out")
    t.add_argument("--recipe", default="one-cycle", help="one-cycle (default), study (its Table 1), or strong")
    t.add_argument("--epochs", type=_positive(int), help="instead of the recipe's")
    t.add_argument("--pretrain-epochs", type=_positive(int), help="of the twin of a Net*_DCNN; default as --epochs")
    t.add_argument("--lr", type=_positive(float), help="instead of the recipe's")
    t.add_argument("--batch-size", type=_positive(int), help="instead of the recipe's")
    t.add_argument("--schedule", help="one-cycle, constant or plateau, instead of the recipe's")
    t.add_argument("--differences", type=int, metavar="N", help="feed N differences of the series as further variables")
    for name, says in (
        ("label-smoothing", "share of the target spread over all classes"),
        ("augment", "strength of the random changes of training series; 1 is light, 0 none"),
        ("mixup", "parameter of the Beta distribution that mixes pairs of series; 0 is none"),
        ("ema", "decay of the average over the weights that is kept, e.g. 0.99; 0 is none"),
        ("holdout", "part of the training series held out for validation, e.g. 0.1; 0 is none"),
    ):
        t.add_argument(f"--{name}", type=_nonnegative, metavar="X", help=f"{says}; default the recipe's")
    t.add_argument(
        "--temperature-epochs",
        type=_positive(float),
        metavar="N",
        help="how long the attention's temperature falls from 30 to 1; default 10, or half of fewer than 20 epochs",
    )
    t.add_argument("--static", action="store_true", help="train the static twin of --arch, with the same recipe")
    t.add_argument("--operator", help="make a static architecture dynamic with this operator, e.g. odconv4x")
    t.add_argument("--where", help="which convolutions: blocks, all or a regular expression")
    t.add_argument("--num-kernels", type=_positive(int), help="kernels the operator mixes")
    t.add_argument("--reduction", type=_positive(float), help="width of the operator's attention bottleneck")
    t.add_argument(
        "--operator-arg",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other argument of the operator, e.g. mask=task or rotations=2; repeatable",
    )
    t.add_argument("--device", help="default: cuda where there is one, else cpu")
    return p


def list_archs() -> None:
    """Prints our architectures with their twins and their size for one variable and 37 classes."""
    from rich.console import Console
    from rich.table import Table

    from .archs import ARCHS, build, parameters

    t = Table(title="architectures (parameters for 1 variable, 37 classes)")
    t.add_column("name", no_wrap=True)
    t.add_column("static twin", no_wrap=True)
    t.add_column("parameters", justify="right")
    t.add_column("what it is")
    for name, entry in ARCHS.items():
        size = f"{parameters(build(entry.cls, 1, 37, 176)):,}"
        t.add_row(name, entry.twin.__name__ if entry.twin else "", size, entry.summary)
    Console().print(t)


def train(args: argparse.Namespace) -> int:
    """Checks the arguments against each other and trains."""
    import torch

    from dynconv_plugins import registry

    from .distributed import together
    from .job import Job
    from .recipes import RECIPES
    from .train import run

    if not 0 <= args.seed < 2**31:
        raise UserError(f"--seed lies in 0..2147483647, not {args.seed}")
    if args.recipe not in RECIPES:
        raise UnknownName("recipe", args.recipe, RECIPES)
    if args.operator:
        registry.get(args.operator)
    if args.folds and args.seeds:
        raise UserError("--folds and --seeds exclude each other: folds use all series, seeds repeat the official split")
    of_recipes = ("epochs", "lr", "batch_size", "schedule", "differences")
    of_recipes += ("label_smoothing", "augment", "mixup", "ema", "holdout")
    overrides = {name: value for name in of_recipes if (value := getattr(args, name)) is not None}
    operator_args = {"num_kernels": args.num_kernels, "reduction": args.reduction, "where": args.where}
    operator_args = {k: v for k, v in operator_args.items() if v is not None}
    for name, value in args.operator_arg:
        if name in operator_args or name == "where":
            raise UserError(f"--operator-arg {name}=... says again what has an option or a value already")
        operator_args[name] = value
    job = Job(
        arch=args.arch,
        dataset=args.dataset,
        recipe=replace(RECIPES[args.recipe], **overrides),
        pretrain_epochs=args.pretrain_epochs,
        static=args.static,
        operator=args.operator,
        operator_args=operator_args,
        folds=args.folds,
        fold=args.fold,
        seed=args.seed,
        temperature_epochs=args.temperature_epochs,
    )
    try:
        device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device).cpu()  # which one without memory ("meta") cannot do
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"no device '{args.device}' here; leave --device out to use what there is") from None
    name = "-".join(filter(None, (args.arch, args.operator, "static" if args.static else "", args.dataset)))
    split = f"{args.folds}folds" if args.folds else "official"
    if args.fold is not None:
        split += f"-fold{args.fold}"
    out = args.out or Path("runs/tsai") / f"{name}-{split}"
    return together(lambda device: run(job, args.seeds or 1, args.data, out, device, args.overwrite), device)


def main() -> int | None:
    args = parser().parse_args()
    with warnings.catch_warnings(record=True):
        # What tsai's own imports warn of is nothing that a user of this command can act on.
        require("tsai", extra="tsai")
        importlib.import_module("tsai_models.train")
    return train(args) if args.command == "train" else list_archs()


if __name__ == "__main__":
    run_cli(main)
