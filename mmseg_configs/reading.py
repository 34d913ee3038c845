"""What mmseg has written or handles, as plain arrays: checkpoints of mmengine, images, label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch


def checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads an mmengine checkpoint without running anything that lies in it."""
    with torch.serialization.safe_globals(logged()):
        return torch.load(path, map_location="cpu", weights_only=True)


def logged() -> list:
    """What an mmengine checkpoint holds beside weights: its log, arrays of numbers with methods bound by ``getattr``.

    The methods are not wanted, and ``getattr`` is not to be let loose on a file: it is read as a function of nothing.
    So the log is read as nothing, too: mmengine's own class would take these methods for those of all logs to come.
    """
    rebuild, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "?")}
    log = (_Log, "mmengine.logging.history_buffer.HistoryBuffer")
    return [log, (_nothing, "builtins.getattr"), np.ndarray, np.dtype, rebuild, scalar, *dtypes]


class _Log:
    """A log that is not read."""

    def __setstate__(self, state: object) -> None:
        pass


def _nothing(*_args: object) -> None:
    return None


def image(inputs: torch.Tensor, shape: tuple[int, int]) -> np.ndarray:
    """mmseg's ``[3, H, W]`` in BGR as ``[*shape, 3]`` in RGB, uint8."""
    from PIL import Image

    array = inputs.flip(0).permute(1, 2, 0).numpy().astype(np.uint8)
    return np.array(Image.fromarray(array).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def colours(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Class labels ``[H, W]`` as colours; what is ignored is white."""
    return np.concatenate([palette, np.full((256 - len(palette), 3), 255, np.uint8)])[labels]
