"""The chain of localsoft: what goes from layer to layer, under everything a network is put through.

The battery has the single layer.
"""

from __future__ import annotations

import copy
import io
import sys
import threading

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import dynconv_plugins as dc
from dynconv_plugins.convert import connect
from dynconv_plugins.placement import convolutions

CLASSES = {1: dc.LocalSoft1d, 2: dc.LocalSoft2d, 3: dc.LocalSoft3d}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])


class Segment(nn.Module):
    """Runs what it holds under activation checkpointing."""

    def __init__(self, inner: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


class Children(nn.Module):
    """Runs the parts of a network without the network's own forward, as feature extractors do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(net.children())

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


def layers(count: int = 3, dims: int = 2, **options) -> list[nn.Module]:
    """Layers of 4 channels from a seed, in float64, with nothing left at zero."""
    torch.manual_seed(0)
    options = {"kernel_size": 3, "padding": 1, "width": 5, **options}
    ops = [CLASSES[dims](4, 4, **options).double() for _ in range(count)]
    for op in ops:
        for parameter in op.parameters():
            nn.init.normal_(parameter, std=0.5)
    return ops


def net(wrap=lambda op: op, count: int = 3, **options) -> nn.Sequential:
    return connect(nn.Sequential(*(nn.Sequential(wrap(op), nn.Tanh()) for op in layers(count, **options))))


def data(seed: int = 1, batch: int = 3, dims: int = 2, size: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, *(size,) * dims, dtype=torch.float64, generator=generator)


def scalar(y: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient differs everywhere."""
    return (y * torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape)).sum()


def operators(model: nn.Module) -> list[nn.Module]:
    return list(dc.operators_in(model).values())


def carrier(model: nn.Module):
    return operators(model)[0].attention.carrier


def grads(model: nn.Module, *inputs: torch.Tensor, order=None) -> list[torch.Tensor]:
    """Gradients of one step with a call of the model for each input, and one backward for each, in `order`."""
    model.zero_grad(set_to_none=True)
    losses = [scalar(model(x)) for x in inputs]
    for i in order or range(len(losses)):
        losses[i].backward()
    return [p.grad for p in model.parameters()]


