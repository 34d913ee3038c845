"""When the costs of a task's models are measured: once all are trained, and while nothing else of the study runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from ..demo.runner import ending
from . import cells, process, provenance
from .execute import DONE, RUNNING, environment
from .turns import turn

COSTS, LOCK = "costs.json", ".costs.lock"
SECONDS = 2.0  # for each latency


def measure(out: Path, tasks: Iterable[str], threads: int, say: Callable[[str], None]) -> dict[str, str]:
    """Measures each task that has models, or is on a machine, of which its costs do not tell yet.

    Args:
        out: The study's folder.
        tasks: Names of tasks.
        threads: CPU threads of the networks.
        say: Takes a line about each task.

    Returns:
        What went wrong, by task.
    """
    troubles = {}
    with turn(out / LOCK, say, "measures costs"):
        for task in dict.fromkeys(tasks):
            # Side by side: all models of the task that have ever been finished, also where this is a part of the plan.
            firsts = _finished(out / task)
            if not firsts or costed(out / task / COSTS, firsts):
                continue
            if busy := _running(out):
                say(f"{task}: costs are not measured while {busy} is trained; the same command does it later")
                continue
            say(f"{task}: measuring latency and memory of {len(firsts)} models")
            command = [sys.executable, "-m", "dynconv_plugins.study.costs", str(out / task), str(SECONDS)]
            command += map(str, firsts.values())
            done = subprocess.run(command, env=environment({}, threads, None), capture_output=True, text=True)
            if done.returncode:
                said = done.stderr.strip().splitlines() if done.returncode > 0 else []
                troubles[f"{task}, costs"] = (said or [ending(done.returncode)])[-1]
    return troubles


def costed(path: Path, firsts: Mapping[str, Path]) -> bool:
    """Whether a file has the costs of all these models, measured here after they were trained."""
    try:
        stored = yaml.safe_load(path.read_text())
        models, machine = set(stored["models"]), stored["machine"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return False
    newest = max((folder / cells.METRICS).stat().st_mtime for folder in firsts.values())
    return models >= set(firsts) and machine == provenance.machine() and path.stat().st_mtime >= newest


def _finished(task: Path) -> dict[str, Path]:
    """The folder of a finished run of each model of a task."""
    firsts: dict[str, Path] = {}
    for path in sorted(task.glob(f"*/*/{cells.METRICS}")):
        with suppress(cells.Damaged):
            if (cells.read(path.parent) or {}).get("status") == DONE:
                firsts.setdefault(path.parent.parent.name, path.parent)
    return firsts


def _running(out: Path) -> str | None:
    """A cell that another study trains at this moment."""
    for path in sorted(out.glob(f"*/*/*/{cells.CELL}")):
        with suppress(cells.Damaged):
            if (cells.read(path.parent) or {}).get("status") == RUNNING and process.held(path.parent):
                return str(path.parent.relative_to(out))
    return None
