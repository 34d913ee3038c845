"""What may go wrong ends in a clear line, and leaves every finished cell as it was."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from studies import IMAGES, MASKS, SERIES, STUDY, TASK, command, environment, write_plan

from dynconv_plugins import cli
from dynconv_plugins.errors import UserError
from dynconv_plugins.study import cells


def scores(out: Path) -> dict[str, tuple]:
    found = {}
    for path in sorted(out.glob("*/*/*/metrics.json")):
        value = json.loads(path.read_text())
        found[str(path.relative_to(out))] = (value["score"], value["curve"]["train_loss"])
    return found


def trainers(out: Path) -> list[int]:
    """Processes whose command line names the study's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(out).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def killed(path: Path, out: Path, after: float, number: int, jobs: int = 1) -> bool:
    """Whether there was something to kill."""
    words = command(path, "--out", out, "--no-costs", "--jobs", jobs)
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        process.wait(timeout=100)
        return True
    return False


@pytest.fixture
def finish(study):
    def run(path: Path, out: Path) -> str:
        done = study(path, "--out", out, "--no-costs")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def copied(finished: tuple[Path, float], tmp_path: Path) -> tuple[Path, Path]:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return tmp_path / "p.yaml", tmp_path / "out"


def test_a_killed_study_ends_with_the_same_table(tmp_path: Path, finished: tuple[Path, float], finish) -> None:
    path, out = write_plan(tmp_path / "p.yaml", **STUDY), tmp_path / "out"
    # kill -9 leaves the trainer alone in the world; the next study must stop it and go on.
    for part, number in ((0.3, signal.SIGKILL), (0.6, signal.SIGINT)):
        assert killed(path, out, part * finished[1], number)
    finish(path, out)
    assert scores(out) == scores(finished[0] / "out")
    assert not trainers(out)


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_ten_kills_at_random_moments(tmp_path: Path, finish) -> None:
    tasks = {**STUDY, "b": {**IMAGES, "options": {**IMAGES["options"], "epochs": 4}}, "c": MASKS}
    path, draw = write_plan(tmp_path / "p.yaml", **tasks), random.Random(0)
    started = time.monotonic()
    table = finish(path, tmp_path / "whole").partition("scores, in per cent")[2].partition("the report")[0]
    whole = time.monotonic() - started
    hits = 0
    while hits < 10:
        number = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)[hits % 3]
        if killed(path, tmp_path / "cut", draw.uniform(0.0, 0.3) * whole, number, jobs=1 + hits % 2):
            hits += 1
        else:  # all was done before: that study had its table, and the next is killed from its start
            assert scores(tmp_path / "cut") == scores(tmp_path / "whole")
            shutil.rmtree(tmp_path / "cut")
    again = finish(path, tmp_path / "cut")
    assert table and table in again
    assert scores(tmp_path / "cut") == scores(tmp_path / "whole")
    assert not trainers(tmp_path / "cut")


@pytest.mark.parametrize("metrics", ['{"score": 0.', '{"score": "x"}'])
def test_damaged_records(tmp_path: Path, finished: tuple[Path, float], finish, metrics: str) -> None:
    path, out = copied(finished, tmp_path)
    before = scores(out)
    first, second = out / "a/static/seed0", out / "b/odconv/seed0"
    trained = (second / "run/model.pth").stat().st_mtime_ns
    # metrics: scored again from what is there; the record itself: what belongs to it is unknown, so it is run again
    (second / "metrics.json").write_text(metrics)
    (first / "cell.json").write_text("")
    said = finish(path, out)
    assert "metrics.json is damaged" in said and "scored again, without training" in said
    assert "cell.json is damaged" in said and "set aside" in said
    assert (second / "run/model.pth").stat().st_mtime_ns == trained
    assert (out / "old/a/static/seed0.1/run/model.pth").is_file()
    assert scores(out) == before


