"""What the modules of the hosts share."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import UnknownName, UserError

PYTHON = sys.executable
COUNTS = ("classes", "train", "test", "pixels", "epochs", "batch_size")


@dataclass(frozen=True)
class Data:
    """A data set as the host finds it on disk.

    Attributes:
        name: Name for people.
        path: What the host is given.
        train, valid, test: Samples in each part; `valid` is taken from the training data.
        classes: Number of classes.
        unit: What a sample is, plural.
        real: False for the built-in diatoms.
        options: What else the host needs to know.
        fingerprint: Changes with which samples are in which part.
        contents: Changes with the samples themselves, see `contents`.
        tuning: All of it are training samples, see `only_training`.
    """

    name: str
    path: Path
    train: int
    valid: int
    test: int
    classes: int
    unit: str
    real: bool
    options: Mapping[str, Any]
    fingerprint: str
    contents: str
    tuning: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class Sample:
    """A test sample to look at.

    Attributes:
        x: What the network takes, ``[1, ...]``.
        shown: ``[H, W, 3]`` uint8, or a series ``[L]``.
        label: Its class, or a number.
        truth: Labels ``[H, W]`` for segmentation, else None.
        predict: Model -> labels ``[H, W]``, for segmentation.
        paint: Labels -> colours ``[H, W, 3]`` uint8, for segmentation.
        names: Class names by label; empty where they are not known.
    """

    x: torch.Tensor
    shown: np.ndarray
    label: str
    truth: np.ndarray | None = None
    predict: Callable[[torch.nn.Module], np.ndarray] | None = None
    paint: Callable[[np.ndarray], np.ndarray] | None = None
    names: tuple[str, ...] = ()


def contents(files: Iterable[tuple[str, Path]]) -> str:
    """A digest of files and of what they are called, wherever they lie."""
    told = hashlib.sha256()
    for name, path in sorted(files):
        with open(path, "rb") as file:
            told.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return told.hexdigest()


def settings(given: Mapping[str, Any], defaults: Mapping[str, Any], place: str) -> dict[str, Any]:
    """`given` over `defaults`.

    Raises:
        UnknownName: If a name has no default.
        UserError: If a count is no positive whole number, or a holdout no part.
    """
    for name, value in given.items():
        if name not in defaults:
            raise UnknownName(f"entry of {place}:", name, defaults)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name == "holdout" and not (number and 0 < value < 1):
            raise UserError(f"{place}: holdout is a part, above 0 and below 1, not {value!r}")
        if name in COUNTS and value is not None and not (number and isinstance(value, int) and value > 0):
            raise UserError(f"{place}: {name} is a positive whole number, not {value!r}")
    return {**defaults, **given}


def only_training(given: Mapping[str, Any], place: str) -> bool:
    """Whether a part held out of the training samples takes the place of the test set, as it must while a recipe is
    being chosen; a recipe's own validation part is then taken from the rest.

    Raises:
        UserError: If ``score_on`` is neither ``test`` nor ``held-out``.
    """
    if given["score_on"] not in ("test", "held-out"):
        raise UserError(f"{place}: score_on is test or held-out, not {given['score_on']!r}")
    return given["score_on"] == "held-out"


def flags(options: Mapping[str, Any]) -> list[str]:
    """``{"input_size": [3, 64, 64], "amp": True, "model-kwargs": {"small_stem": True}}`` as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, Mapping):
            words += [flag, *(f"{k}={v}" for k, v in value.items())]
        elif isinstance(value, (list, tuple)):
            words += [flag, *map(str, value)]
        elif value is not None:
            words += [flag, str(value)]
    return words


def per_process(batch: int, processes: int) -> int:
    """The batch of each process when they share one of `batch` samples.

    Raises:
        UserError: If it is no positive whole number, or cannot be divided.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UserError(f"batch_size is a positive whole number, not {batch!r}")
    if batch % processes:
        raise UserError(f"a batch of {batch} cannot be divided among {processes} processes")
    return batch // processes


def held_out(items: list[Any], count: int) -> tuple[list[Any], list[Any]]:
    """Splits a list: every so-manieth item is held out, `count` in all, so that the choice does not follow the order
    of the names and is the same for everybody."""
    if not 0 < count < len(items):
        raise UserError(f"cannot hold {count} of {len(items)} training samples out for validation")
    taken = {int((i + 0.5) * len(items) / count) for i in range(count)}
    return [x for i, x in enumerate(items) if i not in taken], [x for i, x in enumerate(items) if i in taken]


def divided(train: list[Any], test: list[Any], holdout: float, tuning: bool) -> tuple[list[Any], list[Any], list[Any]]:
    """What is trained on, validated on and scored on; while tuning, all of it from the training samples."""
    if tuning:
        train, test = held_out(train, max(1, round(holdout * len(train))))
    return (*held_out(train, max(1, round(holdout * len(train)))), test)
