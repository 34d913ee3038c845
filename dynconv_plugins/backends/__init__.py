"""The ways to execute a dynamic convolution, and the choice among them.

A backend is one module with ``supports(problem) -> reason or None``, ``cost(problem) -> seconds`` and ``run(...)``.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ..errors import UnknownName
from ..problem import Problem
from . import costs, flops, fused, gemm, grouped, mixture, native, reference  # noqa: F401 - flops registers itself

BACKENDS: dict[str, ModuleType] = {
    "fused": fused,
    "native": native,
    "mixture": mixture,
    "gemm": gemm,
    "grouped": grouped,
    "reference": reference,
}

# Of the process, as torch's own flags of backends: on a GPU the backward pass recomputes in threads of its own.
_forced: ModuleType | None = None


class _Here(threading.local):
    """What one thread forces. No `ContextVar`, which older compilers break graphs at (pytorch issue 186449)."""

    def __init__(self) -> None:
        self.forced: ModuleType | None = None


_here = _Here()


def name_of(backend: ModuleType) -> str:
    """The name a backend is forced by."""
    return backend.__name__.rpartition(".")[2]


def check_name(name: str) -> str:
    """Returns `name` if it is a backend's.

    Raises:
        UnknownName: If it is not.
    """
    if name not in BACKENDS:
        raise UnknownName("backend", name, BACKENDS)
    return name


@contextmanager
def force(module: ModuleType | None) -> Iterator[None]:
    """Forces one backend module within the block and for this thread, a registered one or not.

    It goes before `backend`, to which ``None`` leaves it again. Other threads may compute meanwhile: what only counts
    or watches is none of theirs.
    """
    before, _here.forced = _here.forced, module
    try:
        yield
    finally:
        _here.forced = before


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Forces one backend within the block; the environment variable ``DYNCONV_BACKEND`` forces it everywhere.

    It holds for all threads of the process. Activation checkpointing repeats forwards in the backward pass: keep the
    block open until that is done.

    Raises:
        UnknownName: If there is no such backend.
        ValueError: On execution, if the forced backend does not support a problem.
    """
    global _forced
    before, _forced = _forced, BACKENDS[check_name(name)]
    try:
        yield
    finally:
        _forced = before


@functools.lru_cache(maxsize=4096)
def _cheapest(problem: Problem) -> ModuleType:
    chosen, best = reference, math.inf
    # A plain loop: the compiler does not trace `min` with a key.
    for candidate in BACKENDS.values():
        if candidate.supports(problem) is None and (cost := candidate.cost(problem)) < best:
            chosen, best = candidate, cost
    return chosen


def choose_backend(problem: Problem) -> ModuleType:
    """The forced backend, or the cheapest that supports the problem.

    Raises:
        UserError: If ``DYNCONV_COSTS`` names a file that holds no costs.
        ValueError: If the forced backend does not support the problem.
    """
    chosen = forced = _forced if _here.forced is None else _here.forced
    if chosen is None and (name := os.environ.get("DYNCONV_BACKEND")):
        chosen = BACKENDS[check_name(name)]
    if chosen is None:
        if costs.failed is not None:
            raise costs.failed
        # The compiler traces no cache; what it traces is called once.
        return _cheapest.__wrapped__(problem) if problem.traced else _cheapest(problem)
    reason = chosen.supports(problem)
    if reason:
        remedy = "leave its block" if forced else "unset DYNCONV_BACKEND"
        raise ValueError(f"backend '{name_of(chosen)}' cannot run this: {reason}; to have one chosen, {remedy}")
    return chosen
