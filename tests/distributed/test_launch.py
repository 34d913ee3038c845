"""The torchrun command of each host's training command."""

from __future__ import annotations

import sys

import pytest

from dynconv_plugins.errors import UserError
from dynconv_plugins.study.launch import launched

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
SCRIPT = (*TORCHRUN, "-m", "mmseg_configs.processes")


def test_one_process_is_the_command_itself() -> None:
    command = ("anything", "at", "all")
    assert launched(command, 1) is command


@pytest.mark.parametrize("host", ["timm_models", "tsai_models"])
def test_a_module(host: str) -> None:
    command = ("/env/bin/python", "-m", host, "train", "data", "--gpus", "2")
    assert launched(command, 2) == ("/env/bin/python", *TORCHRUN, "-m", host, "train", "data", "--gpus", "2")


@pytest.mark.parametrize("mim", [("mim",), ("/env/bin/mim",), (sys.executable, "-m", "mim")])
def test_mim(mim: tuple[str, ...]) -> None:
    theirs = ("--gpus", "0", "-l", "none", "--port=20000", "-y")
    ours = ("--work-dir", "w", "--resume", "--cfg-options", "a.b=1", "c=-1")
    command = (*mim, "train", "mmsegmentation", "c.py", *theirs, *ours)
    assert launched(command, 2) == (sys.executable, *SCRIPT, "c.py", *ours)


@pytest.mark.parametrize("command", [("python", "train.py"), ("mim", "test", "mmsegmentation", "c.py"), ("mim",)])
def test_what_cannot_be_shared_out(command: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="no way to share this out"):
        launched(command, 2)


def test_no_process() -> None:
    with pytest.raises(UserError, match="at least one process, not 0"):
        launched(("python",), 0)
