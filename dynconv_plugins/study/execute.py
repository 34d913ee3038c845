"""Runs one cell from its folder: the trainer, then the score. Whoever calls it, here or on another machine, needs
nothing but the folder."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..demo.machine import cores
from ..demo.runner import failure
from ..errors import UserError
from . import cells, hosts, process, provenance, score

DONE, FAILED, RUNNING, WAITING = "done", "failed", "running", "waiting"


def run_cell(
    folder: str,
    threads: int = 0,
    gpu: str | None = None,
    watch: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
    inputs: str | None = None,
    waited: bool = False,
) -> str:
    """Trains and scores one cell; a killed one goes on where its trainer can.

    Args:
        folder: The cell's folder, with its ``cell.json``.
        threads: CPU threads of the command; 0: all cores that this process may use.
        gpu: The GPUs that it sees, as CUDA_VISIBLE_DEVICES names them; None: all.
        watch: Called about twice a second.
        stopped: Whether to stop.
        inputs: Fingerprint of the inputs that it is to have; None for those of its record.
        waited: Another study was running it: if that one failed, so has this one.

    Returns:
        Its status: ``done``, ``failed`` (its record says why) or ``waiting`` (it was stopped).

    Raises:
        Busy: If another study runs it.
        UserError: If the cell is not there, or another study has changed its inputs.
    """
    path = Path(folder)
    with process.claimed(path) as lock:
        record = cells.read(path)
        if record is None:
            raise UserError(f"{path} holds no {cells.CELL}: it is made by 'dynconv study'")
        if inputs not in (None, record["inputs"]):
            raise UserError(f"{path} belongs to another study with other inputs; choose another --out, or try again")
        if waited and record.get("status") == FAILED:
            return FAILED
        return _run(path, record, threads or cores(), gpu, lock, watch, stopped)


def _run(path: Path, record: dict[str, Any], threads: int, gpu: str | None, lock: int, watch, stopped) -> str:
    if record.get("status") == DONE and cells.read(path, cells.METRICS) is not None:
        return DONE  # by another study, meanwhile
    spent = (record.get("seconds") or 0.0, record.get("processor_seconds") or 0.0)
    trained = record.get("trained", False)
    (path / cells.METRICS).unlink(missing_ok=True)
    # What is scored again was trained then, there and with that.
    facts = {} if trained else _facts(record, threads)
    record = cells.update(path, status=RUNNING, error="", **facts)
    env = environment(record, threads, gpu)
    try:
        with open(path / cells.LOG, "ab") as log:
            hosts.get(record["host"]).settle(path, record)
            if not trained:
                log.write(f"$ {provenance.shown(record)}\n".encode())
                log.flush()
                code, used = process.run(record["command"], env, log, lock, watch, stopped)
                took = {"seconds": spent[0] + used.seconds, "processor_seconds": spent[1] + used.processor_seconds}
                record = cells.update(path, memory_mb=used.memory_mb, trained=code == 0, **took)
                if code:
                    return _ended(path, WAITING if stopped() else FAILED, failure(code, path))
            if hosts.get(record["host"]).SCORED_BY_TRAINER:
                score.score(path)
                return _ended(path, DONE, "")
            # A process of its own: a model that crashes or takes all memory takes this cell with it and no other.
            command = (sys.executable, "-m", "dynconv_plugins.study.score", str(path))
            code, _ = process.run(command, env, log, lock, watch, stopped)
            if code:
                return _ended(path, WAITING if stopped() else FAILED, f"not scored: {failure(code, path)}")
    except Exception as e:
        if os.environ.get("DYNCONV_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        return _ended(path, FAILED, told(e))
    return _ended(path, DONE, "")


def _facts(record: dict[str, Any], threads: int) -> dict[str, Any]:
    made = {"threads": threads, "versions": provenance.versions(), "git": provenance.git()}
    made |= {"machine": provenance.machine(), "attempts": record.get("attempts", 0) + 1, "started": _now()}
    if record.get("attempts") and record["host"] in hosts.CONTINUES:
        # What goes on from a checkpoint was made by these as well.
        before = {k: record[k] for k in ("started", "git", "versions", "machine") if k in record}
        made["earlier"] = [*record.get("earlier", []), before]
    return made


def _ended(path: Path, status: str, error: str) -> str:
    cells.update(path, status=status, error="" if status == WAITING else error, ended=_now())
    return status


def environment(record: dict[str, Any], threads: int, gpu: str | None) -> dict[str, str]:
    """The environment of a cell's command."""
    scripts = str(Path(sys.executable).parent)
    each = max(1, threads // record.get("processes", 1))
    return {
        **os.environ,
        "PATH": scripts + os.pathsep + os.environ.get("PATH", ""),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(each),
        "MKL_NUM_THREADS": str(each),
        # Threads that spin while they wait make a busy machine ten times slower.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "MPLBACKEND": "Agg",  # hosts that plot need no screen
        **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}),
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def told(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() + (f": {error.filename}" if error.filename else "")
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
