"""``dynconv explain``: what every layer's attention did for one input."""

from __future__ import annotations

import argparse
import ast
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from ..errors import UserError, require

EPILOG = """\
MODEL is a name of timm's (resnet18_odconv; see 'dynconv models') or a config of mmsegmentation, by name or file, for
an image, and an architecture of tsai_models (ODConvFCN) for a series. Every operator is covered: mixes of kernels (by
position for localsoft), taps, channel and filter gates, DCD's latent mixing. orconv has no attention; shown is which
rotation wins where. hard's mask for a task does not depend on the input; shown is what it leaves on.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``explain`` to the commands of ``dynconv``."""
    p = subparsers.add_parser("explain", help=__doc__, description=__doc__, epilog=EPILOG)
    p.add_argument("model", nargs="?", metavar="MODEL", help="not needed with a study's cell")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", type=Path, metavar="FILE")
    source.add_argument("--series", metavar="FILE.tsv|NAME", help="a file, or a UCR data set, see --data")
    p.add_argument(
        "--data", type=Path, metavar="DIR", help="holds UCR/ or the data sets; default $DYNCONV_DATA, else ./data"
    )
    p.add_argument("--index", type=int, metavar="I", help="with --series: which one, from 0 (default 0)")
    p.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="of our trainers (last.pth.tar, model_best.pth.tar, model.pth), a plain state dict, safetensors, or the "
        "folder of a study's cell; default: random weights",
    )
    p.add_argument("--operator", metavar="NAME", help="with --series: the operator, instead of the architecture's own")
    p.add_argument(
        "--operator-arg",
        action="append",
        default=[],
        type=_assignment,
        metavar="NAME=VALUE",
        help="argument of the operator or the model, e.g. num_kernels=8, where=initial, small_stem=True; repeatable",
    )
    p.add_argument("--input-size", type=int, metavar="N", help="with --image: its side in pixels; default: the model's")
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="default: a folder below runs/explain for each input and weights"
    )
    p.set_defaults(run=run)


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, word = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return name, word


def run(args: argparse.Namespace) -> int:
    """Explains one input: a table on the terminal, ``attention.png`` and ``attention.json`` in a folder."""
    for module in ("rich", "matplotlib", "PIL"):
        require(module, "study")
    from rich.console import Console

    from ..writing import write_json
    from . import images, series, summary
    from .draw import draw, plt
    from .layers import explain

    if args.input_size is not None and args.input_size < 8:
        raise UserError(f"--input-size must be at least 8, not {args.input_size}")
    arguments = dict(args.operator_arg)
    if args.image is not None:
        if args.operator:
            named = f"{args.model or 'resnet18'}_{args.operator}"
            raise UserError(f"--operator goes with --series; for images the name says it: {named}")
        if args.index is not None:
            raise UserError("--index goes with --series: an image is one")
        if args.data is not None:
            raise UserError("--data goes with --series: an image is a file")
        look, words = images.subject, (args.model, args.image, args.checkpoint, arguments, args.input_size)
        stem = args.image.stem
    else:
        if args.input_size is not None:
            raise UserError("--input-size goes with --image: a series is as long as it is")
        index = args.index or 0
        words = (args.model, args.series, index, args.checkpoint, args.operator, arguments, args.data)
        look = series.subject
        stem = f"{Path(args.series).stem}-{index}"
    with warnings.catch_warnings():
        # What hosts' own imports warn of is nothing that a user of this command can act on.
        warnings.simplefilter("ignore")
        subject = look(*words)
    try:
        layers, y = explain(subject.model, subject.x)
    # An image too small for the network's strides, say, or a head that mmseg calls with more than features.
    except (RuntimeError, TypeError, ValueError) as e:
        raise UserError(f"{subject.title}: the network cannot run on it: {str(e).splitlines()[0]}") from None
    top = subject.top(y)
    name = Path(args.model).stem if (args.model or "").endswith(".py") else args.model
    out = args.out or Path("runs/explain") / "-".join([*filter(None, (name, _named(args.checkpoint))), stem])
    figure = draw(layers, subject.shown, subject.title, subject.weights, top, subject.says)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    plt.close(figure)
    record = {
        "title": subject.title,
        "weights": subject.weights,
        "input_size": list(subject.x.shape),
        "prediction": [{"class": name, "probability": value} for name, value in top],
        "layers": summary.as_json(layers),
    }
    _make(out)
    _write(out / "attention.png", data.getvalue())
    write_json(out / "attention.json", record)
    console = Console(width=None if sys.stdout.isatty() else 140)
    rows, legend = summary.table(layers)
    console.print(f"{subject.title}; {subject.weights}", highlight=False, markup=False, soft_wrap=True)
    console.print(rows)
    said = ", ".join(f"{name} {value:.1%}" for name, value in top)
    for line in (legend, f"{subject.says}: {said}", f"written to {out}: attention.png, attention.json"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def _named(checkpoint: Path | None) -> str:
    """Tells weights apart: a cell's folder by task, model and run, a file by its folder and itself."""
    if checkpoint is None:
        return ""
    path = checkpoint.resolve()
    return "-".join(path.parts[-3:] if path.is_dir() else (path.parent.name, path.name.partition(".")[0]))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out {folder} is not a folder") from None
    except PermissionError as e:
        raise UserError(f"--out {folder} cannot be made: {e.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
