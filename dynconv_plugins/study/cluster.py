"""A study's cells as jobs of a cluster, through submitit: one job a cell, whatever the cluster.

There is no scheduler in here. Slurm has its own; submitit's local executor, which is for trying things out, would start
everything at once, so that here a job waits until there are cores for it. For work on one machine ``dynconv study
--jobs N`` is the better way.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..demo.machine import cores
from ..errors import UnknownName, UserError, require
from ..writing import write_json
from .job import CellJob

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job

Jobs = dict[str, "Job[str]"]
LOCAL, SLURM = "local", "slurm"
NOTE = "jobs.json"
# A cell that is out of time goes on where it was, which costs little (tsai's, which are short, begin again): submitit's
# own limit of 3 would end long ones.
TIMEOUTS = 30
DEFAULTS = {"name": "dynconv", "timeout_min": 24 * 60}
LATE_FILES = 20.0  # seconds by which a result may be later than the end of its job on a network's file system


def parameters(words: Sequence[str]) -> dict[str, Any]:
    """Reads ``NAME=VALUE`` words: numbers, true and false become themselves, all else stays text.

    Raises:
        UserError: If there is no ``=``, or no name before it.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UserError(f"a cluster's parameter is NAME=VALUE, such as timeout_min=600, not {word!r}")
        try:
            found[name] = {"true": True, "false": False}[text.lower()] if text.isalpha() else ast.literal_eval(text)
        except (KeyError, ValueError, SyntaxError):
            found[name] = text
    return found


