"""What the tests of several processes share: a run as a user starts it, and the comparison of two."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

import timm_models
from dynconv_plugins.study.launch import launched

ROOT = Path(timm_models.__file__).parents[1]


def environment(**more: object) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # No test may depend on a GPU that happens to be there.
    fixed = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **fixed, **{k: str(v) for k, v in more.items()}}


@contextmanager
def started(*words: object, processes: int, cwd: Path, **env: object) -> Iterator[subprocess.Popen[str]]:
    """``python -m WORDS...``, shared out among `processes`; it has ended when the context does."""
    command = launched((sys.executable, "-m", *map(str, words)), processes)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=cwd, env=environment(**env), text=True, **pipes)
    try:
        yield process
    finally:
        process.terminate()  # which torchrun, unlike a kill, hands on
        process.communicate(timeout=90)


def run(*words: object, processes: int, cwd: Path, **env: object) -> str:
    """Runs ``python -m WORDS...``, shared out among `processes`, and returns its output."""
    with started(*words, processes=processes, cwd=cwd, **env) as process:
        output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-8000:]
    return output


def assert_same_weights(one: dict[str, Tensor], two: dict[str, Tensor], start: dict[str, Tensor] | None = None) -> None:
    """Asserts that two state dicts agree to a thousandth of each tensor, and that training moved them from `start`."""
    assert one.keys() == two.keys()
    if start is not None:
        moved = [name for name, value in one.items() if (value.double() - start[name].double()).abs().max() > 1e-3]
        assert len(moved) > len(one) / 4
    for name, value in one.items():
        # Of a tensor's largest value: what is small in it is a difference of larger ones.
        size = 1e-3 * value.abs().max().item() + 1e-5
        torch.testing.assert_close(
            two[name], value, rtol=1e-4, atol=size, msg=lambda text, name=name: f"{name}: {text}"
        )
