"""What pruning leaves: layers that others read too, or that are not worth a cut."""

from __future__ import annotations

import pytest
import torch
from prune_networks import chain, data, masked, same
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.prune import PartialConv


class Twice(nn.Module):
    """Convolutions whose filters must stay, because more reads them than one layer's forward."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        if self.kind == "called twice":
            return self.b(self.a(self.a(x)))
        if self.kind == "read twice":
            y = self.a(x)
            return self.b(y) + y.mean((2, 3), keepdim=True)
        if self.kind == "weight read":
            return self.b(self.a(x)) * self.a.bias.reshape(-1, 1, 1) + self.b.bias.reshape(-1, 1, 1)
        if self.kind == "unknown operation":
            return self.b(self.a(x).cumsum(1))
        if self.kind == "mixed positions":
            return self.b(self.a(x).flip(2) + torch.arange(7, device=x.device))
        return self.b(self.a(x)), self.a.weight.shape[0]


@pytest.mark.parametrize("kind", ["called twice", "read twice", "weight read", "unknown operation", "mixed positions"])
def test_filters_that_something_else_reads(kind):
    model = Twice(kind)
    model.a = masked(nn.Sequential(model.a), 0.5)[0]
    model.a.zeta.data[:2] = -1
    pruned, _ = same(model.double().eval(), data(channels=4))
    assert pruned.b.in_channels == 4 and len(pruned.a.bias) == 4


def test_hooks_and_parametrisations_keep_a_layer_as_it_is():
    model = masked(chain(), 0.5, where=lambda name, _: name == "3")
    model[3].zeta.data[:, :] = torch.tensor([-1.0] * 6 + [1.0] * 6).reshape(-1, 1, 1, 1)
    torch.nn.utils.parametrizations.weight_norm(model[6])
    model[0].register_forward_hook(lambda _m, _i, y: y * 2)
    pruned, report = same(model, data())
    assert pruned[6].in_channels == 12 and isinstance(pruned[3], PartialConv) and pruned[0].out_channels == 12


def test_other_dynamic_operators_stay():
    model = dc.dynamize(chain(), "odconv", where=lambda name, _: name == "0")
    model = dc.dynamize(model, "hard", where=lambda name, _: name == "3", mask="input")
    model = masked(model, 0.4, where=lambda name, _: name == "6")
    pruned, report = dc.prune(model)
    assert report.dynamic == ("0", "3") and list(dc.operators_in(pruned)) == ["0", "3"]
    assert "still dynamic: 0, 3" in str(report)
    torch.testing.assert_close(pruned(data()), model(data()))


def test_small_cuts_that_would_cost_more_than_they_save_are_left():
    model = masked(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1)), 1.0)
    model[0].zeta.data[3] = -1
    pruned, report = same(model, data(channels=16))
    assert type(pruned[0]) is nn.Conv2d and report.layers["0"].filters == (16, 16)
    model[0].zeta.data[4] = -1
    assert dc.prune(model)[1].layers["0"].filters == (16, 14)


def test_single_slices_leave_nothing_to_cut_and_the_report_says_so():
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3))
    pruned, report = same(masked(model, 0.5, "slice", where=lambda name, _: name == "3"), data())
    assert report.layers["3"][1:] == ((32, 32), (32, 32)) and report.layers["3"].on == pytest.approx(0.5, abs=0.05)
    assert "granularity='filter'" in str(report)
    assert not (pruned[3].weight != 0).flatten(2).any(2).all()


def test_groups_are_cut_on_both_sides_or_on_none():
    """One of four groups is two filters of eight, which is worth a cut, but one input of four, which is not."""
    model = masked(nn.Sequential(nn.Conv2d(4, 8, 3, groups=4)), 1.0)
    model[0].zeta.data[2:4] = -1
    pruned, _ = same(model, data(channels=4))
    assert type(pruned[0]) is nn.Conv2d and pruned[0].groups == 4
    model[0].zeta.data[4:6] = -1
    pruned, report = same(model, data(channels=4))
    assert report.layers["0"][1:] == ((8, 4), (4, 2)) and pruned[0].conv.groups == 2


@pytest.mark.parametrize("name", [None, "odconv", "hard"])
def test_nothing_to_prune(name):
    model = chain() if name is None else dc.dynamize(chain(), name, where="all")
    with pytest.raises(dc.UserError, match="nothing to prune.*mask='task'") as error:
        dc.prune(model)
    assert "\n" not in str(error.value)
