"""What a training command wrote."""

import csv
import json
from pathlib import Path

import numpy as np


def read(out: Path) -> tuple[dict, list[dict[str, str]], dict[str, np.ndarray]]:
    """The results, the history's rows and the predictions."""
    with open(out / "history.csv", newline="") as f, np.load(out / "predictions.npz") as arrays:
        return json.loads((out / "results.json").read_text()), list(csv.DictReader(f)), dict(arrays)
