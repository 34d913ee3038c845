"""Cells as jobs of submitit's local executor: what they return, how they die, and how they go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from side_by_side import environment

pytest.importorskip("submitit")

from dynconv_plugins.errors import UserError
from dynconv_plugins.study.cluster import parameters, submit, watch

# What the jobs run. It has to be importable in their processes, which this file is not.
JOBS = '''
import os, signal, time
from pathlib import Path

from dynconv_plugins.errors import UserError


def note(folder, text):
    with open(Path(folder) / "notes.txt", "a") as file:
        file.write(text + "\\n")


def run(folder, threads=0, stopped=lambda: False):
    """The folder's name says what happens."""
    what = Path(folder).name
    note(folder, f"start {time.time()} {threads}")
    if what == "raises":
        raise UserError("this cell is raised: on purpose")
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "long" and not (Path(folder) / "saved").exists():
        (Path(folder) / "pid").write_text(str(os.getpid()))
        while not stopped():
            time.sleep(0.05)
        (Path(folder) / "saved").write_text("half")
        return "waiting"
    time.sleep(0.3)
    note(folder, f"end {time.time()} {threads}")
    return "done"
'''


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    (tmp_path / "cluster_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    sys.modules.pop("cluster_jobs", None)
    import cluster_jobs

    return cluster_jobs.run


def cells(tmp_path: Path, *names: str) -> dict[str, str]:
    for name in names:
        (tmp_path / name).mkdir()
    return {f"task/{name}": str(tmp_path / name) for name in names}


def local(run, chosen: dict[str, str], folder: Path, **more: object) -> dict:
    return submit(chosen, executor="local", folder=folder / "jobs", parameters=more, run=run)


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_each_ends_in_its_own_way(run, tmp_path: Path) -> None:
    chosen, said = cells(tmp_path, "one", "raises", "dies", "two"), []
    jobs = local(run, chosen, tmp_path, cpus_per_task=os.cpu_count())
    assert list(jobs) == list(chosen)
    errors = watch(jobs, said.append, every=0.1)
    assert sorted(errors) == ["task/dies", "task/raises"]
    paths = {key: job.paths.stderr for key, job in jobs.items()}
    assert errors["task/raises"].endswith(f"failed: this cell is raised: on purpose, see {paths['task/raises']}")
    assert "ended without a result" in errors["task/dies"] and errors["task/dies"].endswith(str(paths["task/dies"]))
    assert all(Path(path).is_file() for path in paths.values())
    assert len(said) == 4 and said[-1].endswith("(4 of 4)")
    assert any(line.startswith("task/one: done ") for line in said)
    # There was room for one at a time, with all the threads.
    notes = [(tmp_path / name / "notes.txt").read_text().split() for name in ("one", "two")]
    assert float(notes[0][4]) < float(notes[1][1])
    assert notes[0][2] == str(os.cpu_count())


def test_preempted_goes_on(run, tmp_path: Path) -> None:
    chosen = cells(tmp_path, "long")
    jobs = local(run, chosen, tmp_path)
    pid = tmp_path / "long" / "pid"
    until(lambda: pid.exists() and pid.read_text())
    os.kill(int(pid.read_text()), signal.SIGUSR2)  # what Slurm sends, 90 s before the end
    said: list[str] = []
    assert watch(jobs, said.append, every=0.1) == {}
    assert said == ["task/long: done  (1 of 1)"]
    assert (tmp_path / "long" / "notes.txt").read_text().count("start") == 2


def test_ctrl_c_cancels(run, tmp_path: Path) -> None:
    chosen = cells(tmp_path, "long")
    script = f"""
from pathlib import Path
from cluster_jobs import run
from dynconv_plugins.errors import run_cli
from dynconv_plugins.study.cluster import submit, watch
jobs = submit({chosen}, executor="local", folder=Path({str(tmp_path / "jobs")!r}), parameters={{}}, run=run)
run_cli(lambda: len(watch(jobs)))
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", script], text=True, start_new_session=True, **pipes)
    pid = tmp_path / "long" / "pid"
    until(lambda: pid.exists() and pid.read_text())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all that runs in it
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.splitlines() == [
        "stopping 1 jobs, which save first",
        "1 jobs cancelled; the same command goes on where they were",
    ]
    assert errors.strip() == "interrupted"
    assert (tmp_path / "long" / "saved").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert watch(local(run, chosen, tmp_path), every=0.1) == {}


def refused(tmp_path: Path, executor: str = "local", **given: object) -> str:
    with pytest.raises(UserError) as caught:
        submit({}, executor=executor, folder=tmp_path / "jobs", parameters=given, run=print)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_parameters_end_in_one_line(tmp_path: Path) -> None:
    assert "unknown parameter of a cluster 'partitoin'; did you mean partition" in refused(tmp_path, partitoin="gpu")
    assert "did you mean timeout_min" in refused(tmp_path, timeout_mins=3)
    assert "unknown parameter" in refused(tmp_path, nodes=2)
    assert "timeout_min" in refused(tmp_path, timeout_min="long")
    assert "timeout_min=MINUTES" in refused(tmp_path, time="10:00:00") == refused(tmp_path, slurm_time=600)
    assert "unknown cluster 'slrum'; did you mean slurm" in refused(tmp_path, "slrum")
    # Slurm's are taken, with and without its name, and mean nothing here.
    assert (
        submit({}, executor="local", folder=tmp_path, parameters={"partition": "a", "slurm_qos": "b"}, run=print) == {}
    )


def test_no_slurm_here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "no slurm here" in refused(tmp_path, "slurm")


def test_submitit_missing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert refused(tmp_path) == "submitit is not installed: pip install 'dynconv-plugins[study]'"


def test_parameters_of_a_command_line() -> None:
    words = ["timeout_min=600", "slurm_partition=gpu", "mem_gb=1.5", "exclusive=true", "begin=1:00", "comment=a=b"]
    read = {"timeout_min": 600, "slurm_partition": "gpu", "mem_gb": 1.5, "exclusive": True, "begin": "1:00"}
    assert parameters(words) == {**read, "comment": "a=b"}
    with pytest.raises(UserError, match="NAME=VALUE"):
        parameters(["gpu"])
