"""What goes from layer to layer of a model beside the feature maps, without living on the modules."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..recompute import backward_pass

_KEPT = 16  # forwards before a backward whose checkpointed parts can be recomputed
_NEAR = 0.05  # a recomputed clue differs from its forward's by rounding, another forward's by about its own size


class _Start(NamedTuple):
    """What a layer started from in one forward (``None``: its own state), and a clue to know that forward by."""

    clue: Tensor
    value: Tensor | None
    differentiable: bool


class _Chain:
    """What the layers of one thread have handed on so far.

    Attributes:
        value: What the last layer left.
        last: Its place in the model, outside of a forward.
        opened: The backward pass within which the model's forward began, -1 for none; ``None`` outside of a forward.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.last: int | None = None
        self.opened: int | None = None


class Carrier(threading.local):
    """Hands a small tensor of each layer to the next one, for all layers of one model.

    A forward of the connected model is one chain, in the order in which the layers run; when it ends, the value is
    dropped. A layer that runs outside such a forward (alone, or in an extractor that calls the model's children) goes
    on from the layer right before it in the model if that one ran last. A value of another shape is never used. In all
    other cases a layer starts from its own state.

    Activation checkpointing runs layers again during the backward pass, when the value is long gone. So each layer's
    start is kept, detached, for its last few forwards, and found again by a clue computed from the layer's input.

    Each thread has its own chain (replicas of data parallelism share their modules' attributes), while what is kept is
    shared, because on an accelerator the backward pass has threads of its own. Copies and pickles begin empty.

    Args:
        kept: Empty; shared by the threads.
    """

    def __init__(self, kept: dict[tuple[int, torch.device], deque[_Start]]) -> None:
        self.kept = kept
        self.chain = _Chain()  # an object of its own: compiled code may change that, not attributes of a thread

    def __reduce__(self):
        return Carrier, ({},)

    def open(self, _module: nn.Module, _inputs: tuple) -> None:
        """A forward of the connected model begins (its pre-hook)."""
        chain = self.chain
        chain.value, chain.last, chain.opened = None, None, backward_pass()

    def close(self, _module: nn.Module, _inputs: tuple, _outputs) -> None:
        """It ends (its hook, called after errors as well)."""
        chain = self.chain
        chain.value, chain.last, chain.opened = None, None, None

    def start(self, index: int, own: Tensor, clue: Tensor, keep: bool) -> Tensor:
        """What a layer starts from.

        Args:
            index: The layer's place in the model.
            own: The layer's own state, of the shape and on the device that the result has.
            clue: Computed from the layer's input and nothing else.
            keep: Whether a backward pass may follow.
        """
        chain = self.chain
        if _again(chain):
            return self._found(index, own, clue)
        start, inside = own, chain.opened is not None
        if chain.value is not None and chain.value.shape == own.shape and (inside or chain.last == index - 1):
            start = chain.value.to(own.device)
        if keep and backward_pass() < 0 and not torch.compiler.is_compiling():
            kept = self.kept.setdefault((index, own.device), deque(maxlen=_KEPT))
            kept.append(_Start(clue.detach(), None if start is own else start.detach(), start.requires_grad))
        return start

    def put(self, index: int, value: Tensor) -> None:
        """Leaves the layer's `value` for the next one."""
        chain = self.chain
        if _again(chain):
            return
        chain.value = value
        if chain.opened is None:  # within a forward nothing asks for it, and blocks compiled alike need no place
            chain.last = index

    def _found(self, index: int, own: Tensor, clue: Tensor) -> Tensor:
        """What the layer started from in the forward that is being recomputed.

        Gradients take the graph of the forward, so that a value will do; but it must need gradients as the original
        did, or the recomputation would save other tensors.
        """
        clue = clue.detach()
        kept = [s for s in self.kept.get((index, own.device), ()) if s.clue.shape == clue.shape]
        if not kept:
            return own
        found = next((s for s in reversed(kept) if torch.equal(s.clue, clue)), None)
        if found is None:
            distances = [(s.clue - clue).abs().max().item() for s in kept]
            found = kept[distances.index(min(distances))]
            if not min(distances) <= _NEAR * clue.abs().max().item():
                raise RuntimeError(
                    f"a checkpointed layer does not find the forward that it recomputes: more than {_KEPT} forwards of "
                    "the model before a backward pass, or an input that is not recomputed as it was"
                )
        return own if found.value is None else found.value.detach().requires_grad_(found.differentiable)


def _again(chain: _Chain) -> bool:
    """Whether a layer runs on its own account during a backward pass: part of a forward is being recomputed."""
    return backward_pass() >= 0 and chain.opened != backward_pass()
