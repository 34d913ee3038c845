"""Where the series come from, and how they are split."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

from dynconv_plugins import datasets
from dynconv_plugins.errors import UserError

BUILT_IN = "Diatoms"
FOLD_SEED = 0  # the folds are the same for every architecture, recipe and training seed


class Series(NamedTuple):
    """A data set as tsai takes it: X ``[N, variables, steps]``, labels ``[N]``, and the official split's indices."""

    X: np.ndarray
    y: np.ndarray
    official: tuple[list[int], list[int]]

    @property
    def classes(self) -> int:
        return len(np.unique(self.y))


def find_root(data: str | Path | None) -> Path | None:
    """The folder with one folder per data set: `data` or its ``UCR``, else ``$DYNCONV_DATA/UCR``, else ``data/UCR``.

    Raises:
        UserError: If `data` is given and not there.
    """
    if data is not None:
        root = Path(data)
        if not root.is_dir():
            raise UserError(f"{root} is not a folder; --data takes the folder that holds UCR/")
        return root / "UCR" if (root / "UCR").is_dir() else root
    found = datasets.find().get("ucr")
    if found is not None:
        return Path(found)
    default = Path("data/UCR")
    return default if default.is_dir() else None


def load(name: str, data: str | Path | None, scratch: Path) -> Series:
    """Reads a data set; the built-in ``Diatoms`` is made under `scratch` where it is not found.

    Raises:
        UserError: If it is not there or damaged.
    """
    root = find_root(data)
    if name == BUILT_IN and (root is None or not (root / name).is_dir()):
        made = scratch / "UCR" / name
        if not made.is_dir():
            datasets.diatoms.make(scratch)
        root = made.parent
    if root is None:
        raise UserError(
            f"no UCR archive found: give --data DIR (with DIR/UCR/{name}/{name}_TRAIN.tsv), set DYNCONV_DATA, "
            f"or use --dataset {BUILT_IN}, which is built in"
        )
    X, y, official = datasets.ucr.load(root, name)
    return Series(X, np.asarray(y), official)


def splits(series: Series, folds: int | None, runs: int) -> list[tuple[list[int], list[int]]]:
    """One (train, test) pair of index lists per run: `folds` stratified folds of all series, or the official split.

    Raises:
        UserError: If there are fewer series than folds in every class.
    """
    if folds is None:
        return [series.official] * runs
    most = int(np.unique(series.y, return_counts=True)[1].max())
    if folds > most:
        raise UserError(
            f"{folds} folds need a class of {folds} series or more, and the largest has {most}: lower --folds"
        )
    splitter = StratifiedKFold(folds, shuffle=True, random_state=FOLD_SEED)
    with warnings.catch_warnings():
        # A class of fewer members than folds is absent from some test folds: stratified as far as it goes.
        warnings.filterwarnings("ignore", message="The least populated class")
        return [(a.tolist(), b.tolist()) for a, b in splitter.split(np.zeros(len(series.y)), series.y)]
