"""``dynconv convert``: a checkpoint from elsewhere into a file that a timm model with dynamic convolutions loads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import UserError, require

_SUFFIX = ".safetensors"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``convert`` to the commands of ``dynconv``."""
    parser = subparsers.add_parser(
        "convert",
        help="turn weights from elsewhere into a model's",
        description="Reads the published ODConv's, timm's or torchvision's weights, maps them to a model of this "
        "package, and writes what timm's --checkpoint and --initial-checkpoint load.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help=".safetensors, or what torch.save wrote")
    parser.add_argument("--model", required=True, metavar="NAME", help="e.g. resnet50_odconv4x")
    parser.add_argument(
        "--model-kwargs", nargs="+", default=[], metavar="NAME=VALUE", help="e.g. num_classes=200 stride_in_1x1=True"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help=f"file to write, ending in {_SUFFIX}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Converts; `args` as `add_parser` has them.

    Raises:
        UserError: If the source cannot be read, the model not be built or written, or the two do not fit.
    """
    if args.out.suffix != _SUFFIX:
        raise UserError(f"--out {args.out} must end in {_SUFFIX}")
    if not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: the folder {args.out.parent} does not exist")
    require("timm", extra="timm")
    from safetensors.torch import save

    from ..datasets.files import write
    from .conversion import convert_checkpoint
    from .reading import read

    content = read(args.source)
    weights = convert_checkpoint(content, _build(args.model, args.model_kwargs))
    try:
        write(args.out, save({key: value.contiguous() for key, value in weights.items()}))
    except PermissionError as e:
        raise UserError(f"--out {args.out}: {e.strerror}") from e
    print(f"{args.out}: {len(weights)} entries for {args.model}")


def _build(name: str, assignments: list[str]) -> Any:
    import timm
    from timm.utils.misc import ParseKwargs

    from timm_models.run import as_user_error

    parser = argparse.ArgumentParser()
    parser.add_argument("--model-kwargs", nargs="*", action=ParseKwargs, default={})
    wrong = [a for a in assignments if "=" not in a or a.startswith("-")]
    if wrong:
        raise UserError(f"--model-kwargs takes NAME=VALUE, got {wrong[0]}")
    kwargs = parser.parse_args(["--model-kwargs", *assignments]).model_kwargs
    try:
        return timm.create_model(name, **kwargs)
    except RuntimeError as e:
        mistake = as_user_error(e)
        if mistake is None:
            raise
        raise mistake from e
    except (TypeError, ValueError) as e:  # what constructors raise for a bad argument
        raise UserError(f"{name} cannot be built with --model-kwargs {' '.join(assignments)}: {e}") from e
