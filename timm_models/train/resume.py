"""Finding, reading and checking the checkpoint to go on from."""

from __future__ import annotations

import argparse
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from dynconv_plugins.checkpoints.differences import with_own_counter
from dynconv_plugins.errors import UserError

_logger = logging.getLogger("train")
_PATTERNS = ("last", "checkpoint-*", "recovery-*", "model_best")


class Damaged(UserError):
    """A file that is not a whole checkpoint."""


def read(path: Path, verify: bool = True) -> dict[str, Any]:
    """Reads a checkpoint, of this trainer or of timm's, without unpickling objects.

    Args:
        path: The file.
        verify: Check all of it; otherwise tensors are mapped and their bytes not looked at.

    Raises:
        Damaged: If it is truncated, altered or something else.
    """
    try:
        if verify:
            # torch.load does not look at the checksums it writes.
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise Damaged(f"{path} is damaged: a checksum does not match")
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm's own checkpoints hold one
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=not verify)
    except Damaged:
        raise
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}") from None
    except Exception as e:  # an altered pickle raises whatever it leads to
        raise Damaged(f"{path} is damaged or not a checkpoint ({type(e).__name__})") from None
    if not isinstance(state, dict) or "state_dict" not in state:
        raise Damaged(f"{path} is not a training checkpoint: it has no 'state_dict'")
    return state


def place(state: dict[str, Any]) -> tuple[int, int]:
    """Returns the (epoch, batch) a checkpoint goes on from; timm's own hold the epoch they finished."""
    trainer = state.get("trainer")
    return (trainer["epoch"], trainer["batch"]) if trainer else (state.get("epoch", -1) + 1, 0)


def find(resume: str, folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Reads the checkpoint `resume` names, or the newest good one before it.

    Args:
        resume: A path, or ``auto`` for the newest of `folder`.
        folder: The run's folder.

    Returns:
        The path and its contents; None if ``auto`` finds no checkpoint at all.

    Raises:
        UserError: If there is no such file, or no good one.
    """
    damaged: list[str] = []
    if resume == "auto":
        where, others = folder, folder
    else:
        path = Path(resume)
        if not path.is_file():
            raise UserError(f"no checkpoint {path}")
        try:
            return path, read(path)
        except Damaged as e:
            damaged.append(str(e))
            where, others = path, path.parent
    ranked: list[tuple[tuple[int, int], bool, Path]] = []
    for path in {p for pattern in _PATTERNS for p in others.glob(f"{pattern}.pth.tar")} - {where}:
        try:
            state = read(path, verify=False)
        except Damaged as e:
            damaged.append(str(e))
            continue
        ranked.append((place(state), path.name == "last.pth.tar", path))
    for _, _, path in sorted(ranked, reverse=True):
        try:
            state = read(path)
        except Damaged as e:
            damaged.append(str(e))
            continue
        if damaged:
            epoch, batch = place(state)
            _logger.warning(
                f"{'; '.join(damaged)}: going on from the previous good one, {path} (epoch {epoch}, batch {batch})"
            )
        return path, state
    if damaged:
        raise UserError(f"{'; '.join(damaged)}, and there is no good checkpoint in {others}")
    return None


def check_arch(state: dict[str, Any], path: Path, model: str) -> None:
    """Raises a UserError if the checkpoint is of another architecture than `model`."""
    arch = state.get("arch")
    if arch is not None and arch != model:
        raise UserError(f"{path} holds {arch}, but the model is {model}: give --model {arch}, or another checkpoint")


def check_metric(state: dict[str, Any], path: Path, folder: Path, metric: str) -> None:
    """Raises a UserError if the run that goes on in its own `folder` has ranked its checkpoints by another metric."""
    then = state.get("args") if isinstance(state.get("args"), dict) else {}
    if path.parent.resolve() == folder.resolve() and (by := then.get("eval_metric", metric)) != metric:
        raise UserError(
            f"{folder} ranks its checkpoints by --eval-metric {by}: go on with that, or with --resume {path} in "
            "another --experiment"
        )


def load_weights(module: torch.nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Loads `weights` into `module`.

    Raises:
        UserError: If names or shapes differ, e.g. because of other ``--model-kwargs`` or ``--num-classes``.
    """
    own = module.state_dict()
    weights = with_own_counter(own, weights)
    missing, extra = own.keys() - weights.keys(), weights.keys() - own.keys()
    shapes = [k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape]
    if missing or extra or shapes:
        first = sorted(missing | extra | set(shapes))[0]
        counts = f"{len(missing)} tensors missing, {len(extra)} unknown, {len(shapes)} of another shape"
        raise UserError(
            f"{path} does not fit the model: {counts} (first: {first}); did --model-kwargs or --num-classes change?"
        )
    module.load_state_dict(weights)
