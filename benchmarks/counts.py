"""Compares parameters and multiply-adds with the published ones.

    python -m benchmarks.counts

Published are the tables of ODConv (ICLR 2022) and of its repository: ImageNet head, 224 px. Its ResNet-50 and 101 are
counted with the stride in the first 1x1 convolution, and its multiply-adds with dynamic 1x1 downsample convolutions,
although its parameters and its code have those static: the last column counts that way.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import timm
from rich.console import Console
from rich.table import Table

import dynconv_plugins as dc
import timm_models  # noqa: F401 - registers the models


class Row(NamedTuple):
    """A published row; parameters and multiply-adds in millions, as printed."""

    model: str
    kernels: int
    params: str
    macs: float


PUBLISHED = [
    Row("resnet18", 1, "11.94", 1838),
    Row("resnet18", 4, "44.90", 1916),
    Row("resnet50", 1, "28.64", 3916),
    Row("resnet50", 4, "90.67", 4080),
    Row("resnet101", 1, "50.82", 7675),
    Row("resnet101", 2, "90.44", 7802),
    Row("mobilenetv2_100", 1, "4.94", 311.8),
    Row("mobilenetv2_100", 4, "11.51", 327.1),
    Row("mobilenetv2_075", 1, "3.51", 217.1),
    Row("mobilenetv2_075", 4, "7.50", 226.3),
    Row("mobilenetv2_050", 1, "2.43", 101.8),
    Row("mobilenetv2_050", 4, "4.44", 106.4),
]


def counted(row: Row, where: str = "blocks") -> dc.Complexity:
    """Our counts of a row's model, built by its timm name, with ResNet v1's strides for the bottlenecks."""
    options = {"stride_in_1x1": True} if row.model in ("resnet50", "resnet101") else {}
    model = timm.create_model(f"{row.model}_odconv", num_kernels=row.kernels, where=where, **options)
    return dc.complexity(model, (1, 3, 224, 224))


def with_shortcuts(row: Row) -> dc.Complexity:
    """The same with the 1x1 downsample convolutions dynamic: what the published multiply-adds count."""
    return counted(row, r"^(layer|blocks|conv_head)")


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__.splitlines()[0]).parse_args()
    out = Table(title="ODConv, published against counted here")
    columns = ("model", "K", "params", "ours", "MAdds (M)", "ours", "off", "ours, downsample dynamic", "off")
    for column in columns:
        out.add_column(column, justify="left" if column == "model" else "right")
    for row in PUBLISHED:
        ours, theirs = counted(row), with_shortcuts(row)
        out.add_row(
            row.model,
            str(row.kernels),
            f"{row.params}M",
            f"{ours.params / 1e6:.2f}M",
            f"{row.macs:g}",
            f"{ours.macs / 1e6:.1f}",
            f"{ours.macs / 1e6 / row.macs - 1:+.2%}",
            f"{theirs.macs / 1e6:.1f}",
            f"{theirs.macs / 1e6 / row.macs - 1:+.2%}",
        )
    Console(width=130).print(out)


if __name__ == "__main__":
    main()
