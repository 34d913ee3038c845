"""What folding costs: the series networks that `benchmarks.hosts` has trained, before and after.

    python -m benchmarks.hosts --data data --out runs/hosts --tasks series
    python -m benchmarks.folding --runs runs/hosts --data data

Attention is averaged over the training set, accuracy is that of the test set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset

import dynconv_plugins as dc
from dynconv_plugins import datasets
from dynconv_plugins.demo.records import Cell, Data
from dynconv_plugins.demo.series import Series
from dynconv_plugins.errors import UserError, run_cli


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folding", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/hosts"))
    parser.add_argument("--data", type=Path, required=True, help="holds UCR/")
    args = parser.parse_args()
    host, root, name = Series(), args.data / "UCR", "Adiac"
    X, y, (train, test) = datasets.ucr.load(root, name)
    host.name, classes = name, np.unique(y, return_inverse=True)[1]
    data = Data(name, root, len(train), len(test), int(classes.max()) + 1)

    def loader(indices: list[int]) -> DataLoader:
        from tsai_models.data import standardised

        inputs = torch.from_numpy(standardised(X[indices]))
        return DataLoader(TensorDataset(inputs, torch.from_numpy(classes[indices])), batch_size=64)

    table = Table(title=f"{name}: accuracy on {len(test)} test series, in per cent")
    for column in ("operator", "dynamic", "folded", "points lost", "MAdds", "folded"):
        table.add_column(column, justify="left" if column == "operator" else "right")
    for operator in dc.registry.names():
        cell = Cell("series", operator, host.arch, args.runs / "series" / operator, (), 0, "epoch")
        try:
            model, x = host.load(cell, data)
        except OSError as e:
            raise UserError(f"no trained {operator} under {args.runs}: run `python -m benchmarks.hosts` first") from e
        folded, report = dc.fold(model, loader(train), loader(test))
        shape = tuple(x.shape)
        table.add_row(
            operator,
            f"{100 * report.accuracy_before:.1f}",
            f"{100 * report.accuracy_after:.1f}",
            f"{report.lost:.1f}",
            f"{dc.complexity(model, shape).macs / 1e6:.1f}M",
            f"{dc.complexity(folded, shape).macs / 1e6:.1f}M",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    run_cli(main)
