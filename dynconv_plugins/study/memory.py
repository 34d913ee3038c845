"""Peak memory of a call, in bytes above what was allocated before it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def peak(function: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes of tensors that were alive at once during the call, less those alive before.

    On a CPU every allocation and release is read from the profiler's trace and added up: exact, and the same from call
    to call, which the process's resident memory is not (it holds what malloc keeps, up to twice as much). What
    libraries allocate for themselves (MKL's workspaces) is not in it; on CUDA neither is what the allocator reserves.

    Args:
        function: Called once; let it run once before, so that it allocates nothing that stays.
        device: ``'cpu'`` or ``'cuda'``.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    held = most = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        most = max(most, held)
    return most


def stored(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
