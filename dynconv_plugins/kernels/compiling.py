"""Compiles a Triton function for the GPU or, with ``TRITON_INTERPRET=1``, leaves it to Triton's interpreter."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import triton


def interpreted() -> bool:
    """Whether kernels are to be interpreted, as Triton itself reads it."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def kernel(function: Callable):
    """`function` as a kernel; which of the two is asked again at each call, not fixed by the first import."""
    return _made(function, interpreted())


@functools.cache
def _made(function: Callable, _interpreted: bool):
    return triton.jit(function)
