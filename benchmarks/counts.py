"""Compares parameters and multiply-adds with the published ones, row by row.

    python -m benchmarks.counts

ResNet-50 and 101 are built with the stride in the first 1x1 convolution, as the published ones.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable

import timm
import torch
from rich.console import Console
from rich.table import Table

import dynconv_plugins as dc
import timm_models  # noqa: F401 - registers the models
from dynconv_plugins.backends import counting, force
from dynconv_plugins.inspection.costs import Unfilled, macs, parameters

from .published import NOTES, ROWS, Row

SIZE = (1, 3, 224, 224)


def build(row: Row, **options) -> torch.nn.Module:
    """A row's model by its timm name, with ResNet v1's strides for the bottlenecks."""
    v1 = {"stride_in_1x1": True} if row.model in ("resnet50", "resnet101") else {}
    return timm.create_model(f"{row.model}_{row.operator}", **v1, **row.options, **options)


def count(row: Row, **options) -> dc.Complexity:
    """What `dynconv_plugins.complexity` gives, ten times faster."""
    with Unfilled():
        model = build(row, **options).eval()
    return dc.Complexity(parameters(model), macs(model, SIZE))


@functools.cache
def _counted(index: int) -> dc.Complexity:
    return count(ROWS[index])


def counted(row: Row) -> dc.Complexity:
    """Our counts of a row, computed once."""
    return _counted(ROWS.index(row))


def with_shortcuts(row: Row) -> dc.Complexity:
    """ODConv's ResNets with dynamic 1x1 downsample convolutions: what their published multiply-adds count."""
    return count(row, where=r"^(layer|blocks|conv_head)")


def without_projections(row: Row) -> float:
    """Multiply-adds of a DCD row without its Q and P."""
    with Unfilled():
        model = build(row).eval()
    positions: dict[str, int] = {}

    def note(name: str):
        return lambda _module, _inputs, y: positions.__setitem__(name, y.shape[2:].numel())

    operators = dc.operators_in(model)
    for name, op in operators.items():
        op.register_forward_hook(note(name))
    with force(counting), torch.no_grad():
        model(torch.zeros(SIZE))
    projections = sum(
        positions[name] * op.q.out_features * (op.in_channels + op.out_channels) for name, op in operators.items()
    )
    return counted(row).macs - projections


def condconv_placement() -> int:
    """Parameters of MobileNetV2 0.5 with CondConv's own placement, 8 kernels: the last six blocks, the classifier."""
    row = next(r for r in ROWS if r.note == "classifier")
    with Unfilled():
        model = timm.create_model(f"{row.model}_condconv", where=r"^blocks\.(4\.[12]|5|6)\.")
    fc = model.classifier
    return parameters(model) + 7 * fc.weight.numel() + 7 * fc.bias.numel() + 8 * fc.in_features + 8


def table(rows: Iterable[Row]) -> tuple[Table, list[str]]:
    """The table, and the keys of the notes in it in order."""
    out = Table(title="parameters and multiply-adds, published against counted here")
    for column in ("model", "operator", "params", "ours", "off", "MAdds", "ours", "off", "note"):
        out.add_column(column, justify="left" if column in ("model", "operator") else "right", no_wrap=True)
    used: list[str] = []
    for row in rows:
        ours = counted(row)
        if row.note and row.note not in used:
            used.append(row.note)
        options = "".join(f" {value}" for value in row.options.values())
        out.add_row(
            row.model,
            row.operator + options,
            f"{row.params}M",
            f"{ours.params / 1e6:.2f}M",
            f"{ours.params / 1e6 / float(row.params) - 1:+.2%}",
            f"{row.macs:g}M",
            f"{ours.macs / 1e6:.1f}M",
            f"{ours.macs / 1e6 / row.macs - 1:+.2%}",
            str(used.index(row.note) + 1) if row.note else "",
        )
    return out, used


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__.splitlines()[0]).parse_args()
    out, used = table(ROWS)
    console = Console(width=130)
    console.print(out)
    for number, key in enumerate(used, 1):
        console.print(f"{number}  {NOTES[key]}", soft_wrap=False, highlight=False)


if __name__ == "__main__":
    main()
