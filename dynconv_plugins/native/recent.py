"""A cache of tables that counts bytes, not entries."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor


def recent(limit: int) -> Callable:
    """Remembers what a function of hashable arguments returned, tensors, as long as all of it is below `limit` bytes.

    What was not asked for the longest goes first; what alone is larger is not kept. ``function.kept`` is the cache.
    """

    def decorate(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
        lock = threading.Lock()

        @functools.wraps(function)
        def remembered(*args: Hashable) -> tuple[Tensor, ...]:
            with lock:
                if args in kept:
                    kept.move_to_end(args)
                    return kept[args]
            made = function(*args)
            if _size(made) > limit:
                return made
            with lock:
                kept[args] = made
                kept.move_to_end(args)
                while sum(map(_size, kept.values())) > limit:
                    kept.popitem(last=False)
            return made

        remembered.kept = kept
        return remembered

    return decorate


def _size(tables: tuple[Tensor, ...]) -> int:
    return sum(table.nbytes for table in tables)
