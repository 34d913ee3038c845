"""A small cost model, in seconds on two CPU cores: how long the parts of the backends take.

Only comparisons between backends matter. ``python -m benchmarks.calibrate`` fits the constants on the machine at hand.
What they say: a per-sample kernel in memory is expensive, being fresh memory that is written and read once or twice for
few positions, and one that is mixed in cache is cheap; the rows of a tap are cheap too, but there are as many of them
as taps.

The environment variable ``DYNCONV_COSTS`` names a JSON file of other values, ``{"CALL": 1.2e-05, "TRAIN.work": 3.1}``,
read once, when the package is imported: what ``python -m benchmarks.calibrate --write FILE`` writes. What is wrong with
it the first choice says.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError, suggest
from ..problem import Problem

MULTIPLY_ADD = 1 / 100e9  # of a large matrix product or convolution
WEIGHT = 4.5e-9  # for each value of a per-sample kernel in memory: mixing, scaling and reading it
CACHED_WEIGHT = 2.4e-9  # the same where the batch's kernels stay in the last-level cache
CACHE = 8e6  # values that do
SHARED_WEIGHT = 2e-9  # for each value of the K shared kernels: putting them in the order the products read
PACKED_WEIGHT = 1e-9  # the same in compiled code
MIXED_WEIGHT = 0.1e-9  # for each value of a per-sample kernel that is mixed in cache
MIXING = 0.05e-9  # for each of the K values that it is mixed from
VALUE = 0.6e-9  # for each value read or written in a pass over activations
CALL = 10e-6  # starting one operation

# What forward and backward take together, over forward alone.
TRAIN = {"work": 3.0, "weight": 3.5, "value": 4.5}


def constants() -> dict[str, float]:
    """The values in use, by name; the multipliers of training as ``TRAIN.work`` and so on."""
    plain = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, float)}
    return plain | {f"TRAIN.{what}": value for what, value in TRAIN.items()}


def use(values: Mapping[str, float]) -> None:
    """Sets constants by the names that `constants` gives. Choices made before it stay remembered."""
    for name, value in values.items():
        outer, _, what = name.partition(".")
        (TRAIN if what else globals())[what or outer] = float(value)


def read(path: str) -> dict[str, float]:
    """The constants in a JSON file.

    Raises:
        UserError: If there is no such file, or it holds anything but positive numbers by known names.
    """
    remedy = "unset it, or write one with python -m benchmarks.calibrate --write FILE"
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:  # ValueError: neither text nor JSON
        raise UserError(f"DYNCONV_COSTS={path}: {getattr(e, 'strerror', None) or 'not JSON'}; {remedy}") from None
    if not isinstance(values, dict):
        raise UserError(f"DYNCONV_COSTS={path}: not constants by name; {remedy}")
    for name, value in values.items():
        if name not in constants():
            raise UserError(f"DYNCONV_COSTS={path}: unknown constant '{name}'{suggest(name, constants())}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(f"DYNCONV_COSTS={path}: {name} must be positive, not {json.dumps(value)}; {remedy}")
    return values


failed: UserError | None = None
if _file := os.environ.get("DYNCONV_COSTS"):
    try:
        use(read(_file))
    except UserError as error:  # raised by the first choice: who imports the package has no line to show it in
        failed = error


def _scale(problem: Problem, what: str) -> float:
    return TRAIN[what] if problem.grad else 1.0


def work(problem: Problem, filters: float = 1) -> float:
    """The static convolution's multiply-adds, with `filters` times the filters."""
    macs = problem.samples * problem.positions * problem.c_out * problem.fan_in
    return filters * macs * MULTIPLY_ADD * _scale(problem, "work") + CALL


def reached(problem: Problem) -> float:
    """The part of all products that do not multiply padding; in a traced graph, whose size may be unknown, all."""
    part = 1.0
    if problem.traced:
        return part
    geometry = zip(problem.kernel_size, problem.stride, problem.padding, problem.dilation, strict=True)
    for (k, s, p, d), n, o in zip(geometry, problem.size, problem.out_size, strict=True):
        # Of each tap the first and the last position that it reaches, from 0 <= position * s + tap * d - p < n.
        ends = ((-((j * d - p) // s), (n - 1 - j * d + p) // s) for j in range(k))
        part *= sum(max(0, min(o - 1, last) - max(0, first) + 1) for first, last in ends) / (o * k)
    return part


def per_sample_kernels(problem: Problem) -> float:
    """Making a kernel for every sample, and using it for that sample only."""
    one = problem.c_out * problem.fan_in
    weight = CACHED_WEIGHT if problem.samples * one <= CACHE else WEIGHT
    made = problem.samples * one * (weight + problem.kernels * MIXING)
    return made * _scale(problem, "weight") + 3 * CALL


def shared_kernels(problem: Problem) -> float:
    """Rearranging the K kernels, once for the whole batch."""
    return problem.kernels * problem.c_out * problem.fan_in * SHARED_WEIGHT * _scale(problem, "weight") + CALL


def passes(problem: Problem, values: float) -> float:
    """Going once over so many values of each sample."""
    return problem.samples * values * VALUE * _scale(problem, "value") + CALL


def activations(problem: Problem) -> float:
    """Scaling the input by channel and the output by filter."""
    inputs = problem.c_in * math.prod(problem.size) if "input" in problem.factors else 0
    outputs = problem.c_out * problem.positions if "output" in problem.factors else 0
    return passes(problem, 2 * (inputs + outputs))


def im2col(problem: Problem) -> float:
    """Writing and reading every tap of every position."""
    return passes(problem, 2 * problem.positions * problem.taps * problem.c_in)


def tap_rows(problem: Problem, filters: int) -> float:
    """For every tap, its rows made and its products added to the output."""
    values = problem.positions * problem.taps * (problem.c_in + filters * problem.c_out)
    return passes(problem, values) + 3 * problem.taps * CALL


def kernels_in_cache(problem: Problem) -> float:
    """Putting the K kernels in order once, and mixing one for every sample that never reaches memory."""
    one = problem.c_out * problem.fan_in
    mixing = problem.samples * one * (MIXED_WEIGHT + problem.kernels * MIXING)
    return (mixing + problem.kernels * one * PACKED_WEIGHT) * _scale(problem, "weight") + 3 * CALL


def mix(problem: Problem) -> float:
    """Making one of K outputs, by sum or maximum."""
    return passes(problem, 2 * problem.positions * problem.c_out * problem.kernels) if problem.kernels > 1 else 0.0
