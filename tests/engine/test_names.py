"""What parameters are called: hosts choose learning rates and what to load by parts of names."""

from __future__ import annotations

import pytest
import torch

import dynconv_plugins as dc
from dynconv_plugins.checkpoints.reading import unwrap


@pytest.mark.parametrize("name", dc.registry.names())
def test_no_name_is_of_another_part_of_a_network(name):
    """tsai's ``transfer_weights`` leaves out what has "head" in its name; mmengine's ``custom_keys`` look for parts."""
    keys = dc.registry.build(name, 2, 8, 8, 3).state_dict()
    assert not [key for key in keys for part in ("head", "backbone", "neck", "fc", "classifier") if part in key]


@pytest.mark.parametrize(
    ("name", "before"), [("odconv4x", "heads"), ("dyconv", "head"), ("a2d2c", "head"), ("hard", "head")]
)
def test_earlier_names_are_known(name, before):
    torch.manual_seed(0)
    trained, fresh, other = (torch.nn.Sequential(dc.registry.build(name, 2, 8, 8, 3)) for _ in range(3))
    earlier = {key.replace(".logits.", f".{before}."): value for key, value in trained.state_dict().items()}
    assert any(f".{before}." in key for key in earlier)
    assert unwrap(earlier).keys() == trained.state_dict().keys()
    assert not fresh[0].attention_loaded
    fresh.load_state_dict(earlier)
    assert fresh[0].attention_loaded and not other[0].attention_loaded
    for key, value in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key
