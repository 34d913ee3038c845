"""timm's own scripts, unmodified. They are in no wheel: set DYNCONV_TIMM_SCRIPTS to a checkout of timm to run these."""

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")

ROOT = Path(__file__).parents[2]
SCRIPTS = os.environ.get("DYNCONV_TIMM_SCRIPTS")
SIZE = ["--input-size", "3", "32", "32"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not SCRIPTS, reason="timm's scripts are in no wheel: DYNCONV_TIMM_SCRIPTS=/path/to/timm runs them"
    ),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Twelve images of noise in three classes, in timm's folder layout."""
    numpy, image = pytest.importorskip("numpy"), pytest.importorskip("PIL.Image")
    folder, noise = tmp_path_factory.mktemp("timm"), numpy.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("a", "b", "c"):
            (folder / "data" / split / label).mkdir(parents=True)
            for i in range(4):
                pixels = noise.integers(0, 256, (32, 32, 3), numpy.uint8)
                image.fromarray(pixels).save(folder / "data" / split / label / f"{label}{i}.png")
    return folder


def run(work, *command):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=work, env=env, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr
    return result


def train(work, name, *command, epochs=1):
    options = ["--epochs", epochs, "--warmup-epochs", 0, "-b", 4, "-j", 1, "--device", "cpu", "--output", "out"]
    result = run(work, *command, "--num-classes", 3, *SIZE, *options, "--experiment", name)
    with (work / "out" / name / "summary.csv").open() as f:
        assert len(list(csv.DictReader(f))) == epochs
    return result.stderr


@pytest.fixture(scope="module")
def exported(work):
    """A folder as timm saves models in, trained by timm's train.py with a schedule of its own."""
    torch, timm = importlib.import_module("torch"), importlib.import_module("timm")
    importlib.import_module("timm_models")
    train(
        work, "anneal", Path(SCRIPTS) / "train.py", "data", "--device-modules", "timm_models",
        "--model", "resnet18_odconv", "--model-kwargs", "small_stem=True", "anneal_steps=2",
    )  # fmt: skip
    checkpoint = work / "out" / "anneal" / "last.pth.tar"
    model = timm.create_model("resnet18_odconv", num_classes=3, small_stem=True, checkpoint_path=checkpoint)
    assert model.layer1[0].conv1.attention.temperature == 1.0
    timm.models.save_for_hf(model, work / "hf", safe_serialization=True)
    return model.eval(), torch


def test_train_through_the_runner(work):
    script = Path(SCRIPTS) / "train.py"
    train(
        work,
        "run",
        "-m",
        "timm_models",
        "run",
        script,
        "data",
        "--model",
        "mobilenetv2_050_odconv4x",
        "--channels-last",
    )


@pytest.mark.parametrize("mask", ["input", "task"])
def test_the_budget_of_hard_attention_is_trained_with_and_logged(work, mask):
    read = importlib.import_module("timm_models.train.resume").read
    said = train(
        work, mask, Path(SCRIPTS) / "train.py", "data", "--device-modules", "timm_models", "--model", "resnet18_hard",
        "--model-kwargs", "small_stem=True", f"mask={mask}", "ramp=0", "--lr", 0.1, "--model-ema", epochs=3,
    )  # fmt: skip
    lines = [line for line in said.splitlines() if "hard: mask rate" in line]
    assert len(lines) == 3
    assert float(lines[-1].split("rate ")[1].split(",")[0]) < 1
    state = read(work / "out" / mask / "last.pth.tar")["state_dict"]
    assert {value.item() for key, value in state.items() if key.endswith("budget.step")} == {9}


def test_validate_and_inference(work, exported):
    options = ["--model", "local-dir:hf", *SIZE, "--device", "cpu", "-b", 4, "-j", 1]
    runner = ["-m", "timm_models", "run"]
    assert '"top1"' in run(work, *runner, Path(SCRIPTS) / "validate.py", "data", "--pretrained", *options).stdout
    run(work, *runner, Path(SCRIPTS) / "inference.py", "data/val", "--pretrained", *options, "--results-dir", "results")
    assert list((work / "results").glob("*.csv"))


def test_benchmark(work):
    options = ["--device", "cpu", "-b", 2, "--num-warm-iter", 1, "--num-bench-iter", 5, *SIZE]
    script = Path(SCRIPTS) / "benchmark.py"
    out = run(work, "-m", "timm_models", "run", script, "--model", "resnet18_odconv", *options).stdout
    assert "infer_samples_per_sec" in out and "train_samples_per_sec" in out


def test_onnx_export_takes_any_batch(work, exported):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'dynconv-plugins[dev]'")
    script, (model, torch) = Path(SCRIPTS) / "onnx_export.py", exported
    run(work, "-m", "timm_models", "run", script, "model.onnx", "--model", "local-dir:hf", "--img-size", 32, "-b", 2)
    session = runtime.InferenceSession(str(work / "model.onnx"))
    for batch in (1, 3):
        x = torch.randn(batch, 3, 32, 32)
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(x).detach(), rtol=1e-4, atol=1e-4)
