"""Randomness as a function of position.

Every random draw of a training run belongs to a purpose and a place (an epoch and a batch, or an epoch and a sample).
Its generator is seeded from those, so nothing has to be saved or replayed: a run that is resumed anywhere draws the
same numbers as one that was never stopped, whatever the number of loader workers.
"""

from __future__ import annotations

import random
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """Keeps the streams of different consumers apart."""

    ORDER = 1
    SAMPLE = 2
    MIX = 3
    ERASE = 4
    STEP = 5
    LOADER = 6


def derive(purpose: Purpose, seed: int, *place: int) -> int:
    """Returns a 64-bit seed that depends on all arguments, which must not be negative."""
    high, low = np.random.SeedSequence((int(purpose), seed, *place)).generate_state(2, np.uint32)
    return int(high) << 32 | int(low)


def seed_host(purpose: Purpose, seed: int, *place: int) -> None:
    """Seeds Python's, NumPy's and torch's CPU generators."""
    value = derive(purpose, seed, *place)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)  # noqa: NPY002 - what timm draws from
    # Not torch.manual_seed: that also queues a seed for every CUDA device, which loader workers must not touch.
    torch.default_generator.manual_seed(value)


def seed_device(device: torch.device, purpose: Purpose, seed: int, *place: int) -> None:
    """Seeds the host's generators and those of `device`."""
    seed_host(purpose, seed, *place)
    if device.type != "cpu":
        torch.manual_seed(derive(purpose, seed, *place))
