"""What else a network with the chain of localsoft is put through: compiling, exporting, copying, saving."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch._dynamo.testing
from localsoft_networks import Children, Segment, carrier, data, definition, grads, net, operators, scalar
from torch import nn

import dynconv_plugins as dc


def test_compiles_whole_without_recompiling_per_batch():
    torch._dynamo.reset()
    model = net()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for batch in (2, 3, 5, 7):
        torch.testing.assert_close(compiled(data(batch=batch)), model(data(batch=batch)))
    assert counter.frame_count <= 2
    assert carrier(model).chain.value is None


def test_blocks_compiled_one_by_one_share_their_code():
    torch._dynamo.reset()
    model = net(count=10)
    want = model(data())
    counter = torch._dynamo.testing.CompileCounter()
    for block in model:
        block.compile(backend=counter, fullgraph=True)
    torch.testing.assert_close(model(data()), want)
    assert counter.frame_count <= 4


@pytest.mark.parametrize(
    ("wrap", "whole"),
    [
        (lambda model: torch.compile(model, backend="aot_eager", fullgraph=True), lambda op: op),
        (lambda model: Segment(torch.compile(model, backend="aot_eager", fullgraph=True)), lambda op: op),
        (lambda model: torch.compile(model, backend="aot_eager", fullgraph=True), Segment),
        (lambda model: model, lambda op: torch.compile(op, backend="aot_eager", fullgraph=True)),
        (lambda model: torch.compile(Children(model), backend="aot_eager", fullgraph=True), lambda op: op),
    ],
    ids=["whole", "inside-checkpoint", "around-checkpoints", "layers", "children"],
)
def test_compiled_training_steps(wrap, whole):
    torch._dynamo.reset()
    model, plain = wrap(net(whole, count=2)), net(count=2)
    with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True):
        for seed in (1, 2):
            torch.testing.assert_close(grads(model, data(seed)), grads(plain, data(seed)))


def test_exports_with_a_dynamic_batch(tmp_path):
    import onnxruntime

    model = net().float().eval()
    example, x = (data(batch=2).float(),), data(batch=5).float()
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(model, example, dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(x), model(x))
    file = tmp_path / "net.onnx"
    torch.onnx.export(model, example, file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_timms_feature_extractor(checkpointing):
    """It calls the children of timm's network, never the network, and computes the same features."""
    timm = pytest.importorskip("timm", reason="timm comes with an extra")
    torch.manual_seed(0)
    model = dc.dynamize(timm.create_model("resnet18", num_classes=3), "localsoft").double()
    for op in operators(model):
        nn.init.normal_(op.attention.state)
    extractor = timm.models.FeatureListNet(copy.deepcopy(model), out_indices=(2, 4))
    extractor.set_grad_checkpointing(checkpointing)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    (_, last), want = extractor(x), model.forward_features(x)
    torch.testing.assert_close(last, want)
    scalar(last).backward(), scalar(want).backward()
    for name, parameter in extractor.named_parameters():
        torch.testing.assert_close(parameter.grad, model.get_parameter(name).grad, msg=name)


def test_copies_and_pickles_are_networks_of_their_own():
    model = net()
    scalar(model(data())).backward()
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    for twin in (copy.deepcopy(model), torch.load(stream, weights_only=False)):
        carriers = {id(op.attention.carrier) for op in operators(twin)}
        assert len(carriers) == 1 and carriers != {id(carrier(model))}
        assert not carrier(twin).kept
        torch.testing.assert_close(twin(data()), model(data()))
        torch.testing.assert_close(grads(twin, data()), grads(model, data()))
    with torch.no_grad():
        operators(model)[0](data())
    assert carrier(copy.deepcopy(model)).chain.value is None


def test_a_copy_in_the_middle_of_a_forward():
    """As averaging weights from a hook does."""
    model, copies = net(), []
    handle = model[1].register_forward_hook(lambda *_: copies.append(copy.deepcopy(model)))
    want = model(data())
    handle.remove()
    copies[0][1]._forward_hooks.clear()
    torch.testing.assert_close(want, definition(model, data()))
    torch.testing.assert_close(copies[0](data()), want)


def test_state_dict():
    model, other = net(), net()
    other.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    assert (other(data()) - model(data())).abs().max() > 1e-3
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(data()), model(data()))
