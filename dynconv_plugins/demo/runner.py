"""Runs cells one after the other as subprocesses: live progress, and nothing is run twice for nothing."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dynconv_plugins.demo.records import Cell, Curve
from dynconv_plugins.writing import write_json

RECORD = "cell.json"
LOG = "log.txt"


def finished(cell: Cell) -> float | None:
    """Seconds that the cell took, if its very command has been run to the end before, on these data."""
    try:
        record = json.loads((cell.folder / RECORD).read_text())
        same = record["command"] == list(cell.command) and record.get("inputs", "") == cell.inputs
        return float(record["seconds"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shown(cell: Cell) -> str:
    """The command as a person would type it, in an active environment."""
    program = Path(cell.command[0]).name
    words = shlex.join(("python" if program.startswith("python") else program, *cell.command[1:]))
    return "".join(f"{name}={shlex.quote(value)} " for name, value in cell.env) + words


def last_words(folder: Path) -> str:
    """The line of a cell's log that says why it failed."""
    try:
        # Progress bars rewrite their line, so carriage returns split too.
        text = (folder / LOG).read_text(errors="replace").replace("\r", "\n")
    except OSError:
        return ""
    kept = [line.strip() for line in text.splitlines() if line.strip()]
    # Since the command was last started: an earlier attempt failed of something else.
    starts = [i for i, line in enumerate(kept) if line.startswith("$ ")]
    kept = kept[starts[-1] + 1 :] if starts else kept
    # A launcher that reports the failure of what it launched says nothing: the exception before it does.
    errors = [line for line in kept if re.match(r"error:|[\w.]+(Error|Exception): ", line)]
    telling = [line for line in errors if "CalledProcessError" not in line]
    return (telling or errors or kept or [""])[-1]


def ending(code: int) -> str:
    """How a command ended that has failed, from its exit code, which is negative for a signal."""
    if code >= 0:
        return f"exit code {code}"
    hint = " (by a system out of memory?)" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def failure(code: int, folder: Path) -> str:
    """Why a cell's command has failed, in a line: how it ended, and what its log says last."""
    said = last_words(folder)
    if code >= 0:
        return f"{ending(code)}: {said or 'no output'}"
    return f"{ending(code)}" + (f"; its last line: {said}" if said else "")


def run_cell(cell: Cell, watch: Callable[[], None], threads: int) -> tuple[float, float]:
    """Runs one cell in an emptied folder and returns its seconds of wall clock and of processor time.

    Raises:
        RuntimeError: If the command failed; the message ends in the log's last line.
    """
    if cell.folder.is_dir() and any(cell.folder.iterdir()) and not (cell.folder / LOG).is_file():
        raise RuntimeError(f"{cell.folder} holds other files; choose another --out")
    shutil.rmtree(cell.folder, ignore_errors=True)
    cell.folder.mkdir(parents=True)
    scripts = str(Path(sys.executable).parent)
    env = os.environ | {
        "PATH": scripts + os.pathsep + os.environ.get("PATH", ""),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        # Threads that spin while they wait make a busy machine ten times slower.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "MKL_NUM_THREADS": str(threads),
        "MPLBACKEND": "Agg",  # hosts that plot need no screen
        **dict(cell.env),
    }
    started, used = time.monotonic(), _processor()
    with open(cell.folder / LOG, "wb") as log:
        log.write(f"$ {shown(cell)}\n".encode())
        log.flush()
        child = subprocess.Popen(cell.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
        try:
            while child.poll() is None:
                time.sleep(0.3)
                watch()
        except BaseException:
            # An interrupt at the terminal has reached the child as well: let it save what it saves.
            child.send_signal(signal.SIGINT)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            raise
    if child.returncode:
        raise RuntimeError(failure(child.returncode, cell.folder))
    return time.monotonic() - started, _processor() - used


def _processor() -> float:
    """Processor seconds of all commands so far: on a busy machine they tell more than the wall clock."""
    times = os.times()
    return times.children_user + times.children_system


def run_all(
    cells: list[Cell], read: Callable[[Cell], Curve], console: Console, threads: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Runs what has not been run yet.

    Args:
        cells: In the order to run.
        read: Reads the curve that a host has written so far; empty when there is none yet.
        console: Where progress goes; without a terminal, a line per start and end.
        threads: CPU threads for each command.

    Returns:
        Seconds by cell key, and errors by cell key.
    """
    seconds: dict[str, float] = {}
    errors: dict[str, str] = {}
    columns = (
        TextColumn("{task.description}", style="bold"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars = {
            c.key: progress.add_task(f"{c.task} {c.operator}", total=c.total, unit=c.unit, note="", start=False)
            for c in cells
        }
        for cell in cells:
            bar = bars[cell.key]
            before = finished(cell)
            if before is not None:
                seconds[cell.key] = before
                progress.update(bar, completed=cell.total, note=f"done before, {before:.0f} s")
                _say(console, f"{cell.key}: done before in {before:.0f} s")
                continue
            progress.start_task(bar)
            _say(console, f"{cell.key}: {shown(cell)}")
            watch = _watcher(cell, read, progress, bar, console)
            try:
                seconds[cell.key], processor = run_cell(cell, watch, threads)
            except (RuntimeError, OSError) as e:
                errors[cell.key] = str(e)
                progress.stop_task(bar)
                progress.update(bar, note=f"[red]failed[/red], see {cell.folder / LOG}")
                _say(console, f"{cell.key}: failed: {e}")
                continue
            record = {"seconds": seconds[cell.key], "processor_seconds": processor, "threads": threads}
            write_json(cell.folder / RECORD, {"command": list(cell.command), "inputs": cell.inputs, **record})
            watch()
            progress.stop_task(bar)
            progress.update(bar, completed=cell.total)
            _say(console, f"{cell.key}: done in {seconds[cell.key]:.0f} s")
    return seconds, errors


def _watcher(
    cell: Cell, read: Callable[[Cell], Curve], progress: Progress, bar, console: Console
) -> Callable[[], None]:
    seen = 0

    def watch() -> None:
        nonlocal seen
        try:
            curve = read(cell)
        except (OSError, ValueError, KeyError, IndexError):
            return  # a file that is being written this moment
        if len(curve.steps) == seen:
            return
        seen, step = len(curve.steps), curve.steps[-1]
        score, loss = curve.last_score(), next((v for v in reversed(curve.train_loss) if not math.isnan(v)), math.nan)
        note = "" if math.isnan(loss) else f"loss {loss:.3f}"
        note += f"  score {score:.1%}" if score is not None else ""
        progress.update(bar, completed=min(step, cell.total), note=note.strip())
        if cell.total <= 20 or step % max(1, cell.total // 10) == 0:
            _say(console, f"  {cell.unit} {step:g} of {cell.total}  {note.strip()}")

    return watch


def _say(console: Console, text: str) -> None:
    """Plain lines where bars cannot be drawn: in a log, in CI."""
    if not console.is_terminal:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