def test_a_crashing_cell_and_a_missing_data_set(tmp_path: Path, study, finished: tuple[Path, float]) -> None:
    _, out = copied(finished, tmp_path)
    before = scores(out)
    crash = {**TASK, "models": ["static", {"operator": "odconv", "label": "bad", "num_kernels": -1}]}
    missing = {**SERIES, "data": "Adiac"}
    done = study(write_plan(tmp_path / "q.yaml", a=crash, b=missing), "--out", "out", "--no-costs")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert len(lines) == 2
    assert any("a/bad/seed0: exit code 2: error: " in line and "num_kernels" in line for line in lines)
    assert any(line.startswith("failed b: no UCR archive found") and "DYNCONV_DATA" in line for line in lines)
    assert scores(out) == before and "2 cells, 1 of them finished before" in done.stdout
    assert json.loads((out / "a/static/seed0/cell.json").read_text())["status"] == "done"
    assert json.loads((out / "a/bad/seed0/cell.json").read_text())["status"] == "failed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk(tmp_path: Path, study, finished: tuple[Path, float], finish) -> None:
    path, out = copied(finished, tmp_path)
    shutil.rmtree(out / "b/odconv/seed0")
    before = scores(out)
    # Everything that is written through this link meets a full disk.
    (out / "b/odconv/seed0").mkdir(parents=True)
    os.symlink("/dev/full", out / "b/odconv/seed0/log.txt")
    done = study(path, "--out", "out", "--no-costs")
    assert done.returncode == 1 and "failed b/odconv/seed0: no space left on device" in done.stdout
    assert scores(out) == before
    (out / "b/odconv/seed0/log.txt").unlink()
    finish(path, out)
    assert len(scores(out)) == 2


@pytest.mark.parametrize("name", ["study.yaml", "cell.json", "metrics.json"])
def test_a_disk_that_is_full_when_a_record_is_written(
    tmp_path: Path, study, finished: tuple[Path, float], finish, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, out = copied(finished, tmp_path)
    before = scores(out)
    (out / "b/odconv/seed0/metrics.json").unlink()
    replace = os.replace

    def full(source, target) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("dynconv_plugins.writing.os.replace", full)
        done = study(path, "--out", "out", "--no-costs")
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2) and "no space left" in said and "Traceback" not in said
    assert scores(out) == {key: value for key, value in before.items() if key.startswith("a/")}
    assert not list(out.rglob("*.part"))
    finish(path, out)
    assert scores(out) == before


@pytest.mark.slow
def test_two_studies_do_not_share_a_cell(tmp_path: Path) -> None:
    """The second waits for what the first one makes."""
    path, out = (
        write_plan(tmp_path / "p.yaml", a={**SERIES, "options": {"epochs": 30, "batch_size": 8}}),
        tmp_path / "out",
    )
    first = subprocess.Popen(command(path, "--out", out, "--no-costs"), env=environment(), stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 100
        while not (out / "a/static/seed0/log.txt").exists() and time.monotonic() < until:
            time.sleep(0.1)
        second = subprocess.run(
            command(path, "--out", out, "--no-costs"), env=environment(), capture_output=True, text=True, timeout=200
        )
        assert second.stdout.count("seed0 is being run by another study") == 1 and second.returncode == 0
        assert first.wait(timeout=200) == 0 and cells.read(out / "a/static/seed0")["attempts"] == 1
    finally:
        first.kill()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "unknown plan"),
        (("quick", "--jobs", "0"), "--jobs must be at least 1"),
        (("quick", "--cluster-arg", "partition=gpu"), "--cluster-arg needs --cluster"),
        (("quick", "--cluster", "slurm", "--threads", "2"), "--threads is for this machine"),
        (("quick", "--tasks", "imges"), "did you mean images"),
        (("quick", "--data", "/nowhere"), "is not a folder"),
    ],
)
def test_bad_words_are_one_line(tmp_path: Path, monkeypatch, words: tuple, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as e:
        cli.run(["study", *words])
    assert "\n" not in str(e.value) and not (tmp_path / "runs").exists()
