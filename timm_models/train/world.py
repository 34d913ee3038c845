"""The processes that train together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from timm.utils.distributed import init_distributed_device_so

from dynconv_plugins.errors import UserError


@dataclass(frozen=True)
class World:
    """This process's place among those of the run (one, unless torchrun started it)."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def distributed(self) -> bool:
        return self.size > 1

    @property
    def primary(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Returns whether `flag` is true on any rank; all of them must call it."""
        if not self.distributed:
            return flag
        return self.sum([float(flag)])[0] > 0

    def sum(self, values: list[float]) -> list[float]:
        """Returns `values` summed over the ranks."""
        if not self.distributed:
            return values
        # Counts and losses are summed in double precision where the device has it.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.tensor(values, dtype=dtype, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def barrier(self) -> None:
        if self.distributed:
            dist.barrier()

    def close(self) -> None:
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()


def join(device: str) -> World:
    """Joins the process group that torchrun (or SLURM) describes in the environment, if any.

    Raises:
        UserError: If `device` is not there.
    """
    kind = device.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device here; use --device cpu")
    try:
        torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: not a device of torch, such as cpu, cuda or cuda:0") from None
    info = init_distributed_device_so(device)
    return World(torch.device(info["device"]), info["global_rank"], info["world_size"])
