"""``python -m dynconv_plugins.study.costs FOLDER...``: what the models of a task cost, measured side by side.

One process measures a static network and its dynamic twins in turns, when no training runs beside it: latencies that
are taken at different moments of a busy machine cannot be compared.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.benchmark import Timer

from .. import complexity
from ..errors import UserError, run_cli
from . import cells, hosts, memory

BATCHES = (1, 64)
ROUNDS, FEW_ROUNDS = 7, 3
SLOW = 5.0  # seconds for one turn of all models


def measured(folders: list[Path], seconds: float, device: str = "cpu") -> tuple[dict[str, dict], dict[str, str]]:
    """Parameters, MAdds, latency and memory of trained cells, one a model.

    Args:
        folders: The cells, of one task.
        seconds: About how long to measure each latency.
        device: ``'cpu'`` or ``'cuda'``, of latency and memory.

    Returns:
        The costs by model, and why others have none.
    """
    models: dict[str, tuple[nn.Module, dict]] = {}
    failed: dict[str, str] = {}
    for folder in folders:
        record = cells.read(folder) | {"trained": True}  # nothing to start from is needed
        host = hosts.get(record["host"])
        # Of a run whose weights stayed on another machine any will do: costs are the architecture's.
        try:
            model = host.load(folder) if (folder / cells.RUN).is_dir() else host.build(record)
        except Exception as e:  # whatever hosts make of what is missing
            failed[record["model"]] = " ".join(str(e).split()) or type(e).__name__
            continue
        models[record["model"]] = model, record
    made: dict[str, dict] = {}
    for name, (model, record) in models.items():
        x = hosts.get(record["host"]).example(record, 1)
        counted = complexity(model, tuple(x.shape))
        made[name] = {"params": counted.params, "macs": counted.macs, "input_size": list(x.shape), "latency_ms": {}}
        made[name]["memory_mb"] = _memory(model.to(device), record)
    for batch in BATCHES:
        runs = {}
        for name, (model, record) in models.items():
            runs[name] = _forward(model, hosts.get(record["host"]).example(record, batch).to(device))
        for name, quartiles in _in_turns(runs, seconds).items():
            made[name]["latency_ms"][str(batch)] = quartiles
    return made, failed


def _forward(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return model(x)

    return run


def _in_turns(runs: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Quartiles in milliseconds; each round times every function, so that a disturbance hits all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    for run in runs.values():
        run()
    # Each turn runs a function at least twice: where one takes seconds, few turns must do.
    for _ in range(ROUNDS if time.perf_counter() - began < SLOW else FEW_ROUNDS):
        for name, run in runs.items():
            timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
            times[name].append(timer.blocked_autorange(min_run_time=seconds / ROUNDS).median * 1e3)
    return {name: statistics.quantiles(values, n=4) for name, values in times.items()}


def _memory(model: nn.Module, record: dict) -> dict[str, float]:
    """MiB of the model's own tensors, and the most that others take at once: inference with 64, a training step with 8.

    On one thread: some of torch's convolutions take scratch memory for each, which is none of the network's.
    """
    host, device = hosts.get(record["host"]), next(model.parameters()).device
    large, small = host.example(record, 64).to(device), host.example(record, 8).to(device)
    inference, threads = _forward(model, large), torch.get_num_threads()

    def train() -> None:
        out = model(small)
        out.float().sum().backward()
        model.zero_grad(set_to_none=True)

    torch.set_num_threads(1)
    try:
        inference()  # what a first call makes and keeps is not what a call takes
        found = {"weights": memory.stored(model) / 2**20, "inference_64": memory.peak(inference, device.type) / 2**20}
        model.train()
        train()
        found["training_8"] = memory.peak(train, device.type) / 2**20
    finally:
        torch.set_num_threads(threads)
        model.eval()
    return found


def main() -> None:
    """Writes ``costs.json`` into the task's folder."""
    out, seconds, *folders = sys.argv[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from .provenance import machine

        gpu = machine()["gpu"]
        models, failed = measured([Path(f) for f in folders], float(seconds), "cuda" if gpu else "cpu")
    where = {"gpu": gpu, "threads": torch.get_num_threads(), "machine": machine()}
    cells.write(Path(out), {**where, "models": models}, "costs.json")
    if failed:
        raise UserError("not measured: " + "; ".join(f"{name} ({why})" for name, why in failed.items()))


if __name__ == "__main__":
    run_cli(main)
