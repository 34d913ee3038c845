"""The tests that every operator must pass; a subclass lists names, see test_operators.py."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch._dynamo.testing
from torch import nn

import dynconv_plugins as dc

STATIC = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
# Statistics of norms, and of the budget.
WRITTEN_IN_TRAINING = {"running_mean", "running_var", "num_batches_tracked", "step", "mask_rate", "budget_loss"}
GEOMETRIES = [
    {},
    {"stride": 2, "dilation": 2, "padding": 2},
    {"kernel_size": 1, "padding": 0},
    {"padding": 0},
    {"groups": 2, "bias": False},
    {"groups": 8, "padding": "same"},
    {"groups": 8, "out_channels": 16},
    {"in_channels": 1},
]


def build(name: str, dims: int = 2, **options) -> nn.Module:
    """The operator in float64, 8 channels to 6, from a seed, with biases and norms that are not at their start."""
    torch.manual_seed(0)
    op = dc.registry.build(name, dims, **{"kernel_size": 3, "padding": 1, **channels(options), **options}).double()
    for parameter_name, parameter in op.named_parameters():
        if parameter.dim() == 1 or "zeta" in parameter_name:
            nn.init.normal_(parameter, 0.2, 0.5)
    for module in op.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight)
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return op


def channels(options: dict) -> dict[str, int]:
    """Input and output channels, unless `options` say: different numbers, but for depthwise."""
    default = {"in_channels": 8, "out_channels": 8 if options.get("groups") == 8 else 6}
    return {name: options.get(name, number) for name, number in default.items()}


def data(
    dims: int = 2, batch: int = 3, size: int = 5, dtype: torch.dtype = torch.float64, in_channels: int = 8
) -> torch.Tensor:
    """Input from a seed; positive on average, as after a ReLU."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, in_channels, *(size,) * dims, dtype=torch.float64, generator=generator).add(0.3).to(dtype)


def run(function, *args):
    """With torch's generator seeded: random sampling then repeats."""
    torch.manual_seed(5)
    return function(*args)


def held(op: nn.Module) -> dict[tuple[str, str], object]:
    """All that the modules hold, buffers and parameters too, by module and name."""
    tables = ("_buffers", "_parameters", "_modules")
    return {
        (path, name): value
        for path, module in op.named_modules()
        for table in (vars(module), *(vars(module)[table] for table in tables))
        for name, value in table.items()
    }


