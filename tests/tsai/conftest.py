"""Small real learners: sine waves whose class is their frequency, easily learned in seconds.

Also lets the tests import the module beside them."""

import os
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest

from dynconv_plugins.errors import run_cli
from tsai_models import Net1_CNN
from tsai_models.__main__ import main


def waves(n: int = 48, classes: int = 3, length: int = 40, variables: int = 1, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    t = np.linspace(0, 2 * np.pi, length)
    phase = rng.uniform(0, 2 * np.pi, (n, variables, 1))
    X = np.sin((1 + 2 * y)[:, None, None] * t + phase) + 0.1 * rng.standard_normal((n, variables, length))
    return X.astype(np.float32), np.array([f"c{k}" for k in y])


@pytest.fixture
def series():
    X, y = waves()
    return X, y, (list(range(36)), list(range(36, 48)))


@pytest.fixture
def make_dls(series, tmp_path):
    from tsai.data.core import TSClassification, get_ts_dls

    def make(bs: int = 12, X=None, y=None, split=None):
        X, y, split = (
            given if given is not None else default for given, default in zip((X, y, split), series, strict=True)
        )
        return get_ts_dls(X, y, splits=split, tfms=[None, TSClassification()], bs=bs, path=tmp_path, device="cpu")

    return make


@pytest.fixture
def learner(make_dls):
    from fastai.metrics import accuracy
    from fastai.torch_core import set_seed
    from tsai.learner import ts_learner

    def make(arch=Net1_CNN, **kwargs):
        set_seed(0)
        learn = ts_learner(make_dls(), arch, metrics=accuracy, **kwargs)
        learn.model_dir = learn.path
        return learn

    return make


@pytest.fixture
def archive(tmp_path):
    """A UCR archive of one data set, `Waves`, with official TRAIN and TEST files."""
    X, y = waves(n=60)
    folder = tmp_path / "data" / "UCR" / "Waves"
    folder.mkdir(parents=True)
    for name, part in (("TRAIN", slice(0, 36)), ("TEST", slice(36, 60))):
        rows = ["\t".join([label[1:], *(f"{v:.6f}" for v in x[0])]) for x, label in zip(X[part], y[part], strict=True)]
        (folder / f"Waves_{name}.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data"


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYNCONV_DATA", raising=False)

    def run(*args: str):
        monkeypatch.setattr(sys, "argv", ["tsai_models", *args])
        with pytest.raises(SystemExit) as e:
            run_cli(main)
        out, err = capsys.readouterr()
        return e.value.code, out, err

    return run


@pytest.fixture
def train(cli, archive):
    def run(*args: str, arch: str = "Net1_CNN", dataset: str = "Waves"):
        return cli("train", "--arch", arch, "--dataset", dataset, "--data", str(archive), "--batch-size", "12", *args)

    return run