def define(op, x: torch.Tensor, before: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """One layer from the formulas: output and representation."""
    head = op.attention
    gap = x.mean(tuple(range(2, x.dim())))
    before = head.state.expand(len(x), -1) if before is None else before
    u = (torch.cat([gap, before], 1) @ head.gate.weight.t() + head.gate.bias).sigmoid()
    representation = (1 - u) * before + u * (gap @ head.proposal.weight.t() + head.state).tanh()
    if op.padding == "same":
        totals = [d * (k - 1) for d, k in zip(op.dilation, op.kernel_size, strict=True)]
        sides = [n for t in reversed(totals) for n in (t // 2, t - t // 2)]
    else:
        sides = [n for p in reversed(op.padding) for n in (p, p)]
    padded = F.pad(x, sides, mode="constant" if op.padding_mode == "zeros" else op.padding_mode)
    one, conv = (1,) * op.dims, CONV[op.dims]
    mean = head.local.weight.reshape(op.num_kernels, -1, *one).expand(-1, -1, *op.kernel_size)
    local = conv(padded, mean / mean[0, 0].numel(), None, op.stride, 0, op.dilation)
    generated = representation @ head.generator.weight.t() + head.generator.bias
    a = ((generated.reshape(len(x), -1, *one) + local) / head.temperature).softmax(1)
    weights = op.weight.reshape(op.num_kernels, op.out_channels, -1, *op.kernel_size)
    maps = [conv(padded, weight, None, op.stride, 0, op.dilation, op.groups) for weight in weights]
    return sum(a[:, k, None] * y for k, y in enumerate(maps)) + op.bias.reshape(-1, *one), representation


def definition(model: nn.Module, x: torch.Tensor, cut: bool = False) -> torch.Tensor:
    """The network from the formulas; with `cut` no gradient goes from layer to layer but through the features."""
    representation = None
    for op in operators(model):
        representation = representation.detach() if cut and representation is not None else representation
        x, representation = define(op, x, representation)
        x = x.tanh()
    return x


@DIMS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kernels": 1},
        {"stride": 2, "dilation": 2, "padding": 2, "temperature": 3.0},
        {"kernel_size": 4, "padding": "same", "padding_mode": "circular", "groups": 2},
        {"kernel_size": 2, "padding": "same"},
        {"padding_mode": "reflect"},
    ],
    ids=str,
)
def test_formula(dims, options):
    model = net(count=2, dims=dims, **options)
    x = data(dims=dims).requires_grad_()
    leaves = [x, *model.parameters()]
    got, want = model(x), definition(model, x)
    torch.testing.assert_close(got, want)
    pairs = zip(torch.autograd.grad(scalar(got), leaves), torch.autograd.grad(scalar(want), leaves), strict=True)
    for name, (g, w) in zip(["x", *(name for name, _ in model.named_parameters())], pairs, strict=True):
        torch.testing.assert_close(g, w, msg=lambda m, name=name: f"gradient of {name}: {m}")
        assert g.any() or (options.get("num_kernels") == 1 and "attention" in name), f"no gradient of {name}"


def test_the_chain_matters():
    model, apart = net(), nn.Sequential(*(nn.Sequential(op, nn.Tanh()) for op in layers()))
    torch.testing.assert_close(model[0](data()), apart[0](data()))
    assert (model(data()) - apart(data())).abs().max() > 1e-3


def test_gradcheck():
    model = net(count=2, dims=1, width=2, num_kernels=2)
    assert torch.autograd.gradcheck(model, (data(dims=1, batch=2, size=3).requires_grad_(),))


def test_shuffled_samples_give_shuffled_outputs():
    model, order = net(), [2, 0, 1]
    torch.testing.assert_close(model(data()[order]), model(data())[order])
    torch.testing.assert_close(model(data()[1:2]), model(data())[1:2])


@pytest.mark.parametrize("wrap", [lambda op: op, Segment], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_calls_in_a_step(wrap, order):
    """Also with inputs of the same pooled values, which only later layers tell apart."""
    x1, x2 = data(), data(2)
    for other in (x2, x1.flip(2, 3)):
        want = [a + b for a, b in zip(grads(net(), x1), grads(net(), other), strict=True)]
        torch.testing.assert_close(grads(net(wrap), x1, other, order=order), want)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "build",
    [
        lambda: Segment(net()),
        lambda: net(Segment),
        lambda: connect(nn.Sequential(Segment(net()[:2]), Segment(net()[2:]))),
        lambda: Segment(net(Segment)),
        lambda: Children(net(Segment)),
    ],
    ids=["whole", "layers", "parts", "nested", "children"],
)
def test_checkpointing_changes_nothing(build, training):
    model, plain = build().train(training), net().train(training)
    torch.testing.assert_close(model(data()), plain(data()))
    for _ in range(2):  # the second time with what is kept of the first
        torch.testing.assert_close(grads(model, data()), grads(plain, data()))


def test_frozen_layers_under_checkpointing():
    """What is recomputed needs gradients exactly where the original did."""
    model, plain = net(Segment), net()
    for each in (model, plain):
        for parameter in [*operators(each)[0].parameters(), *operators(each)[1].attention.parameters()]:
            parameter.requires_grad_(False)
    torch.testing.assert_close(grads(model, data()), grads(plain, data()))


def test_reentrant_checkpointing_cuts_the_gradient_of_the_chain_and_nothing_else():
    model, plain = net(lambda op: Segment(op, reentrant=True)), net()
    x = data().requires_grad_()
    got = grads(model, x)
    want = torch.autograd.grad(scalar(definition(plain, x, cut=True)), [x, *plain.parameters()])
    torch.testing.assert_close([x.grad, *got], list(want))


def test_recomputing_inexactly():
    """Accelerators do: the nearest forward is meant."""
    model, inputs = net(Segment), (data(), data(2))
    losses = [scalar(model(x)) for x in inputs]
    for kept in carrier(model).kept.values():
        rounded = [start._replace(clue=start.clue * (1 + 1e-4)) for start in kept]
        kept.clear()
        kept.extend(rounded)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], grads(net(), *inputs))


def test_too_many_forwards_for_checkpointing_are_an_error():
    model = net(Segment)
    losses = [scalar(model(data(seed))) for seed in range(17)]
    for loss in losses[1:]:
        loss.backward()
    with pytest.raises(RuntimeError, match="checkpointed layer does not find the forward"):
        losses[0].backward()


def test_a_layer_alone_starts_from_its_own_state():
    model, x = net(), data()
    want = define(operators(model)[2], x, None)[0]
    model(x)
    torch.testing.assert_close(operators(model)[2](x), want)
    torch.testing.assert_close(operators(model)[2](x), want)
    operators(model)[0](x)
    torch.testing.assert_close(operators(model)[2](x), want, msg="not the layer right before it")


def test_children_called_one_by_one_are_the_network():
    model, x = net(), data()
    children = Children(model)
    for _ in range(2):
        torch.testing.assert_close(children(x), definition(model, x))
        torch.testing.assert_close(model(x), definition(model, x))
    torch.testing.assert_close(grads(children, x), grads(net(), x))


