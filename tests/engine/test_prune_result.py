"""What pruning returns: a plain network that is saved, exported and trained on, and a report."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from prune_networks import Residual, chain, data, masked, same
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.prune import PartialConv


def test_report():
    pytest.importorskip("fvcore", reason="fvcore comes with the study extra")
    model = masked(chain(), 0.4)
    pruned, report = dc.prune(model, (2, 3, 7, 7))
    for cost, network in ((report.before, model), (report.after, pruned)):
        assert cost[:2] == dc.complexity(network, (1, 3, 7, 7)) and cost.latency > 0
    assert report.after.macs < 0.5 * report.before.macs and report.difference < 1e-12
    text = str(report)
    assert "12 -> " in text and "latency" in text and f"{report.after.macs:,d}" in text
    assert dc.prune(model)[1].after.macs is None and "MAdds" not in str(dc.prune(model)[1])


@pytest.mark.parametrize("model", [chain(), Residual()], ids=["chain", "residual"])
def test_the_result_is_a_plain_model(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pruned, _ = dc.prune(masked(copy.deepcopy(model), 0.4, double=False))
    x = data().float()
    want = pruned(x)
    plain = ("torch.nn", Residual.__module__, "dynconv_plugins.prune")
    assert all(type(m).__module__.startswith(plain) for m in pruned.modules())
    stream = io.BytesIO()
    torch.save(pruned.state_dict(), stream)
    stream.seek(0)
    twin = copy.deepcopy(pruned)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    twin.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(twin(x), want)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(pruned, (x[:2],), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(x), want)
    file = tmp_path / "pruned.onnx"
    torch.onnx.export(pruned, (x[:2],), file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-4, atol=1e-5)


def test_it_trains_on():
    """Fine-tuning a pruned network: every parameter gets a gradient."""
    pruned, _ = dc.prune(masked(Residual(), 0.5))
    pruned.train()(data()).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pruned.parameters())


def test_one_convolution_by_itself_and_without_a_batch():
    op = masked(nn.Conv2d(4, 8, 3, padding=1), 0.5)
    pruned, _ = same(op, data(channels=4))
    assert isinstance(pruned, PartialConv)
    torch.testing.assert_close(pruned(data(channels=4)[0]), op(data(channels=4))[0])


def test_a_compiled_model_is_pruned_as_what_was_compiled():
    model = masked(chain(), 0.4)
    pruned, report = dc.prune(torch.compile(model, backend="eager"))
    assert type(pruned) is nn.Sequential and report.layers == dc.prune(model)[1].layers and not report.untraced
    torch.testing.assert_close(pruned(data()), model(data()), rtol=1e-10, atol=1e-10)
