"""Buffers that outlast what happens to a module: casts, ``to_empty`` and the meta device."""

from __future__ import annotations

from torch import Tensor, nn


class Remaking(nn.Module):
    """A module with buffers that are only ever moved, and made anew where they have no values.

    On the meta device nothing has a value. A module leaves it by ``to_empty``, or by ``load_state_dict(assign=True)``,
    which leaves behind what no checkpoint holds. A subclass says in `remake` what its buffers are then.

    Attributes:
        remade: Their names. What others put into the module, as pruning does, is theirs, and is cast as anywhere.
    """

    remade: tuple[str, ...] = ()

    def remake(self, name: str, before: Tensor | None) -> Tensor:
        """The value of the buffer `name`, on any device.

        Args:
            before: What it was before a cast or a move; ``None`` where it had no value.
        """
        raise NotImplementedError

    def _apply(self, fn, recurse: bool = True):
        before = {name: self._buffers.get(name) for name in self.remade}
        super()._apply(fn, recurse)
        for name, old in before.items():
            if old is not None and not self._buffers[name].is_meta:
                self._remake(name, old, self._buffers[name])
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        left, own = self._non_persistent_buffers_set, {**self._parameters, **self._buffers}
        # None where parametrizations hold all that is loaded.
        loaded = next((t for name, t in own.items() if t is not None and name not in left), None)
        if loaded is None or loaded.is_meta:
            return
        for name in left.intersection(self.remade):
            old = self._buffers[name]
            if old is not None and old.device != loaded.device:
                self._remake(name, old, loaded)

    def _remake(self, name: str, old: Tensor, like: Tensor) -> None:
        self._buffers[name] = self.remake(name, None if old.is_meta else old).to(like.device)
