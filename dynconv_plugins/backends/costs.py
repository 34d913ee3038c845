"""A small cost model, in seconds: how long the parts of the backends take on one machine.

Only comparisons between backends matter, so constants are round. They were fitted to the medians that
``python -m benchmarks.operators`` prints; docs/performance.md holds them beside the predictions.
"""

from __future__ import annotations

from ..problem import Problem

GEMM = 120e9  # multiply-adds a second of a large matrix product
BANDWIDTH = 8e9  # elements a second through memory, reads and writes together
CALL = 20e-6  # seconds to start one operation


def _work(problem: Problem) -> float:
    """Multiply-adds of the static convolution, times three where gradients for input and weight follow."""
    forward = problem.batch * problem.positions * problem.c_out * problem.fan_in
    return forward * (3 if problem.grad else 1)


def _passes(problem: Problem) -> float:
    return 3.0 if problem.grad else 1.0


def _weights(problem: Problem) -> float:
    """Weights of one kernel."""
    return problem.c_out * problem.fan_in


def static_conv(problem: Problem, calls: int = 1, filters: int = 1) -> float:
    """A library convolution with `filters` times the filters, in `calls` pieces."""
    return filters * _work(problem) / GEMM + calls * CALL * _passes(problem)


def grouped_conv(problem: Problem, samples: int) -> float:
    """A convolution with one group per sample."""
    slow = 6.0 if problem.grad else 2.0
    if problem.depthwise:
        slow = 1.0
    return slow * _work(problem) / GEMM + samples * _weights(problem) * _passes(problem) / BANDWIDTH + CALL


def gemm(problem: Problem, filters: int = 1) -> float:
    """One large matrix product."""
    return filters * _work(problem) / GEMM + CALL


def batched_gemm(problem: Problem) -> float:
    """One product a sample: each kernel is read for few positions."""
    return _work(problem) / GEMM + problem.batch * _weights(problem) * _passes(problem) / BANDWIDTH + CALL


def im2col(problem: Problem) -> float:
    """Writing the columns, reading and adding them back in backward."""
    elements = problem.batch * problem.positions * problem.taps * problem.c_in
    return elements * 2 * _passes(problem) / BANDWIDTH + CALL


def aggregate(problem: Problem, folded: bool = False) -> float:
    """Making per-sample kernels: mixing K, then a pass for the spatial factor and one for the folded ones."""
    passes = 1 + ("spatial" in problem.factors) + (folded and bool(problem.factors & {"input", "output"}))
    return problem.batch * _weights(problem) * 2 * passes * _passes(problem) / BANDWIDTH + passes * CALL


def mix(problem: Problem) -> float:
    """Summing K outputs."""
    elements = problem.batch * problem.positions * problem.c_out * problem.kernels
    return (elements * 2 * _passes(problem) / BANDWIDTH + CALL) if problem.kernels > 1 else CALL