def scalar(y: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient differs everywhere."""
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape)
    return (y.double() * weight).sum()


class Battery:
    """Subclasses give `definitions`, from registry names to the definition of the operator."""

    definitions: dict
    # Options under which a definition holds, beyond the name's own: one row each.
    variants: dict[str, list[dict]] = {}

    def pytest_generate_tests(self, metafunc):
        """Lists the names, and for `test_formula` the variants."""
        if "variant" in metafunc.fixturenames:
            rows = [
                pytest.param(name, geometry | variant, id=f"{name}-{geometry | variant}")
                for name in self.definitions
                for variant in self.variants.get(name, [{}])
                for geometry in GEOMETRIES
            ]
            metafunc.parametrize(("name", "variant"), rows)
        elif "name" in metafunc.fixturenames:
            metafunc.parametrize("name", list(self.definitions))

    @DIMS
    def test_formula(self, name, variant, dims):
        """Outputs and every gradient equal the definition's, in training and in eval mode."""
        op = build(name, dims, **variant)
        for training in (True, False):
            op.train(training)
            x = data(dims, size=6, in_channels=op.in_channels).requires_grad_()
            leaves = [x, *op.parameters()]
            want = run(self.definitions[name], op, x)
            want_grads = torch.autograd.grad(scalar(want), leaves, allow_unused=True)
            statistics = copy.deepcopy(op.state_dict())
            got = run(op, x)
            torch.testing.assert_close(got, want)
            got_grads = torch.autograd.grad(scalar(got), leaves, allow_unused=True)
            op.load_state_dict(statistics)
            names = ["x", *(name for name, _ in op.named_parameters())]
            for leaf, (g, w) in zip(names, zip(got_grads, want_grads, strict=True), strict=True):
                torch.testing.assert_close(g, w, msg=lambda m, leaf=leaf: f"gradient of {leaf}: {m}")

    @DIMS
    def test_shape_is_torchs(self, name, dims):
        for options in GEOMETRIES:
            options = {"kernel_size": 3, "padding": 1, **options}
            x = data(dims, in_channels=channels(options)["in_channels"])
            want = STATIC[dims](**{**channels(options), **options}).double()(x).shape
            assert build(name, dims, **options)(x).shape == want
            assert build(name, dims, **options).to("meta")(x.to("meta")).shape == want

    @pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
    @pytest.mark.parametrize("padding", [1, "same"])
    @pytest.mark.parametrize("size", [3, 4])
    @DIMS
    def test_starts_as_the_static_convolution(self, name, mode, padding, size, dims):
        conv = STATIC[dims](8, 6, size, padding=padding, padding_mode=mode).double()
        op = dc.dynamize(copy.deepcopy(conv), name)
        if not op.preserves_static:
            assert torch.equal(op.weight, conv.weight) and torch.equal(op.bias, conv.bias)
            assert op(data(dims)).shape == conv(data(dims)).shape
            return
        torch.testing.assert_close(op(data(dims)), conv(data(dims)))
        torch.testing.assert_close(op(data(dims)[0]), conv(data(dims)[0]))

    def test_kernels_of_a_converted_convolution_diverge(self, name):
        torch.manual_seed(0)
        op = dc.dynamize(nn.Conv2d(8, 6, 3, padding=1).double(), name)
        optimizer = torch.optim.SGD(op.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            scalar(op(data())).backward()
            optimizer.step()
        heads = [p for p in op.attention.parameters() if p.grad is not None]
        assert all(p.grad.isfinite().all() for p in heads)
        assert not heads or any(p.grad.any() for p in heads), "attention gets no gradient"
        if op.num_kernels > 1:
            kernels = op.kernels  # fdconv's are parts of a stored one, and differ from the start
            assert len(kernels) == op.num_kernels
            assert all(not torch.equal(kernels[0], kernel) for kernel in kernels[1:])

    def test_one_d_is_two_d_is_three_d(self, name):
        turns = {"rotations": 2} if name == "orconv" else {}  # a line is no square, which more of them need
        one = build(name, 1).eval()
        options = {2: {"kernel_size": (1, 3), "padding": (0, 1)}, 3: {"kernel_size": (1, 1, 3), "padding": (0, 0, 1)}}
        for dims, geometry in options.items():
            wider = build(name, dims, **geometry, **turns).eval()
            shapes = {key: value.shape for key, value in wider.state_dict().items()}
            wider.load_state_dict({key: value.reshape(shapes[key]) for key, value in one.state_dict().items()})
            x = data(1)
            y = wider(x.reshape(*x.shape[:2], *(1,) * (dims - 1), -1))
            torch.testing.assert_close(y.reshape(one(x).shape), one(x))

    @pytest.mark.parametrize("batch", [1, 2])
    @pytest.mark.parametrize("size", [3, 1])
    def test_trains_on_one_sample_and_one_position(self, name, batch, size):
        op = build(name, kernel_size=size, padding=0)
        x = data(batch=batch, size=size).requires_grad_()
        y = op(x)
        scalar(y).backward()
        assert y.shape == (batch, 6, 1, 1)
        missing = [n for n, p in op.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not missing, f"no gradient, or none that is finite: {missing}"
        assert x.grad.isfinite().all()

    @pytest.mark.parametrize("options", [{}, {"kernel_size": 1, "padding": 0}, {"groups": 8}], ids=str)
    def test_an_empty_batch_goes_through(self, name, options):
        """As through torch's convolution, whatever backend is chosen: no output, and a gradient that is zero."""
        for training in (True, False):
            op = build(name, **options).train(training)
            y = op(data(batch=1)[:0])
            assert y.shape == (0, channels(options)["out_channels"], 5, 5)
            y.sum().backward()
            assert not op.weight.grad.any()
            assert all(p.grad is None or p.grad.isfinite().all() for p in op.parameters())
            assert all(value.isfinite().all() for value in op.state_dict().values())

    def test_predictions_do_not_depend_on_batch_mates_or_calls(self, name):
        op = build(name).eval()
        x = data(batch=4)
        torch.testing.assert_close(op(x)[:1], op(x[:1]))
        assert torch.equal(op(x), op(x))

    def test_channels_last(self, name):
        op, x = build(name).eval(), data()
        want = op(x)
        y = op.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(y, want)
        assert y.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("temperature", [1.0, 30.0])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast(self, name, temperature, dtype):
        """Outputs and gradients are float32's, to the precision of `dtype`."""
        op, x = build(name).float(), data(dtype=torch.float32)
        op.set_temperature(temperature)
        leaves = [p.requires_grad_() for p in (x, *op.parameters())]
        want = run(op, x)
        with torch.autocast("cpu", dtype):
            got = run(op, x)
        bound, gradient_bound = {torch.bfloat16: (2e-2, 1e-1), torch.float16: (3e-3, 3e-2)}[dtype]
        assert got.dtype == dtype and (got.float() - want).norm() < bound * want.norm()
        grads = [torch.autograd.grad(scalar(y), leaves, allow_unused=True) for y in (got, want)]
        for g, w in zip(*grads, strict=True):
            assert g is w is None or (g - w).norm() < gradient_bound * w.norm()

    @pytest.mark.parametrize("temperature", [1.0, 30.0])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_of_large_inputs(self, name, temperature, dtype):
        op = build(name).float()
        op.set_temperature(temperature)
        with torch.autocast("cpu", dtype):
            y = op(data(dtype=torch.float32) * 50)
        assert y.dtype == dtype and y.isfinite().all()
        y.float().sum().backward()
        assert all(p.grad.isfinite().all() for p in op.parameters())

    def test_state_dict_copy_and_pickle(self, name):
        op = build(name)
        op.set_temperature(7.0)
        run(op, data()).sum().backward()
        op.eval()
        stream, whole = io.BytesIO(), io.BytesIO()
        torch.save(op.state_dict(), stream)
        torch.save(op, whole)
        stream.seek(0), whole.seek(0)
        loaded = dc.registry.build(name, 2, 8, 6, 3, padding=1).double().eval()
        loaded.load_state_dict(torch.load(stream, weights_only=True))
        for twin in (loaded, copy.deepcopy(op), torch.load(whole, weights_only=False)):
            assert torch.equal(twin(data()), op(data()))

    def test_same_generator_same_training_step(self, name):
        op = build(name)
        other = copy.deepcopy(op)
        assert torch.equal(run(op, data()), run(other, data()))

    def test_attention_is_not_kept_on_the_module(self, name):
        op = build(name)
        before, buffers = held(op), {n: b.clone() for n, b in op.named_buffers()}
        op(data())
        after = held(op)
        assert after.keys() == before.keys() and all(after[key] is value for key, value in before.items())
        written = {n.rpartition(".")[2] for n, b in op.named_buffers() if not torch.equal(b, buffers[n])}
        assert written <= WRITTEN_IN_TRAINING

    def test_every_layer_is_called(self, name):
        """Quantisation, pruning and adapters exchange the forward of a layer, not what reads its weight."""
        op, called = build(name), set()
        layers = {n: m for n, m in op.named_modules() if isinstance(m, nn.Linear | nn.BatchNorm1d)}
        for n, layer in layers.items():
            layer.register_forward_hook(lambda *_, n=n: called.add(n))
        op(data())
        assert called == set(layers)

    def test_recorder(self, name):
        net = nn.Sequential(build(name), nn.ReLU())
        with dc.record_attention(net) as seen:
            net(data())
        factors = [factor for factor in seen["0"][0] if factor is not None]
        assert bool(factors) == (name != "orconv"), "an oriented convolution has no attention"
        assert all(factor.shape[0] == 3 and not factor.requires_grad for factor in factors)

    def test_compiles_whole_without_recompiling_per_batch(self, name):
        torch._dynamo.reset()
        op = build(name).eval()
        counter = torch._dynamo.testing.CompileCounter()
        compiled = torch.compile(op, backend=counter, fullgraph=True)
        for batch in (2, 3, 5, 7):
            torch.testing.assert_close(compiled(data(batch=batch)), op(data(batch=batch)))
        assert counter.frame_count <= 2

    def test_compiled_training_step(self, name):
        torch._dynamo.reset()
        op = build(name)
        compiled = torch.compile(copy.deepcopy(op), backend="aot_eager", fullgraph=True)
        for model in (op, compiled):
            run(lambda model=model: scalar(model(data())).backward())
        grads = dict(compiled.named_parameters())
        for parameter, want in op.named_parameters():
            torch.testing.assert_close(grads[f"_orig_mod.{parameter}"].grad, want.grad, msg=parameter)

    def test_exports_with_a_dynamic_batch(self, name):
        op = build(name).eval()
        shapes = ({0: torch.export.Dim("batch", min=2)},)
        program = torch.export.export(op, (data(batch=2),), dynamic_shapes=shapes)
        torch.testing.assert_close(program.module()(data(batch=5)), op(data(batch=5)))

    def test_onnx_with_a_dynamic_batch(self, name, tmp_path):
        import onnxruntime

        op = build(name).float().eval()
        file = tmp_path / "op.onnx"
        shapes = ({0: torch.export.Dim("batch", min=2)},)
        example = (data(batch=2, dtype=torch.float32),)
        torch.onnx.export(op, example, file, dynamo=True, dynamic_shapes=shapes, verbose=False)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        x = data(batch=5, dtype=torch.float32)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), op(x), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"groups": 3}, "groups"),
            ({"padding": "sane"}, "padding"),
            ({"padding": "same", "stride": 2}, "strided"),
            ({"padding_mode": "mirror"}, "padding_mode"),
            ({"kernel_size": (3, 3, 3)}, "kernel_size"),
            ({"kernel_size": 0}, "kernel_size"),
            ({"stride": 0}, "stride"),
            ({"padding": -1}, "padding"),
            ({"dilation": 0}, "dilation"),
        ],
        ids=str,
    )
    def test_bad_geometry(self, name, named, options):
        with pytest.raises(ValueError, match=named):
            build(name, **options)
