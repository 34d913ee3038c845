"""Two processes: whose batch statistics are kept, and that none waits for one that has failed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.fixture
def together(tmp_path):
    """Runs the script in two processes: exit code and what they say."""

    def run(*words: object) -> tuple[int, str]:
        paths = os.pathsep.join(filter(None, [str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [*TORCHRUN, str(SCRIPT), str(tmp_path), *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=tmp_path, env=env, text=True, **pipes)
        try:
            said, _ = process.communicate(timeout=180)
        finally:
            process.terminate()  # which torchrun, unlike a kill, hands on
            process.communicate(timeout=90)
        return process.returncode, said

    return run


def test_kept_statistics_are_the_average_of_all_processes(together, tmp_path):
    code, said = together()
    assert code == 0, said[-4000:]
    found = json.loads((tmp_path / "statistics.json").read_text())
    first, second = np.array(found["each"])
    np.testing.assert_allclose(found["kept"], (first + second) / 2, atol=1e-5)
    assert np.abs(first - second).max() > 1e-3  # so that the average is neither


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_all(together, tmp_path, rank):
    code, said = together(rank)
    assert code != 0 and f"rank {rank} fails on purpose" in said
    assert rank == 1 or not (tmp_path / "best.pth").exists()
