"""What networks read and answer: standardised series and the order of the classes, in training and after it."""

import json
import textwrap

import numpy as np
import pytest
import torch
from tsai.data.core import TSTensor
from tsai.data.preprocessing import TSStandardize

import tsai_models
from dynconv_plugins.errors import UserError
from tsai_models.data import Series, load, standardised
from tsai_models.train import loaders

CPU = torch.device("cpu")


def test_classes_are_numbered_as_tsai_numbers_them(series, make_dls):
    X, y, split = series
    names = np.array([{"c0": "10", "c1": "9", "c2": "-1"}[label] for label in y])
    ours, tsais = loaders(Series(X, names, split), split, 12, CPU), make_dls(y=names)
    assert list(ours.vocab) == list(tsais.vocab) == ["-1", "10", "9"]
    for mine, theirs in zip(ours.loaders, tsais.loaders, strict=True):
        assert torch.equal(mine.dataset[:][1], theirs.dataset[:][1])


def test_a_class_of_test_series_alone_is_itself(series):
    X, y, split = series
    names = y.astype("U9")
    names[split[1][3]] = "c1b"
    dls = loaders(Series(X, names, split), split, 12, CPU)
    assert list(dls.vocab) == ["c0", "c1", "c1b", "c2"] and dls.c == 4
    _, numbers = next(iter(dls.valid))
    assert [dls.vocab[i] for i in numbers] == list(names[split[1]])


def test_a_fold_with_all_there_is_of_a_class(train, tmp_path, archive):
    path = archive / "UCR" / "Waves" / "Waves_TRAIN.tsv"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join(["1b\t" + first.partition("\t")[2], *others]) + "\n")
    assert train("--folds", "3", "--epochs", "1", "--out", "run")[0] == 0
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    with np.load(tmp_path / "run" / "predictions.npz") as arrays:
        classes = arrays["classes"]
        truths, predicted = ([classes[arrays[f"{kind}_{k}"]] for k in range(3)] for kind in ("truth", "predicted"))
    assert list(classes) == ["0", "1", "1b", "2"]
    assert sorted(np.concatenate(truths)) == sorted(load("Waves", archive, tmp_path).y)
    lone = next(k for k in range(3) if "1b" in truths[k])
    assert "1b" not in predicted[lone]
    assert rows[lone]["accuracy"] == np.mean(truths[lone] == predicted[lone])


def test_arrays_with_a_class_of_test_series_alone_are_refused(archive, tmp_path):
    X, y, (ours, theirs) = load("Waves", archive, tmp_path)
    folder = tmp_path / "npy" / "Waves"
    folder.mkdir(parents=True)
    other = y.astype("U9")
    other[theirs[4]] = "9"
    for name, values in (
        ("X_train", X[ours]),
        ("X_valid", X[theirs]),
        ("y_train", y[ours]),
        ("y_valid", other[theirs]),
    ):
        np.save(folder / f"{name}.npy", values)
    with pytest.raises(UserError, match="label '9' of y_valid.npy does not occur in y_train.npy"):
        load("Waves", tmp_path / "npy", tmp_path)


def test_each_variable_is_standardised_by_itself(series):
    X, y, split = series
    X = np.concatenate([X, 500 + 100 * X[:, :, ::-1], np.cumsum(X, -1)], axis=1)
    for batch, part in zip(loaders(Series(X, y, split), split, 36, CPU).loaders, split, strict=True):
        read = next(iter(batch))[0].as_subclass(torch.Tensor)
        torch.testing.assert_close(read.mean(-1), torch.zeros(len(part), 3), atol=1e-4, rtol=0)
        torch.testing.assert_close(read.std(-1), torch.ones(len(part), 3), atol=1e-4, rtol=0)
    np.testing.assert_allclose(read.numpy(), standardised(X[split[1]]), atol=1e-4)


def test_one_variable_is_standardised_as_a_whole_series(series):
    X, y, split = series
    read = next(iter(loaders(Series(3 + 5 * X, y, split), split, 12, CPU).valid))[0]
    assert torch.equal(read, TSStandardize(by_sample=True)(TSTensor(3 + 5 * X[split[1]])))


def test_the_documented_lines_name_the_classes(cli, tmp_path):
    """The example in the package's docstring, as it stands there, on the data set that it names."""
    options = ("--differences", "1", "--epochs", "1", "--batch-size", "8")
    assert cli("train", "--arch", "ODConvFCN", "--dataset", "Diatoms", *options)[0] == 0
    run = tmp_path / "runs/tsai/ODConvFCN-Diatoms-official"
    series = load("Diatoms", None, run / "data")
    _, _, lines = tsai_models.__doc__.partition("as they are::\n")
    scope = {"X": series.X[series.official[1]]}
    exec(textwrap.dedent(lines), scope)
    with np.load(run / "predictions.npz") as arrays:
        expected = arrays["classes"][arrays["predicted"]]
    assert list(scope["labels"]) == list(expected) and len(set(expected)) > 1
