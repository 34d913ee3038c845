"""Every registered operator through the battery, against its definition."""

from __future__ import annotations

import copy

import definitions
import pytest
import torch
from battery import Battery, build, data
from torch import nn

import dynconv_plugins as dc

WITHOUT_LOSS = {"budget_weight": 0.0, "sparsity_weight": 0.0}  # it has tests of its own
COOLED = [{}, {"temperature": 3.0}]


class TestOperators(Battery):
    """One line an operator."""

    definitions = {
        "condconv": definitions.condconv,
        "dyconv": definitions.dyconv,
        "dcd": definitions.dcd,
        "odconv": definitions.odconv,
        "odconv4x": definitions.odconv,
        "a2d2c": definitions.a2d2c,
        "a2d2cplus": definitions.a2d2c,
        "globalsoft": definitions.globalsoft,
        "localsoft": definitions.localsoft,
        "hard": definitions.hard,
        "orconv": definitions.orconv,
        "fdconv": definitions.fdconv,
    }
    variants = {
        "dyconv": COOLED,
        "dcd": [{}, {"grid": 2}],
        "odconv": COOLED,
        "odconv4x": COOLED,
        "a2d2c": [
            {"sampling": "random", "points": 7},
            {"sampling": "fixed", "sets": 1, "temperature": 3.0},
            {"sampling": "none"},
        ],
        "a2d2cplus": COOLED,
        "localsoft": COOLED,
        "fdconv": COOLED,
        "hard": [
            {"mask": "input", **WITHOUT_LOSS},
            {"mask": "task", **WITHOUT_LOSS},
            {"mask": "task", "granularity": "filter", "beta": 2.0, **WITHOUT_LOSS},
        ],
        "orconv": [{}, {"pool": "mean"}, {"rotations": 2}],
    }


def test_nothing_is_left_out():
    assert set(TestOperators.definitions) == set(dc.registry.names())


@pytest.mark.parametrize("name", ["dcd", "globalsoft", "hard", "orconv"])
def test_operators_of_one_kernel_take_no_more(name):
    with pytest.raises(dc.UnknownName, match="num_kernels"):
        dc.registry.build(name, 2, 8, 6, 3, num_kernels=4)


def test_sizes_that_are_no_integers_are_named():
    for size in ((3.7, 3.7), 3.0, "3"):
        with pytest.raises(TypeError, match="kernel_size must be an integer or 2 of them"):
            dc.ODConv2d(3, 8, size)


@pytest.mark.parametrize("name", ["odconv", "a2d2c", "dcd"])
def test_synchronised_norms_train_on_a_batch_of_one_too(name):
    """What trainers make of every batch norm; one value in one process has no variance."""
    op, x = build(name, kernel_size=1, padding=0).float(), data(batch=1, size=1).float()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(op))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.modules())
    torch.manual_seed(0)
    want = op(x)
    torch.manual_seed(0)
    assert torch.equal(converted(x), want)
