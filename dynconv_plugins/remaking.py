"""Buffers that outlast what happens to a module: casts, ``to_empty`` and the meta device."""

from __future__ import annotations

from torch import Tensor, nn


class Remaking(nn.Module):
    """A module whose buffers are only ever moved, and made anew where they have no values.

    On the meta device nothing has a value. A module leaves it by ``to_empty``, or by ``load_state_dict(assign=True)``,
    which leaves behind what no checkpoint holds. A subclass says in `remake` what its buffers are then.
    """

    def remake(self, name: str, before: Tensor | None) -> Tensor:
        """The value of the buffer `name`, on any device.

        Args:
            before: What it was before a cast or a move; ``None`` where it had no value.
        """
        raise NotImplementedError

    def _apply(self, fn, recurse: bool = True):
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            if old is not None and not self._buffers[name].is_meta:
                self._remake(name, old, self._buffers[name])
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        own = {**self._parameters, **self._buffers}
        left = {name: own[name] for name in self._non_persistent_buffers_set if own[name] is not None}
        loaded = next(t for name, t in own.items() if t is not None and name not in left)
        for name, old in left.items():
            if old.device != loaded.device and not loaded.is_meta:
                self._remake(name, old, loaded)

    def _remake(self, name: str, old: Tensor, like: Tensor) -> None:
        self._buffers[name] = self.remake(name, None if old.is_meta else old).to(like.device)
