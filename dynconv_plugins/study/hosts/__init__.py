"""What the study asks of each host; one module per host answers, from a cell's folder alone.

Each module offers

- ``prepare(task, found, folder) -> Data``: the data under `folder`, held-out part included;
- ``recipe(name) -> values``: what the recipe says, for the fingerprint; an unknown name is a ``UserError``;
- ``command(cell, data, folder) -> tuple[str, ...]``: the trainer's command line, the same for a run and its resumption;
- ``check(command)``: raises a ``UserError`` where the trainer would refuse its command line;
- ``settle(folder, record)``: writes what the command, or the score of a trained cell, reads beside the data;
- ``progress(folder, record) -> (done, total, note)``: how far a run is;
- ``curve(folder) -> dict``: what the trainer has logged;
- ``metrics(folder, record) -> dict``: the score on the test set with the kept weights;
- ``SCORED_BY_TRAINER``: whether the trainer has measured that itself, so that no network is built for it;
- ``amount(record) -> (batch size, steps)``: how much there is to train;
- ``build(record)``, ``load(folder) -> nn.Module``: untrained, and with the kept weights;
- ``example(record, batch) -> Tensor``: an input of the right shape;
- ``samples(folder, n) -> list[Sample]``: test inputs to look at.
"""

from __future__ import annotations

import importlib
from types import ModuleType

MODULES = {"timm": "images", "mmseg": "segmentation", "tsai": "series"}
# Whose trainers go on from a checkpoint; the others start a run that was interrupted again.
CONTINUES = ("timm", "mmseg")


def get(host: str) -> ModuleType:
    """The module for a host, by its name in plans."""
    return importlib.import_module(f"{__name__}.{MODULES[host]}")
