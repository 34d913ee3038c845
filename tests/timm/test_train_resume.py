"""Killed at a random moment and resumed, a run ends in the same bits as one that was left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from training import DYNAMIC, SMALL, assert_same_run, command, differences, environment, load, make_folder, run

from timm_models.train.cli import main

# Everything that draws random numbers or keeps state between batches.
EVERYTHING = (
    *DYNAMIC, *SMALL, "--epochs", 4, "--lr", 0.05, "--drop", 0.2, "--mixup", 0.3, "--cutmix", 1.0, "--reprob", 0.3,
    "--aa", "rand-m5-inc1", "--rotate", 10, "--model-ema", "--model-ema-decay", 0.8, "--opt", "adamw",
    "--sched-on-updates", "--grad-accum-steps", 2, "--clip-grad", 1.0, "--checkpoint-hist", 2,
    "--temperature-epochs", 3, "--channels-last",
)  # fmt: skip
PLATEAU = (
    *DYNAMIC, *SMALL, "--epochs", 5, "--lr", 0.02, "--sched", "plateau", "--patience-epochs", 0,
    "--eval-metric", "loss",
    "--drop", 0.2, "--no-prefetcher", "--mixup", 0.2, "--reprob", 0.3, "--early-stop", 4, "--checkpoint-hist", 3,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"))


def kill_somewhere(args: tuple, out: Path, rng: random.Random, signum: int) -> int:
    """Starts a run, waits for its first checkpoint and a random while, signals it and returns its exit code."""
    process = subprocess.Popen(command(*args), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    started = time.monotonic()
    before = {p: p.stat().st_mtime_ns for p in out.glob("*.pth.tar")}
    while process.poll() is None and time.monotonic() - started < 240:
        if any(before.get(p) != p.stat().st_mtime_ns for p in out.glob("*.pth.tar") if p.exists()):
            break
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 1.5))
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    print(f"exit code {process.returncode}; {sorted(p.name for p in out.iterdir())}\n{errors.decode()}")
    return process.returncode


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(EVERYTHING, id="everything"), pytest.param(PLATEAU, id="plateau", marks=pytest.mark.slow)],
)
def test_kill_and_resume_is_exact(folder: Path, tmp_path: Path, arguments: tuple) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    base = (folder, *arguments, "--output", tmp_path)
    run(*base, "--experiment", "whole")
    # The interrupted run has other workers and writes recovery checkpoints: neither may change a bit.
    again = (*base, "--experiment", "killed", "--resume", "auto", "--recovery-interval", 1, "--workers", 2)
    codes = [kill_somewhere(again, tmp_path / "killed", rng, signal.SIGKILL) for _ in range(2)]
    assert -signal.SIGKILL in codes, "the run ended before it could be killed"
    run(*again)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("operator", ["a2d2c", "localsoft", "hard"])
def test_random_points_carried_state_and_budgets_resume_exactly(folder: Path, tmp_path: Path, operator: str) -> None:
    flags = (
        folder, *SMALL, "--model", f"resnet18_{operator}", *DYNAMIC[2:], "zero_init_last=False", "--epochs", 2,
        "--lr", 0.05, "--grad-accum-steps", 2, "--model-ema", "--grad-checkpointing", "--output", tmp_path,
    )  # fmt: skip
    assert main([*map(str, (*flags, "--experiment", "whole", "--recovery-interval", 2))]) == 0
    place = tmp_path / "whole" / "recovery-0-2.pth.tar"
    assert load(place)["trainer"]["batch"] == 4
    # Images that are read in this process seed its generator too, and would hide what draws without a seed.
    assert main([*map(str, (*flags, "--experiment", "resumed", "--resume", place, "--workers", 1))]) == 0
    whole, resumed = (load(tmp_path / name / "last.pth.tar") for name in ("whole", "resumed"))
    for part in ("state_dict", "state_dict_ema", "optimizer", "trainer"):
        assert not differences(whole[part], resumed[part], part)
    steps = {value.item() for name, value in whole["state_dict"].items() if name.endswith("budget.step")}
    assert bool(steps) == (operator == "hard")


def test_ctrl_c_saves_and_says_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    arguments = (folder, *DYNAMIC, *SMALL, "--epochs", 6, "--lr", 0.05, "--workers", 1, "--output", tmp_path)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(*arguments, "--experiment", "whole")
    process = subprocess.Popen(
        command(*arguments, "--experiment", "stopped"), env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not (stopped / "last.pth.tar").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    said = errors.strip().splitlines()[-1].partition("go on with: python")[2]
    assert " -m timm_models train -c " in said
    resume = said.partition("timm_models train ")[2].split()
    assert resume[-2:] == ["--resume", "auto"]
    run(*resume)
    assert_same_run(whole, stopped)
    assert load(stopped / "last.pth.tar")["epoch"] == 5
