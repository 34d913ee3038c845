"""Time series and the networks of tsai_models that look at them."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoints.reading import read, unwrap
from ..errors import UserError, require
from .subject import Subject, cell, fill, must_be_dynamic


def subject(
    name: str | None,
    source: str,
    index: int,
    checkpoint: Path | None = None,
    operator: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    data: Path | None = None,
) -> Subject:
    """A network and one series.

    Args:
        name: An architecture of tsai_models or of tsai; None with a cell, or beside a ``results.json``, which know.
        source: A ``.tsv`` or ``.ts`` file, or a UCR data set by name, whose test series are meant.
        index: Which one, from 0.
        checkpoint: ``model.pth`` of our trainer, or the folder of a study's cell. None: as initialised.
        operator: Makes a static architecture dynamic, or takes another operator in one of ours.
        arguments: The operator's, and ``where``.
        data: Where the data set of that name lies, as for ``python -m tsai_models train --data``.

    Raises:
        UserError: If anything is unknown, missing, damaged or does not fit; one line.
    """
    require("tsai", "tsai")
    from tsai_models.data import standardised, with_differences

    from ..study.hosts.series import DYNAMIC, differences

    X, classes, label = _series(source, data)
    if not 0 <= index < len(X):
        raise UserError(f"--index {index}: there are {len(X)} series in {source}, 0 to {len(X) - 1}")
    what = f"{label} {index}"
    if checkpoint is not None and checkpoint.is_dir() and (checkpoint / "cell.json").is_file():
        record, model, names = cell(checkpoint)
        if record["host"] != "tsai":
            raise UserError(f"{checkpoint} is of images: give --image instead of --series")
        if operator or arguments:
            raise UserError(f"{checkpoint} is as it was trained: leave --operator and --operator-arg out")
        if name not in (None, record["network"], DYNAMIC[record["network"]]):
            raise UserError(f"{checkpoint} is of {record['network']}, not of {name}: leave MODEL out")
        must_be_dynamic(model, str(checkpoint))
        order = differences(record)
        title = f"{record['network']} with {record['operator']}, {what}"
        weights = f"weights: {checkpoint}"
    else:
        path = checkpoint / "model.pth" if checkpoint is not None and checkpoint.is_dir() else checkpoint
        given = {"arch": name, "operator": operator, "operator_args": dict(arguments or {})}
        settings = _settings(path, given)
        stored = None if path is None else unwrap(read(path))
        order = settings["differences"]
        model = _built(settings, (*X.shape[:1], X.shape[1] * (1 + order), X.shape[2]), classes, stored, path)
        names, shown = _names(path), settings["operator"]
        title = f"{settings['arch']}{f' with {shown}' if shown else ''}, {what}"
        weights = f"weights: {path}" if path else "weights: random, as initialised"
    x = standardised(with_differences(X[index : index + 1], order))
    return Subject(model, torch.from_numpy(x), x[0], title, weights, names)


def _series(source: str, data: Path | None) -> tuple[np.ndarray, int, str]:
    """All series ``[N, 1, steps]`` in a file, or a data set's for the test; how many classes; what to call one."""
    from tsai_models.data import load

    from ..datasets import series

    path = Path(source)
    if path.suffix in (".tsv", ".ts") or path.is_file():
        if not path.is_file():
            raise UserError(f"no file {path}")
        rows = series.read(path)
        values = np.array([[float(v) for v in row.values] for row in rows], dtype=np.float32)
        return values[:, None], len({row.label for row in rows}), f"{path.name}, series"
    with tempfile.TemporaryDirectory() as scratch:  # for the built-in series, which are drawn
        found = load(source, data, Path(scratch))
    return found.X[found.official[1]].astype(np.float32), found.classes, f"{source}, test series"


def _settings(path: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, over what the trainer has written beside the weights."""
    beside: dict[str, Any] = {}
    if path is not None and (path.parent / "results.json").is_file():
        try:
            beside = dict(json.loads((path.parent / "results.json").read_text())["config"])
            if not isinstance(beside["arch"], str):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path.parent / 'results.json'} is damaged ({type(e).__name__})") from None
    if given["arch"] and beside and given["arch"] != beside["arch"]:
        raise UserError(f"{path} is of {beside['arch']}, not of {given['arch']}")
    made = {
        "arch": given["arch"] or beside.get("arch"),
        "operator": given["operator"] or beside.get("operator"),
        "operator_args": {**beside.get("operator_args", {}), **given["operator_args"]},
        "static": bool(beside.get("static")) and not given["operator"],
        "classes": beside.get("classes"),
        "differences": int((beside.get("recipe") or {}).get("differences", 0)),
    }
    if made["arch"] is None:
        raise UserError("name an architecture, e.g. ODConvFCN, or a study's cell by --checkpoint DIR")
    return made


def _built(settings: dict[str, Any], shape: tuple[int, ...], classes: int, stored, path: Path | None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tsai's own imports warn of is nothing that a user can act on
        from tsai_models.archs import build
        from tsai_models.job import Job
        from tsai_models.recipes import RECIPES

    recipe = next(iter(RECIPES.values()))
    asked = {key: settings[key] for key in ("arch", "static", "operator", "operator_args")}
    arch, config, *_ = Job(dataset="", recipe=recipe, **asked).resolve()
    count = settings["classes"] or (_last(stored) if stored else classes)
    torch.manual_seed(0)  # so that an untrained network is the same one every time
    try:
        model = build(arch, shape[1], count, shape[2], **config).eval()
    except UserError:
        raise
    except (TypeError, ValueError, AssertionError) as e:
        raise UserError(f"cannot make {settings['arch']}: {' '.join(str(e).split())}") from None
    hint = "" if settings["operator"] else "; add --operator odconv"
    must_be_dynamic(model, settings["arch"], hint)
    if stored is not None:
        fill(model, stored, path, settings["arch"])
    return model


def _names(path: Path | None) -> list[str]:
    """The classes, where the trainer has written them beside the weights."""
    beside = None if path is None else path.parent / "predictions.npz"
    if beside is None or not beside.is_file():
        return []
    try:
        with np.load(beside, allow_pickle=False) as stored:
            key = next((k for k in stored.files if k.startswith("classes")), None)
            return [] if key is None else [f"class {name}" for name in stored[key]]
    except Exception:  # a damaged file fails in many ways, even as source code
        return []


def _last(weights: Mapping[str, torch.Tensor]) -> int:
    """Outputs of the last matrix: the classifier."""
    return next((len(v) for v in reversed(list(weights.values())) if v.ndim == 2), 1)
