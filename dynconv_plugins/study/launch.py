"""One training command, shared out among several processes by torchrun."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError

# Options of mim's own with a value, and without: mmseg's script does not know them.
_MIM_VALUES = ("--gpus", "-G", "--gpus-per-node", "-g", "--launcher", "-l", "--port", "--cpus-per-task", "-c")
_MIM_FLAGS = ("--yes", "-y")


def launched(command: tuple[str, ...], processes: int) -> tuple[str, ...]:
    """Returns the command that trains with `processes` processes on one machine what `command` trains with one.

    Batch sizes are per process in all three hosts: whoever wants the one-process run's result divides the batch size by
    `processes` and leaves everything else, the learning rate and the number of steps too, as it is. What then agrees to
    rounding, and what cannot, is this:

    - The same samples in the same steps, the mean of their gradients, the temperature and the budget of `hard` agree.
    - Batch normalisation, in the network and in attention heads, sees a process's own part of the batch, as everywhere
      under DDP; timm's ``--sync-bn`` and mmseg's ``sync_bn="torch"`` mend that on GPUs, and nothing does on CPUs.
    - Random draws are made per process (dropout, mixup, erasing; all augmentation in tsai and mmseg; timm's, which is
      seeded by sample, is the same): equally distributed, not equal.

    Args:
        command: ``python -m timm_models train ...``, ``python -m tsai_models train ...`` or ``mim train mmsegmentation
            CONFIG ...``; the first may be a path.
        processes: How many.

    Returns:
        `command` itself for one process, else ``python -m torch.distributed.run --standalone ...``, which finds a free
        port: several can run on one machine.

    Raises:
        UserError: If `processes` is not positive, or `command` is none of those.
    """
    if processes < 1:
        raise UserError(f"a run needs at least one process, not {processes}")
    if processes == 1:
        return command
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    program, *words = command
    if Path(program).name == "mim":
        program, words = sys.executable, ["-m", "mim", *words]
    match words:
        case ["-m", "mim", "train", "mmsegmentation", *rest]:
            return (program, *torchrun, "-m", "mmseg_configs.processes", *_without_mim_options(rest))
        case ["-m", "timm_models" | "tsai_models", "train", *_]:
            return (program, *torchrun, *words)
    raise UserError(f"no way to share this out among {processes} processes: {' '.join(command)}")


def _without_mim_options(words: list[str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if word in _MIM_VALUES:
            next(rest, None)
        elif word not in _MIM_FLAGS and not word.startswith(tuple(f"{name}=" for name in _MIM_VALUES)):
            yield word
