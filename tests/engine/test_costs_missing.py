"""Folding and pruning of models that cannot be counted: a report without that number, which says so."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from prune_networks import masked
from torch import Tensor, nn

import dynconv_plugins as dc


@dataclass
class Output:
    logits: Tensor


@dataclass(slots=True)
class Slotted:
    logits: Tensor


class Stubborn(nn.Module):
    """A network whose output no tracer takes, or that refuses what a counter gives it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.a, self.b = kind, nn.Conv2d(3, 12, 3), nn.Conv2d(12, 4, 3)

    def forward(self, x: Tensor):
        if self.kind == "pairs only" and len(x) % 2:
            raise ValueError("samples come\nin pairs")
        y = self.b(self.a(x).relu())
        kinds = {"dataclass": Output(y), "slots": (Slotted(y), Output), "number": (y, 3), "nothing": None}
        return kinds.get(self.kind, y)


def logits(output) -> Tensor:
    output = output[0] if isinstance(output, tuple) else output
    return output.logits if isinstance(output, (Output, Slotted)) else output


KINDS = pytest.mark.parametrize("kind", ["dataclass", "slots", "number", "pairs only"])


@KINDS
def test_fold(kind):
    x = torch.randn(2, 3, 9, 9)
    model = dc.dynamize(Stubborn(kind), "globalsoft", where="all").eval()
    static, report = dc.fold(model, [x])
    assert not dc.operators_in(static) and report.before.macs is report.after.macs is None
    assert "not measured: MAdds (" in str(report) and "parameters" in str(report)


@KINDS
def test_prune(kind):
    model = masked(Stubborn(kind), 0.4, where="a$")
    pruned, report = dc.prune(model, (2, 3, 9, 9))
    assert report.after.macs is None and "MAdds (" in str(report).split("not measured: ")[1]
    assert (
        ("latency (samples come in pairs)" in str(report)) == (kind == "pairs only") == (report.after.latency is None)
    )
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    assert 0 <= report.difference < 1e-12
    torch.testing.assert_close(logits(pruned(x)), logits(model(x)))


def test_outputs_without_tensors_are_not_compared():
    report = dc.prune(masked(Stubborn("nothing"), 0.4), (2, 3, 9, 9))[1]
    assert report.difference is None and "outputs were not compared" in str(report)


def test_a_wrong_cut_is_noticed_inside_a_dataclass(monkeypatch):
    from dynconv_plugins import removal

    monkeypatch.setattr(removal, "_bias", lambda conv: conv.weight.new_ones(len(conv.weight)).double())
    with pytest.raises(RuntimeError, match="differ by .*misread"):
        dc.prune(masked(Stubborn("dataclass"), 0.4, where="a$"), (2, 3, 9, 9))