def test_what_an_interrupted_call_left_is_not_used():
    model = net()
    operators(model)[0](data())
    torch.testing.assert_close(operators(model)[1](data(batch=2)), define(operators(model)[1], data(batch=2), None)[0])
    for error in (ValueError, KeyboardInterrupt):
        handle = model[1].register_forward_hook(lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(error):
            model(data(3))
        handle.remove()
        torch.testing.assert_close(model(data()), definition(model, data()))
        assert carrier(model).chain.value is None
    handle = model[1].register_forward_hook(lambda *_: (_ for _ in ()).throw(ValueError))
    with pytest.raises(ValueError):
        model(data(3))
    assert carrier(model).chain.value is None, "what a failed forward left is dropped"


@pytest.mark.parametrize("wrap", [Segment, lambda op: Segment(op, reentrant=True)], ids=["", "reentrant"])
def test_recomputing_leaves_no_trace(wrap):
    model = net(wrap)
    scalar(model(data().requires_grad_())).backward()
    assert carrier(model).chain.value is None and carrier(model).chain.last is None
    for op in operators(model):
        torch.testing.assert_close(op(data(2)), define(op, data(2), None)[0])
        carrier(model).close(model, (), None)


def test_backward_in_another_thread():
    """Where accelerators run it."""
    model, x = net(Segment), data()
    loss = scalar(model(x))
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    torch.testing.assert_close([p.grad for p in model.parameters()], grads(net(), x))


def test_nothing_live_is_kept():
    model = net().eval()
    with torch.no_grad():
        model(data())
    assert carrier(model).chain.value is None and not carrier(model).kept
    model.train()(data())
    assert carrier(model).chain.value is None
    starts = [start for kept in carrier(model).kept.values() for start in kept]
    assert len(starts) == 3
    assert not any(t.requires_grad for start in starts for t in start[:2] if t is not None)


def test_layers_that_run_more_than_once_go_on():
    op = net(count=1)
    model = connect(nn.Sequential(op, op))
    first, representation = define(operators(op)[0], data(), None)
    torch.testing.assert_close(model(data()), define(operators(op)[0], first.tanh(), representation)[0].tanh())


def test_another_batch_size_starts_anew():
    """As in the second stage of a detector, whose samples are regions."""

    class Regions(nn.Module):
        def forward(self, x):
            return x.repeat_interleave(2, 0)

    ops = layers(2)
    model = connect(nn.Sequential(ops[0], Regions(), ops[1]))
    want = define(ops[1], define(ops[0], data(), None)[0].repeat_interleave(2, 0), None)[0]
    torch.testing.assert_close(model(data()), want)


def test_threads_do_not_meet():
    """Two threads in one network, in step after the first layer; replicas of data parallelism are like this."""
    model, barrier, outputs = net(), threading.Barrier(2, timeout=60), {}

    def wait(*_) -> None:
        barrier.wait()

    model[0].register_forward_hook(wait)
    inputs = [data(), data(2)]

    def work(i: int) -> None:
        outputs[i] = model(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(inputs):
        torch.testing.assert_close(outputs[i], definition(model, x))


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


def test_connecting_again_does_no_harm():
    model = net()
    want = model(data())
    connect(connect(model))
    assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 1
    torch.testing.assert_close(model(data()), want)
    wrapper = connect(nn.Sequential(model))
    torch.testing.assert_close(wrapper(data()), want)
    torch.testing.assert_close(model(data()), want)


def test_dynamize_connects():
    static = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)).double()
    model = dc.dynamize(copy.deepcopy(static), "localsoft", "all")
    torch.testing.assert_close(model(data()), static(data()))
    assert carrier(model) is not None and operators(model)[1].attention.index == 1
    assert not convolutions(model), "the attention has convolutions that could be made dynamic"


@pytest.mark.parametrize("temperature", [1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wrap", [lambda op: op, Segment], ids=["plain", "checkpointed"])
def test_autocast(temperature, dtype, wrap):
    model = net(wrap, temperature=temperature).float()
    with torch.autocast("cpu", dtype):
        y = model(data().float() * 50)
    assert y.dtype == dtype and y.isfinite().all()
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_compiles_whole_without_recompiling_per_batch():
    torch._dynamo.reset()
    model = net()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for batch in (2, 3, 5, 7):
        torch.testing.assert_close(compiled(data(batch=batch)), model(data(batch=batch)))
    assert counter.frame_count <= 2
    assert carrier(model).chain.value is None


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


def test_distributed_data_parallel(tmp_path, monkeypatch):
    """Its reducer waits for every parameter's gradient: two steps without `find_unused_parameters`."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # a process group leaves one that names the rank
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for wrap in (lambda op: op, Segment):
            model = nn.parallel.DistributedDataParallel(net(wrap))
            for seed in (1, 2):
                got = grads(model, data(seed))
                assert all(g is not None for g in got)
                torch.testing.assert_close(got, grads(net(), data(seed)))
    finally:
        torch.distributed.destroy_process_group()


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
