"""Looking at attentions without storing them on modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .convert import operators_in
from .functional import Attention


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, list[Attention]]]:
    """Collects what every dynamic operator's attention computes while the block runs.

    Yields:
        A dictionary from the operator's name to one `Attention` per call, detached and on the CPU. Compiled models run
        uncompiled in the block: compiled code would not see who watches.
    """
    recorded: dict[str, list[Attention]] = defaultdict(list)

    def hook(name: str):
        def save(_module, _inputs, attention: Attention) -> None:
            kept = (None if t is None else t.detach().float().cpu() for t in attention)
            recorded[name].append(type(attention)(*kept))

        return save

    handles = [op.attention.register_forward_hook(hook(name)) for name, op in operators_in(model).items()]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield recorded
    finally:
        for handle in handles:
            handle.remove()
