"""mmseg's own training script under torchrun: ``torchrun --nproc-per-node=2 -m mmseg_configs.processes CONFIG ...``.

``mim train --launcher pytorch`` runs that script too, but mmengine then insists on a GPU per process. Here processes
that are more than the GPUs share these, or do without, and join each other before mmengine looks. All arguments are the
script's: ``--work-dir``, ``--resume``, ``--cfg-options``. ``train_dataloader.batch_size`` is per process. The loss in
the log is the first process's.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from dynconv_plugins.errors import UserError, require, run_cli


def script() -> Path:
    """Where mmseg's package holds ``tools/train.py``.

    Raises:
        UserError: If mmseg is not installed, or without it.
    """
    root = Path(require("mmseg", "mmseg").__file__).parent
    for folder in (root / ".mim", root.parent):  # installed; a checkout
        if (folder / "tools" / "train.py").is_file():
            return folder / "tools" / "train.py"
    raise UserError(f"the mmseg in {root} comes without its training script (.mim/tools/train.py): install the wheel")


def options(devices: int, processes: int) -> list[str]:
    """What a config must say where there are fewer GPUs than processes; nothing elsewhere."""
    if devices >= processes:
        return []
    # mmengine gives each process the device of its number, which CPUs and shared GPUs do not have; its own default for
    # the buffers goes with it.
    wrapper = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    chosen = [f"model_wrapper_cfg.{name}={value}" for name, value in wrapper.items()]
    return ["--cfg-options", "env_cfg.dist_cfg.backend=gloo", *chosen]


def main(argv: Sequence[str] | None = None) -> None:
    """Joins the other processes where mmengine cannot, and runs the script."""
    import torch

    words = list(sys.argv[1:] if argv is None else argv)
    if "WORLD_SIZE" not in os.environ:
        raise UserError("start this with torchrun --nproc-per-node=N -m mmseg_configs.processes CONFIG ...")
    found = script()
    devices, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if devices < processes:
        if devices:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % devices)
        torch.distributed.init_process_group("gloo", timeout=timedelta(minutes=30))
    sys.argv = [str(found), *words, "--launcher", "pytorch", *options(devices, processes)]
    runpy.run_path(str(found), run_name="__main__")


if __name__ == "__main__":
    run_cli(main)
