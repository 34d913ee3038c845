"""Cells as an array of Slurm: what is handed to it, and what its answers mean. Slurm's commands are scripts that answer
what a test has put down; the jobs themselves do not run here."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

pytest.importorskip("submitit")

from dynconv_plugins.study import cluster

SBATCH = """#!/bin/sh
for word; do file=$word; done
cp "$file" "{folder}/submitted-$(ls {folder} | grep -c submitted).sh"
echo "Submitted batch job $((100 + $(ls {folder} | grep -c submitted)))"
"""
SACCT = "#!/bin/sh\ncat {folder}/states\n"
NONE = "#!/bin/sh\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch) -> Path:
    """The folder of its scripts and answers."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("sacct", SACCT), ("srun", NONE), ("scontrol", NONE), ("scancel", NONE)):
        (folder / name).write_text(script.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def answer(slurm: Path, **states: str) -> None:
    """What sacct says of the jobs of the array, by its number and the job's."""
    lines = ["JobID|State|NodeList", *(f"{job[1:]}|{state}|node1" for job, state in states.items())]
    (slurm / "states").write_text("\n".join(lines) + "\n")
    # submitit asks once in half a minute, and remembers what it was told.
    from submitit import SlurmJob

    SlurmJob.watcher.clear()


def submitted(tmp_path: Path, *names: str, **parameters: object) -> dict:
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)
    chosen = {f"task/{name}": str(tmp_path / name) for name in names}
    return cluster.submit(chosen, executor="slurm", folder=tmp_path / "jobs", parameters=parameters, run=print)


def test_one_array_with_what_was_asked_for(slurm: Path, tmp_path: Path) -> None:
    answer(slurm)
    jobs = submitted(tmp_path, "a", "b", "c", partition="gpu", timeout_min=90, cpus_per_task=4, array_parallelism=2)
    assert [job.job_id for job in jobs.values()] == ["101_0", "101_1", "101_2"]
    [script] = slurm.glob("submitted-*.sh")
    said = script.read_text()
    for words in (
        "--array=0-2%2",
        "--partition=gpu",
        "--time=90",
        "--cpus-per-task=4",
        "--nodes=1",
        "--signal=USR2@90",
    ):
        assert words in said, f"{words} is not in:\n{said}"
    assert json.loads((tmp_path / "jobs" / "jobs.json").read_text())["task/b"] == ["slurm", "101_1"]
    # Out of time, a job is put back so often, and its limit is a number that submitit can count with.
    import cloudpickle

    packed = sorted((tmp_path / "jobs").glob("*submitted.pkl"))
    assert len(packed) == 3
    one = cloudpickle.loads(packed[0].read_bytes())
    assert one._timeout_min == 90 and one._timeout_countdown == cluster.TIMEOUTS


def test_what_still_runs_is_not_submitted_again(slurm: Path, tmp_path: Path) -> None:
    answer(slurm)
    submitted(tmp_path, "a", "b", "c")
    answer(slurm, _101_0="RUNNING", _101_1="PENDING", _101_2="FAILED")
    again = submitted(tmp_path, "a", "b", "c")
    assert {key: job.job_id for key, job in again.items()} == {
        "task/a": "101_0",
        "task/b": "101_1",
        "task/c": "102",
    }
    assert len(list(slurm.glob("submitted-*.sh"))) == 2


def test_cancelled_jobs_are_waited_for_together(slurm: Path, tmp_path: Path, monkeypatch) -> None:
    """For a result that a network's file system shows late."""
    monkeypatch.setattr(cluster, "LATE_FILES", 1.0)
    answer(slurm)
    jobs = submitted(tmp_path, *"abcdef")
    answer(slurm, **{f"_101_{n}": "CANCELLED by 0" for n in range(6)})
    began, said = time.monotonic(), []
    errors = cluster.watch(jobs, said.append, every=0.1)
    assert time.monotonic() - began < 4 and len(errors) == len(said) == 6
    assert all(
        re.search(r"job 101_\d ended without a result \(cancelled by 0\), see .*\.err", e) for e in errors.values()
    )


def test_a_result_that_comes_late_counts(slurm: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "LATE_FILES", 60.0)
    answer(slurm)
    jobs = submitted(tmp_path, "a")
    answer(slurm, _101="COMPLETED")
    [job] = jobs.values()
    looks = []

    def late(key: str = "") -> float:
        looks.append(key)
        if len(looks) == 3:
            import cloudpickle

            job.paths.result_pickle.write_bytes(cloudpickle.dumps(("success", "done")))
        return before(job)

    before = cluster._late
    monkeypatch.setattr(cluster, "_late", late)
    assert cluster.watch(jobs, lambda line: None, every=0.05) == {} and len(looks) == 3
