"""What the numbers were measured with, and the measuring of latency."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

DISTRIBUTIONS = (
    "dynconv-plugins",
    "torch",
    "torchvision",
    "timm",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmsegmentation",
    "tsai",
    "fastai",
    "fvcore",
    "numpy",
)


def cores() -> int:
    """Cores that this process may use: fewer than there are in a job of a cluster, in a container, under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(size: str, threads: int) -> dict[str, Any]:
    """Versions and machine: names and numbers only, nothing that identifies a person or a host."""
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "size": size,
        "versions": {"Python": platform.python_version()} | {d: v for d in DISTRIBUTIONS if (v := _version(d))},
        "machine": {
            "cpu": _cpu(),
            "system": f"{platform.system()} {platform.machine()}",
            "threads": threads,
            "measure_threads": torch.get_num_threads(),
        },
    }


@torch.inference_mode()
def latency_ms(model: nn.Module, x: torch.Tensor, seconds: float = 2.0) -> float:
    """Median milliseconds of a forward pass in eval mode, over repetitions that fill about `seconds`."""
    model.eval()
    for _ in range(3):
        model(x)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 10 or (time.perf_counter() < until and len(times) < 200):
        start = time.perf_counter()
        model(x)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2] * 1e3


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines: Mapping[str, str] = dict(
            part.split(":", 1) for part in Path("/proc/cpuinfo").read_text().splitlines() if ":" in part
        )
        return next(v.strip() for k, v in lines.items() if k.strip() == "model name")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
