"""The truth: one sample and one kernel at a time, nothing clever. Every other backend is tested against it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..problem import Problem
from .plain import conv


def supports(problem: Problem) -> str | None:
    """Everything."""
    return None


def cost(problem: Problem) -> float:
    """Never chosen, only forced."""
    return math.inf


def run(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """``y_b = f_b * sum_k a_bk * conv(c_b * x_b, s_b * W_k)``, or with ``max_k`` for the sum, written out."""
    if not problem.batch:
        # Nothing to stack; every argument still has a gradient, zero.
        nothing = sum(t.sum() for t in (x, weight, *attention) if t is not None)
        return nothing.expand(0, problem.c_out, *problem.out_size)
    samples = []
    for b in range(problem.batch):
        xb = x[b : b + 1]
        if attention.input is not None:
            xb = xb * attention.input[b].reshape(1, -1, *(1,) * problem.dims)
        outputs = []
        for k in range(problem.kernels):
            w = weight[k]
            if attention.spatial is not None:
                w = w * attention.spatial[b]
            yk = conv(xb, w, problem)
            outputs.append(yk if attention.kernel is None else attention.kernel[b, k] * yk)
        outputs = torch.stack(outputs)
        y = outputs.amax(0) if problem.combine == "max" else outputs.sum(0)
        if attention.output is not None:
            y = y * attention.output[b].reshape(1, -1, *(1,) * problem.dims)
        samples.append(y)
    return torch.cat(samples)
