"""Pruning where the data flow is not known as a whole, and that a data flow misread is noticed."""

from __future__ import annotations

import pytest
import torch
from prune_networks import chain, data, masked, same
from torch import nn

import dynconv_plugins as dc


class Untraced(nn.Module):
    """Runs a function of its parts and the input, behind control flow that depends on values."""

    def __init__(self, run, **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.run(self, x) if x.sum() < 1e9 else x


class Pair(nn.Module):
    """Two convolutions with an activation between them, run one after the other."""

    def __init__(self, a: nn.Module | None = None, b: nn.Module | None = None, between=torch.relu) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3) if a is None else a
        self.b = nn.Conv2d(12, 3, 3) if b is None else b
        self.between = between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


class Held(nn.Module):
    """Holds a container and runs it as a whole."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x):
        return self.layers(x)


class Looped(nn.Module):
    """The convolutions of a list, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 12, 3), nn.Conv2d(12, 3, 3)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def through(self, x):
    return self.first(x)


def maps(layers, x):
    """What each of the layers gives."""
    read = []
    for layer in layers:
        x = layer(x)
        read.append(x)
    return tuple(read)


def test_blocks_that_run_their_own_layers_are_cut():
    model = masked(Untraced(lambda self, x: self.second(self.first(x)), first=Pair(), second=Pair()), 0.4, where=r"a$")
    pruned, report = same(model, data(size=9))
    assert report.untraced == ("Untraced",)
    for block in (pruned.first, pruned.second):
        assert type(block.a) is nn.Conv2d and block.a.out_channels == block.b.in_channels < 12


def test_the_report_says_what_was_not_traced_and_whether_anything_compared_the_outputs():
    model = masked(Untraced(through, first=Pair()), 0.4)
    text = str(dc.prune(model)[1])
    assert "not traced, cut within single blocks only: Untraced" in text and "outputs were not compared" in text
    report = dc.prune(model, (1, 3, 7, 7))[1]
    assert report.difference < 1e-12 and "not compared" not in str(report)


@pytest.mark.parametrize(
    ("first", "layers"),
    [
        (chain(), lambda self: self.first),
        (Held(chain()), lambda self: self.first.layers),
        (Looped(), lambda self: self.first.layers),
    ],
    ids=["sequence", "sequence inside a block", "list inside a block"],
)
def test_what_a_model_reads_between_the_layers_of_a_container_stays(first, layers):
    model = masked(Untraced(lambda self, x: maps(layers(self), x), first=first), 0.4)
    same(model, data())


@pytest.mark.parametrize("shared", ["producer", "consumer", "both"])
def test_layers_with_several_names_stay(shared):
    """Two towers; each of them, alone, calls every layer once."""
    first = Pair()
    a = None if shared == "consumer" else first.a
    b = None if shared == "producer" else first.b
    second = Pair(a, b, between=torch.sigmoid)
    model = Untraced(lambda self, x: (self.first(x), self.second(x.flip(-1))), first=first, second=second)
    same(masked(model, 0.4), data())


def test_a_norm_with_several_names_stays():
    norm = nn.BatchNorm2d(12)
    first, second = Pair(), Pair()
    for block in (first, second):
        block.between = block.norm = norm
    model = Untraced(lambda self, x: self.second(self.first(x)), first=first, second=second)
    pruned, _ = same(masked(model, 0.4), data(size=9))
    assert pruned.first.norm.num_features == 12


def test_a_convolution_by_itself_has_nothing_that_is_not_traced():
    assert dc.prune(masked(nn.Conv2d(3, 12, 3)))[1].untraced == ()


def test_a_wrong_cut_would_be_noticed(monkeypatch):
    from dynconv_plugins import removal

    model = masked(chain(), 0.4)
    monkeypatch.setattr(removal, "_pads_zeros", lambda _: False)
    with pytest.raises(RuntimeError, match="differ by .*misread"):
        dc.prune(model, (1, 3, 7, 7))


def reached(self, x):
    """Reaches into a block, which is taken for granted not to happen."""
    y = self.first.a(x)
    return y, self.first.b(torch.relu(y))


def widened(self, x):
    """A layer behind the reader that wants all of the channels."""
    y = self.first.a(x)
    return self.first.b(torch.relu(y)) + self.norm(y).mean()


@pytest.mark.parametrize(("run", "why"), [(reached, "other shapes"), (widened, "cannot run")])
def test_outputs_of_other_shapes_or_none_would_be_noticed(run, why):
    model = Untraced(run, first=Pair(), norm=nn.BatchNorm2d(12))
    with pytest.raises(RuntimeError, match=f"{why}.*its data flow was misread"):
        dc.prune(masked(model, 0.4), (1, 3, 7, 7))
