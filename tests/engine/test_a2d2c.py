"""A2D2C's own: what is sampled, when it repeats, and that A2D2C+ is the same function."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.operators.sampling import sampled_patches


def make(cls=dc.A2D2C2d, **options) -> nn.Module:
    torch.manual_seed(0)
    return cls(8, 6, 3, padding=1, **{"points": 5, **options}).double()


def data(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 8, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def attention(op: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return op.attend(data()).kernel


def test_training_samples_anew_and_repeats_with_the_seed():
    op = make()
    op.attention.norm.eval()
    torch.manual_seed(3)
    first, second = attention(op), attention(op)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(attention(op), first)


@pytest.mark.parametrize("sampling", ["random", "fixed", "none"])
def test_eval_mode_repeats(sampling):
    op = make(sampling=sampling).eval()
    torch.manual_seed(3)
    first = attention(op)
    assert torch.equal(attention(op), first)
    assert torch.equal(attention(make(sampling=sampling).eval()), first), "another network samples elsewhere"


def test_fixed_sampling_is_the_same_in_training():
    op = make(sampling="fixed")
    op.attention.norm.eval()
    assert torch.equal(attention(op), attention(op.eval()))


def test_plus_is_the_same_function():
    """Eq. 8: mixing outputs is mixing kernels."""
    a, plus = make(), make(dc.A2D2CPlus2d)
    for training in (True, False):
        plus.load_state_dict(a.state_dict())
        torch.manual_seed(3)
        y = a.train(training)(data())
        torch.manual_seed(3)
        torch.testing.assert_close(plus.train(training)(data()), y)
        # By eq. 8 as it stands: the K outputs, each times its weight.
        torch.manual_seed(3)
        with dc.backend("mixture"):
            torch.testing.assert_close(plus(data()), y)


def test_all_positions_are_the_average_of_the_outputs():
    op = make(sampling="none", groups=2, stride=2)
    maps = torch.stack([nn.functional.conv2d(data(), w, None, 2, 1, 1, 2) for w in op.stacked])
    torch.testing.assert_close(op.local_features(data())[..., 0], maps.mean((0, 3, 4)))


def test_patches_of_the_border_read_the_padding_as_zeros():
    x = torch.arange(1.0, 5.0).reshape(1, 1, 4)
    corner = torch.zeros(1, 1)
    got = sampled_patches(x, corner, (3,), (1,), (1,), (1,))
    assert got.flatten().tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("options", [{"sampling": "grid"}, {"points": 0}, {"sets": 0}, {"reduction": 0.0}], ids=str)
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_does_not_move_the_positions(dtype):
    op, twin = make().float().eval(), make().float().eval()
    with torch.no_grad():
        want = op.attend(data().float()).kernel
        op.to(dtype)
        assert op.positions.dtype == torch.float32 and torch.equal(op.positions, twin.positions)
        torch.testing.assert_close(op.attend(data().to(dtype)).kernel.float(), want, rtol=0.03, atol=0.03)
        op.float()
        assert torch.equal(op.positions, twin.positions)
    # In training too, where a map has more positions than float16 has numbers.
    x = torch.randn(1, 8, 300, 300)
    features = []
    for kind in (torch.float32, dtype):
        torch.manual_seed(3)
        features.append(op.train().to(kind).local_features(x.to(kind)).float())
    torch.testing.assert_close(*features, rtol=0.05, atol=0.05)


def test_is_built_on_any_device_and_in_any_default_type():
    with torch.device("meta"):
        assert dc.A2D2C2d(8, 6, 3).positions.is_meta
    try:
        torch.set_default_dtype(torch.bfloat16)
        positions = dc.A2D2C2d(8, 6, 3, points=5).positions
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(positions, make().positions)


def test_a_batch_of_one_leaves_the_statistics_alone():
    """Two sets of one image have not the variance of images."""
    op = make()
    op(data())
    norm = op.attention.norm
    before = norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.clone()
    torch.manual_seed(3)
    one = op(data(batch=1))
    for now, then in zip((norm.running_mean, norm.running_var, norm.num_batches_tracked), before, strict=True):
        assert torch.equal(now, then)
    norm.eval()
    torch.manual_seed(3)
    assert torch.equal(op(data(batch=1)), one)


def test_norms_see_every_set_of_every_image():
    op = make()
    with torch.no_grad():
        p = torch.randn(4, 6, 2, dtype=torch.float64)
        op.attention(p)
        rows = op.attention.squeeze(p.mT).flatten(0, 1)
    norm = op.attention.norm
    torch.testing.assert_close(norm.running_mean, 0.1 * rows.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))
