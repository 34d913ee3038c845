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


def load(name: str, data: str | Path | None, scratch: Path) -> Series:
    """Reads a data set from `data`, else ``$DYNCONV_DATA``, else ``data/UCR``, where tsai keeps its downloads.

    The built-in ``Diatoms`` is made under `scratch` where none of the defaults has it.

    Raises:
        UserError: If it is not there or damaged.
    """
    if data is not None:
        return _read(Path(data), name)
    root = datasets.find().get("ucr") or Path("data/UCR")
    if name == BUILT_IN and not (root / name).is_dir():
        if not (scratch / "UCR" / name / f"{name}_TEST.tsv").is_file():
            datasets.diatoms.make(scratch)
        root = scratch
    if not root.is_dir():
        raise UserError(
            f"no UCR archive found: give --data DIR (with DIR/UCR/{name}/{name}_TRAIN.tsv), set DYNCONV_DATA, "
            f"or take {BUILT_IN}, which is built in"
        )
    return _read(root, name)


def _read(root: Path, name: str) -> Series:
    for folder in (root / "UCR" / name, root / name):
        if (folder / "X_train.npy").is_file():
            return _read_tsai(folder)
    return Series(*datasets.ucr.load(root, name))


def _read_tsai(folder: Path) -> Series:
    """What tsai's ``get_UCR_data`` leaves behind."""
    try:
        X, y, X_test, y_test = (
            np.load(folder / f"{part}.npy") for part in ("X_train", "y_train", "X_valid", "y_valid")
        )
        X, y = np.concatenate([X, X_test]).astype(np.float32), np.concatenate([y, y_test]).astype(str)
    except (OSError, ValueError) as e:
        raise UserError(f"{folder} is damaged ({str(e).splitlines()[0]}): remove it and download again") from e
    if X.ndim != 3 or len(X) != len(y) or not np.isfinite(X).all():
        raise UserError(f"{folder} has missing values or series of different lengths: fill, pad or cut them first")
    train = len(X) - len(X_test)
    unknown = np.setdiff1d(y[train:], y[:train])
    if len(unknown):
        raise UserError(f"{folder}: label '{unknown[0]}' of y_valid.npy does not occur in y_train.npy")
    return Series(X, y, (list(range(train)), list(range(train, len(X)))))


def with_differences(X: np.ndarray, order: int) -> np.ndarray:
    """Appends the differences between neighbouring steps as further variables, and theirs, up to `order`.

    Every variable is standardised by itself, so that the fine detail of a smooth curve, which tells Adiac's classes
    apart, counts as much as its course.

    Args:
        X: Series ``[N, V, L]``.
        order: 0 appends none and changes nothing.

    Returns:
        ``[N, V * (1 + order), L]``; a difference is zero at the first step.
    """
    if not order:
        return X
    parts = [X.astype(np.float64)]
    for _ in range(order):
        parts.append(np.diff(parts[-1], axis=-1, prepend=parts[-1][..., :1]))
    parts = [(p - p.mean(-1, keepdims=True)) / np.maximum(p.std(-1, keepdims=True), 1e-8) for p in parts]
    return np.concatenate(parts, axis=1).astype(np.float32)


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


def hold_out(series: Series, train: list[int], part: float) -> tuple[list[int], list[int]]:
    """Parts a training split in two: what is trained on, and a stratified validation part, the same for every seed.

    Each class gives its share of `part`, rounded so that the whole is right, and keeps a series for training: small
    classes may have none in the validation part.

    Args:
        series: The data set.
        train: Indices of the training series.
        part: Which part of them is held out, above 0 and below 1.

    Raises:
        UserError: If that is not a single series.
    """
    rng = np.random.default_rng(FOLD_SEED)
    members = [[i for i in train if series.y[i] == c] for c in np.unique(series.y[train])]
    shares = np.array([part * len(m) for m in members])
    most = np.array([len(m) - 1 for m in members])
    counts = np.minimum(np.floor(shares).astype(int), most)
    # The largest remainders are rounded up; chance decides between equal ones.
    order = np.argsort(-(shares - counts) + 1e-6 * rng.random(len(members)))
    for k in order[counts[order] < most[order]][: max(0, round(part * len(train)) - int(counts.sum()))]:
        counts[k] += 1
    held = sorted(i for m, n in zip(members, counts, strict=True) for i in rng.permutation(m)[:n].tolist())
    if not held:
        raise UserError(f"a holdout of {part:g} of {len(train)} training series holds out none: raise --holdout")
    return sorted(set(train) - set(held)), held


def standardised(X: np.ndarray) -> np.ndarray:
    """Each series with mean 0 and standard deviation 1, as training has seen it."""
    X = X.astype(np.float32)
    # tsai divides by the unbiased deviation; a third of a per cent more is enough to change predictions.
    return (X - X.mean(-1, keepdims=True)) / np.maximum(X.std(-1, ddof=1, keepdims=True), 1e-8)
