"""Telling a forward from its repetition: activation checkpointing runs parts of the forward in the backward pass."""

from __future__ import annotations

import torch


def backward_pass() -> int:
    """The backward pass that is running in this thread, -1 for none (and for a graph, which cannot know)."""
    return -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()
