"""``python -m dynconv_plugins.study.score FOLDER``: scores a trained cell on its test set and writes its metrics."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

from ..errors import UserError, run_cli
from . import cells, hosts


def score(folder: Path) -> dict:
    """Writes ``metrics.json`` of a trained cell and returns it.

    Raises:
        UserError: If the trainer's files are not there or not whole.
    """
    record = cells.read(folder)
    if record is None:
        raise UserError(f"{folder} holds no {cells.CELL}")
    with warnings.catch_warnings():
        # What hosts remark on their own parts is of no use to a reader.
        warnings.simplefilter("ignore")
        try:
            found = hosts.get(record["host"]).metrics(folder, record)
        except Exception as e:
            told = " ".join(str(e).split())[:300]
            what = f"what the trainer left in {folder / cells.RUN} cannot be scored: {type(e).__name__}: {told}"
            raise UserError(f"{what}; to train it again remove {folder}") from e
    if not math.isfinite(found["score"]):
        raise UserError(f"{folder}: the score is not a number")
    cells.write(folder, found, cells.METRICS)
    return found


def main() -> None:
    found = score(Path(sys.argv[1]))
    print(f"test score {found['score']:.4f}")


if __name__ == "__main__":
    run_cli(main)