def submit(
    cells: Mapping[str, str | Path],
    *,
    executor: str,
    folder: Path,
    parameters: Mapping[str, Any],
    run: Callable[..., str],
) -> Jobs:
    """Submits each cell as a job of its own, on Slurm as one array; jobs of an earlier call that still run are kept.

    Args:
        cells: Folder of each, by key.
        executor: ``slurm``, ``local``, or another that submitit knows.
        folder: Where submitit keeps its files and each job's stdout and stderr. All machines must see it.
        parameters: submitit's, such as ``timeout_min``, ``mem_gb``, ``cpus_per_task``, ``gpus_per_node``, and Slurm's,
            with or without the ``slurm_`` in front: ``partition``, ``array_parallelism``, ``account``, ``constraint``,
            ``gres``, ``setup``, ... Jobs that run out of time are put back into the queue, and go on there. Locally
            `cpus_per_task` says how many jobs there is room for; without it one takes all cores.
        run: Called on the other machine as ``run(folder, threads=..., stopped=...)``, see `CellJob`. It must be
            importable there.

    Returns:
        The jobs by key, in the order of `cells`.

    Raises:
        UserError: If submitit is not installed, the executor is not there, or a parameter is unknown or does not fit.
        KeyboardInterrupt: While waiting for room; then the local jobs have been cancelled.
    """
    made = _executor(executor, folder, parameters)
    threads = parameters.get(f"{executor}_cpus_per_task", parameters.get("cpus_per_task", 0))
    jobs = _running(cells, executor, folder)
    todo = {key: CellJob(run, str(Path(path).resolve()), threads) for key, path in cells.items() if key not in jobs}
    if executor == LOCAL:
        room = max(1, cores() // threads) if threads else 1
        try:
            for key, job in todo.items():
                while sum(not started.done() for started in jobs.values()) >= room:
                    time.sleep(0.2)
                with _deaf():
                    jobs[key] = made.submit(job)
        except (KeyboardInterrupt, SystemExit):
            _cancel(jobs)
            raise
    elif todo:
        try:
            with made.batch():
                jobs |= {key: made.submit(job) for key, job in todo.items()}
        except RuntimeError as e:  # submitit's own are of that kind
            raise UserError(f"{executor} has refused the jobs: {' '.join(str(e).split())}") from None
    # Jobs of other parts of the plan are still to be found by a later call.
    write_json(folder / NOTE, _noted(folder) | {key: [executor, job.job_id] for key, job in jobs.items()})
    return {key: jobs[key] for key in cells}


def watch(jobs: Jobs, say: Callable[[str], None] = print, every: float = 1.0) -> dict[str, str]:
    """Waits for jobs, and says a line as each ends.

    Args:
        jobs: By cell key.
        say: Takes a line.
        every: Seconds between looks.

    Returns:
        What went wrong, a line each that names the job and its stderr, by the key of the cell.

    Raises:
        KeyboardInterrupt: After Ctrl-C. Local jobs have been cancelled then; those of a cluster go on, and `say` has
            said how to come back to them.
    """
    left, errors, ended = dict(jobs), {}, dict[str, float]()
    try:
        while left:
            for key in [key for key, job in left.items() if job.done()]:
                if time.monotonic() < ended.setdefault(key, time.monotonic()) + _late(left[key]):
                    continue
                result, trouble = _outcome(left.pop(key))
                if trouble:
                    errors[key] = trouble
                say(f"{key}: {trouble or result}  ({len(jobs) - len(left)} of {len(jobs)})")
            time.sleep(every if left else 0)
    except (KeyboardInterrupt, SystemExit):
        _part(left, say)
        raise
    return errors


def _late(job: Job[str]) -> float:
    """Seconds that the result of a job that has ended may still take to be seen here."""
    from submitit import LocalJob

    return 0 if isinstance(job, LocalJob) or job.paths.result_pickle.exists() else LATE_FILES


def _outcome(job: Job[str]) -> tuple[str, str]:
    """What the job returned, and what is wrong with it, one of them empty."""
    if not job.paths.result_pickle.exists():
        return "", f"job {job.job_id} ended without a result ({job.state.lower()}), see {job.paths.stderr}"
    failed = job.exception()
    if failed is None:
        return job.result(), ""
    raised = [line for line in str(failed).splitlines() if line and not line[0].isspace() and ": " in line]
    words = _OURS.sub("", next((line for line in reversed(raised) if "job.stderr" not in line), "an error"))
    return "", f"job {job.job_id} failed: {words}, see {job.paths.stderr}"


# One job is one cell in one process, which starts others by itself where the plan says so.
_ONE = {"nodes", "tasks_per_node", "ntasks_per_node"}
# The class of an error of ours, before what it says.
_OURS = re.compile(rf"^{__name__.partition('.')[0]}[\w.]+: ")


def _executor(name: str, folder: Path, given: Mapping[str, Any]) -> AutoExecutor:
    submitit = require("submitit", extra="study")
    plugins = require("submitit.core.plugins", extra="study")
    known = {each: kind for each, kind in plugins.get_executors().items() if each != "debug"}
    if name not in known:
        raise UnknownName("cluster", name, known)
    limits = {f"{each}_max_num_timeout": TIMEOUTS for each in (LOCAL, SLURM)}
    try:
        made = submitit.AutoExecutor(folder=folder.resolve(), cluster=name, **limits)
    except RuntimeError as e:
        raise UserError(f"no {name} here: {' '.join(str(e).split())}") from None
    common = submitit.AutoExecutor._valid_parameters() - _ONE
    own = {f"{each}_{word}" for each in known for word in common | known[each]._valid_parameters() - _ONE}
    chosen: dict[str, Any] = {}
    for parameter, value in given.items():
        if parameter.removeprefix(f"{SLURM}_") == "time":
            raise UserError("a job's time is timeout_min=MINUTES: by it submitit knows when to save and go on")
        full = parameter if parameter in common | own else f"{SLURM}_{parameter}"
        if full not in common | own:
            short = {each.removeprefix(f"{SLURM}_") for each in own if each.startswith(SLURM)}
            raise UnknownName("parameter of a cluster", parameter, common | short)
        chosen[full] = value
    try:
        made.update_parameters(**DEFAULTS | chosen)
    except (AssertionError, TypeError, ValueError, NameError) as e:
        raise UserError(f"the cluster's parameters do not fit: {' '.join(str(e).split())}") from None
    return made


def _running(cells: Mapping[str, Any], executor: str, folder: Path) -> Jobs:
    """Jobs of an earlier study in this folder that have not ended. Local ones end with their study, or soon after."""
    if executor != SLURM:
        return {}
    from submitit import SlurmJob

    ours = {key: number for key, (where, number) in _noted(folder).items() if where == SLURM and key in cells}
    jobs = {key: SlurmJob(folder.resolve(), number) for key, number in ours.items()}
    return {key: job for key, job in jobs.items() if not job.done()}


def _noted(folder: Path) -> dict[str, tuple[str, str]]:
    """Executor and number of the jobs that were submitted from this folder, by cell."""
    try:
        noted = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return {key: (where, number) for key, (where, number) in noted.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError):
        raise UserError(f"{folder / NOTE} is damaged: remove it when no job of this study is running") from None


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started in here does not hear Ctrl-C, which reaches everything that runs in a terminal."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cancel(jobs: Jobs) -> None:
    """Ends local jobs and waits until they have saved. submitit's own way leaves them a second for it."""
    while left := [job for job in jobs.values() if not job.done()]:
        for job in left:
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)  # to submitit's controller, which hands it on
        time.sleep(1)  # and again, if it came too early to be heard


def _part(jobs: Jobs, say: Callable[[str], None]) -> None:
    from submitit import LocalJob

    if all(isinstance(job, LocalJob) for job in jobs.values()):
        say(f"stopping {len(jobs)} jobs, which save first")
        _cancel(jobs)
        say(f"{len(jobs)} jobs cancelled; the same command goes on where they were")
        return
    numbers = sorted({job.job_id.partition("_")[0] for job in jobs.values()})
    say(
        f"{len(jobs)} jobs go on without this command, which when given again watches them; "
        f"to end them: scancel {' '.join(numbers)}"
    )
