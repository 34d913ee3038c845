"""Compiling and exporting the models: no graph breaks, one graph for every batch size."""

import pytest
import torch

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")
pytest.importorskip("timm.utils.onnx")

import timm
import timm.utils.onnx as timm_onnx

import timm_models  # noqa: F401 - registers the models

# All of a network is slow to trace. The first 3x3 here has stride 2; MobileNetV2's block has a depthwise one and 1x1s.
CASES = [
    pytest.param("resnet18_odconv4x", r"layer2\.0\.conv1", id="one4x"),
    pytest.param("resnet18_odconv", r"layer2\.0", id="block", marks=pytest.mark.slow),
    pytest.param("mobilenetv2_050_odconv4x", r"blocks\.1\.0", id="inverted4x", marks=pytest.mark.slow),
    pytest.param("resnet18_odconv", None, id="resnet18", marks=pytest.mark.slow),
    pytest.param("mobilenetv2_050_odconv4x", None, id="mobilenetv2", marks=pytest.mark.slow),
]
BATCHES = (1, 2, 5)


def build(name, where):
    torch.manual_seed(0)
    return timm.create_model(name, where=where, num_classes=5, small_stem=True).eval()


def images(batch):
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "where"), CASES)
def test_compiles_as_one_graph(name, where):
    torch.compiler.reset()
    model = build(name, where)
    graphs = []

    def backend(graph, inputs):
        """Without Inductor's code generation, which needs a C++ compiler and minutes: breaks show here as well."""
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch in (*BATCHES[1:], 6, 7):
        close(compiled(images(batch)), model(images(batch)))
    assert len(graphs) <= 2  # the second knows that batches differ


@pytest.mark.slow
def test_compiles_with_inductor_and_trains_alike():
    torch.compiler.reset()
    model, twin = build("resnet18_odconv", r"layer2\.0").train(), build("resnet18_odconv", r"layer2\.0").train()
    torch.compile(model, fullgraph=True)(images(2)).square().sum().backward()
    twin(images(2)).square().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "where"), CASES)
def test_exports_with_a_dynamic_batch(name, where):
    model = build(name, where)
    program = torch.export.export(model, (images(2),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    for batch in BATCHES:
        close(program.module()(images(batch)), model(images(batch)))


@pytest.mark.parametrize(("name", "where"), CASES)
@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # torch warns of its own older exporter, which timm's script uses by default
def test_onnx_with_a_dynamic_batch(name, where, exporter, tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnx and onnxscript: pip install 'dynconv-plugins[dev]'")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'dynconv-plugins[dev]'")
    model, path = build(name, where), tmp_path / "model.onnx"
    timm_onnx.onnx_export(
        model, str(path), example_input=images(2), use_dynamo=exporter == "dynamo", input_names=["images"]
    )
    session = runtime.InferenceSession(str(path))
    for batch in BATCHES:
        (logits,) = session.run(None, {"images": images(batch).numpy()})
        close(torch.from_numpy(logits), model(images(batch)).detach())
