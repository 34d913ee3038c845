"""What attention costs, layer by layer: pooling and heads, the engine, and the static convolution of the same geometry.

    python -m benchmarks.heads [--network resnet18] [--operator odconv] [--train] [--json FILE]

Each layer gets the input it has in the network. `attention` is all from the input to the factors, `convolve` what the
engine does with them; the three take turns in every round. Operations are those that touch data: views are not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError, run_cli
from dynconv_plugins.writing import write_json

from .checks import check_files, check_positive
from .models import SMALL
from .networks import FCN, STEMS, check_network, dynamic, shape
from .record import machine
from .timing import compare, warm_up

PARTS = ("attention", "convolve", "static")


class Launches(TorchDispatchMode):
    """Notes the operations that are executed while it is active, but not those that make a view or reserve memory."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(("empty", "_unsafe_view")):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def inputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each dynamic convolution of the model is given when the model gets `x`."""
    seen: dict[str, Tensor] = {}
    handles = [
        op.register_forward_pre_hook(lambda _m, args, name=name: seen.__setitem__(name, args[0].detach()))
        for name, op in dc.operators_in(model).items()
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return seen


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a call's result, an attention or an output."""
    return [value] if isinstance(value, Tensor) else [t for t in value if isinstance(t, Tensor)]


def call(forward: Callable[[], Any], leaves: list[Tensor], train: bool) -> Callable[[], Any]:
    """Forward alone, or forward and the gradients of all `leaves`."""
    if not train:
        return torch.inference_mode()(forward)

    def both() -> Any:
        ys = [y for y in tensors(forward()) if y.requires_grad]
        return torch.autograd.grad(ys, leaves, [torch.ones_like(y) for y in ys], allow_unused=True)

    return both


def measure(op: nn.Module, x: Tensor, train: bool, seconds: float) -> dict[str, Any]:
    """Seconds of each of `PARTS`, and the operations that attention takes."""
    op.train(train)
    x = x.clone(memory_format=torch.preserve_format).requires_grad_(train)
    with torch.no_grad():
        attention = op.attend(x)
    given = type(attention)(*(t.detach().requires_grad_(train) if isinstance(t, Tensor) else t for t in attention))
    conv = op.static(op.stacked[0], op.bias)
    head = [x, *op.attention.parameters()]
    engine = [x, *tensors(given), *(p for n, p in op.named_parameters() if not n.startswith("attention."))]
    functions = {
        "attention": call(lambda: op.attend(x), head, train),
        "convolve": call(lambda: op.convolve(x, given), engine, train),
        "static": call(lambda: conv(x), [x, *conv.parameters()], train),
    }
    times = compare(functions, seconds)
    with torch.no_grad(), Launches() as launches:
        op.attend(x)
    return {"times": {name: t.figures() for name, t in times.items()}, "operations": launches.names}


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """A layer a row, and the sum of all."""
    out = Table(title=title)
    for column in (
        "layer",
        "input",
        "static ms",
        "attention ms",
        "of static",
        "convolve ms",
        "of static",
        "operations",
    ):
        out.add_column(column, justify="left" if column in ("layer", "input") else "right", no_wrap=True)
    for row in rows:
        medians = {name: row["times"][name]["median"] for name in PARTS}
        out.add_row(row["layer"], "x".join(map(str, row["input"][1:])), *_shares(medians), str(len(row["operations"])))
    total = {name: sum(row["times"][name]["median"] for row in rows) for name in PARTS}
    out.add_section()
    out.add_row(f"{len(rows)} layers", "", *_shares(total), str(sum(len(row["operations"]) for row in rows)))
    return out


def _shares(seconds: dict[str, float]) -> tuple[str, ...]:
    base = seconds["static"]
    shares = ((f"{seconds[n] * 1e3:.3f}", f"{seconds[n] / base:.1%}") for n in ("attention", "convolve"))
    return (f"{base * 1e3:.3f}", *(text for pair in shares for text in pair))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--network", default="resnet18")
    add("--operator", default="odconv")
    add("--size", type=int, default=64, help=f"pixels, or the length of {FCN}'s series")
    add("--stem", choices=STEMS, help=f"default: small below {SMALL} px, else imagenet")
    add("--batch", type=int, default=32)
    add("--layout", choices=("NCHW", "NHWC"), default="NCHW", help="of all layers' inputs and weights")
    add("--train", action="store_true", help="forward and backward, in training mode")
    add("--seconds", type=float, default=1.0, help="for each layer")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--json", type=Path)
    args = parser.parse_args()
    check_network(args.network)
    dc.registry.get(args.operator)
    check_files(args.json)
    if args.network == FCN and args.layout == "NHWC":
        raise UserError(f"{FCN} takes series, which have one layout")
    check_positive(size=args.size, batch=args.batch, threads=args.threads)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    stem = args.stem or ("small" if args.size < SMALL else "imagenet")
    memory = torch.channels_last if args.layout == "NHWC" else torch.contiguous_format
    model = dynamic(args.network, args.operator, stem).eval().to(memory_format=memory)
    seen = inputs(model, torch.randn(shape(args.network, args.size, args.batch)).to(memory_format=memory))
    warm_up(min(3.0, 10 * args.seconds))
    rows = []
    for name, op in dc.operators_in(model).items():
        x = seen[name]
        rows.append({"layer": name, "input": list(x.shape), **measure(op, x, args.train, args.seconds)})
    what = "forward and backward" if args.train else "forward"
    title = f"{args.network}_{args.operator}, {args.size} {'steps' if args.network == FCN else 'px'}, {what}"
    console = Console(width=150)
    console.print(table(rows, f"{title}: medians"))
    settings = {"machine": f"{machine()}, {args.threads} threads, batch {args.batch}, {args.layout}", "title": title}
    console.print(settings["machine"], highlight=False)
    console.print(f"operations of the first layer: {', '.join(rows[0]['operations'])}", highlight=False)
    if args.json:
        write_json(args.json, {**settings, "rows": rows})
    return 0


if __name__ == "__main__":
    run_cli(main)
