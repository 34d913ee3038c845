"""Implicit GEMM on a CUDA device: the factors meet in registers, and no per-sample kernel is ever written to memory."""

from __future__ import annotations

import importlib.util
import math
import os

import torch
from torch import Tensor

from ..kernels.ops import fused
from ..problem import Problem
from .plain import not_aggregated

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LEAST = 16  # channels of the smallest matrix product
_TRITON = importlib.util.find_spec("triton") is not None

# Multiply-adds and values a second of a large GPU, at which these kernels may go; nothing else goes by them.
_MULTIPLY_ADD = 1 / 150e12
_VALUE = 1 / 1e12
_CALL = 20e-6


def supports(problem: Problem) -> str | None:
    """Mixing per sample on a CUDA device, with enough channels for matrix products."""
    if reason := not_aggregated(problem):
        return reason
    if not _TRITON:
        return "Triton is not installed"
    if problem.device != "cuda" and not (problem.device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"fused kernels need a CUDA device, this one is '{problem.device}'"
    if problem.transformed:
        return "torch.func does not see into its operation"
    if problem.exported:
        return "an exported graph is to hold operators that others know"
    if problem.dtype not in _DTYPES:
        return f"no kernel for {problem.dtype}"
    least = min(problem.c_in, problem.c_out) // problem.groups
    if least < _LEAST:
        return f"{least} channels per group are too few for matrix products, {_LEAST} are needed"
    sample = max(problem.c_in * math.prod(problem.size), problem.c_out * problem.positions)
    if max(sample, problem.kernels * problem.c_out * problem.fan_in) >= 2**31:
        return "offsets within a sample or within the kernels need more than 32 bits"
    return None


def cost(problem: Problem) -> float:
    """Products, mixing, and reading the activations; infinite in the interpreter, which is for tests."""
    if problem.device != "cuda":
        return math.inf
    from ..kernels.tiles import MIXING, WIDEST, shares_rows

    shared = shares_rows(problem.kernels, problem.positions)
    lines = problem.kernels * problem.positions
    if not shared:
        lines = math.ceil(problem.positions / 64) * 64
        lines += MIXING * (problem.kernels + 1) * math.ceil(problem.positions / WIDEST)
    values = problem.c_in * math.prod(problem.size) + problem.c_out * problem.positions
    once = problem.samples * (lines * problem.c_out * problem.fan_in * _MULTIPLY_ADD + values * _VALUE) + _CALL
    return once * (3.0 if problem.grad else 1.0)


def run(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """One operator, forward and backward."""
    if attention.kernel is None and problem.kernels > 1:
        weight = weight.sum(0, keepdim=True)
    return fused(x, weight, *attention, list(problem.stride), list(problem.padding), list(problem.dilation))
