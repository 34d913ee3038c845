"""A cache of tables that counts bytes, not entries."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

_OF_A_TENSOR = 500  # bytes beside its values, about


def recent(limit: int) -> Callable:
    """Remembers what a function of hashable arguments returned, tensors, as long as all of it is below `limit` bytes.

    What was not asked for the longest goes first; what alone is larger is not kept. ``function.kept`` is the cache, and
    ``function.limit`` its limit.
    """

    def decorate(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
        lock, total = threading.Lock(), 0

        @functools.wraps(function)
        def remembered(*args: Hashable) -> tuple[Tensor, ...]:
            nonlocal total
            with lock:
                if args in kept:
                    kept.move_to_end(args)
                    return kept[args]
            made = function(*args)
            if _size(made) > limit:
                return made
            with lock:
                total += _size(made) - _size(kept.pop(args, ()))  # another thread may have been faster
                kept[args] = made
                while total > limit:
                    total -= _size(kept.popitem(last=False)[1])
            return made

        remembered.kept, remembered.limit = kept, limit
        return remembered

    return decorate


def _size(tables: tuple[Tensor, ...]) -> int:
    return sum(table.nbytes + _OF_A_TENSOR for table in tables)
