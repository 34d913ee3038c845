"""Two processes under torchrun train one model, and go on exactly where they were stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from training import DYNAMIC, SMALL, assert_same_run, environment, load, make_folder

FLAGS = (
    *DYNAMIC, *SMALL, "--batch-size", 4, "--epochs", 3, "--lr", 0.02, "--model-ema", "--model-ema-decay", 0.8,
    "--drop", 0.2, "--grad-accum-steps", 2, "--mixup", 0.2,
)  # fmt: skip


def torchrun(*args: object) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return [*start, "-m", "timm_models", "train", *map(str, args)]


def run(*args: object) -> str:
    done = subprocess.run(torchrun(*args), env=environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_two_processes(tmp_path: Path) -> None:
    # 11 validation images: the second process has one less, and no image may count twice.
    folder = make_folder(tmp_path / "images", train=11, val=4)
    (folder / "val" / "class0" / "0.jpg").unlink()
    base = (folder, *FLAGS, "--output", tmp_path)
    said = run(*base, "--experiment", "whole")
    assert "2 x cpu" in said and said.count("writing to") == 1
    row = load(tmp_path / "whole" / "last.pth.tar")["trainer"]["history"][-1]
    assert (row["eval"]["top1"] / 100 * 11) % 1 < 1e-6 or (row["eval"]["top1"] / 100 * 11) % 1 > 1 - 1e-6

    stopped = tmp_path / "stopped"
    again = (*base, "--experiment", "stopped", "--resume", "auto", "--recovery-interval", 1)
    process = subprocess.Popen(torchrun(*again), env=environment(), stderr=subprocess.PIPE, text=True)
    while not list(stopped.glob("recovery-1-*.pth.tar")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    said = "go on with: torchrun --nproc-per-node=2 -m timm_models train -c "
    assert f"{said}{stopped / 'args.yaml'} --resume auto" in errors, errors
    print(run(*again))
    assert_same_run(tmp_path / "whole", stopped)
