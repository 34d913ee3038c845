"""Targets of two dimensions: regression with several targets, several labels a series."""

import numpy as np
import pytest
import torch
from tsai.data.core import TSMultiLabelClassification, TSRegression, get_ts_dls
from tsai.learner import ts_learner

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError
from tsai_models import ARCHS, DynamicArch, ODConvFCN

HEADLESS = [*(arch.cls for arch in ARCHS.values()), *map(DynamicArch, ("FCN", "ResNet", "InceptionTime"))]


@pytest.fixture
def two_targets(series, tmp_path):
    """Loaders of a regression with two targets a series."""
    X, _, split = series
    y = np.stack([X.mean((1, 2)), X.std((1, 2))], axis=1)
    return get_ts_dls(X, y, splits=split, tfms=[None, TSRegression()], bs=12, path=tmp_path, device="cpu")


@pytest.mark.parametrize("arch", HEADLESS)
def test_a_y_of_two_dimensions_is_refused_in_one_line(arch, two_targets):
    advice = r"^\w+ takes no custom_head.*DynamicArch\('FCNPlus', 'odconv'\).* d=0 and c_out"
    with pytest.raises(UserError, match=advice) as e:
        ts_learner(two_targets, arch)
    assert arch.__name__ in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["FCNPlus", "ResNetPlus", "InceptionTimePlus"])
def test_a_y_of_two_dimensions_as_that_line_says(name, two_targets):
    learn = ts_learner(two_targets, DynamicArch(name, "odconv"))
    before = {k: op.weight.detach().clone() for k, op in dc.operators_in(learn.model).items()}
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        predicted, wanted = learn.get_preds()
    assert predicted.shape == wanted.shape == (12, 2)
    assert before and not any(torch.equal(op.weight, before[k]) for k, op in dc.operators_in(learn.model).items())


@pytest.mark.parametrize("arch", HEADLESS)
def test_two_targets_without_a_custom_head(arch, two_targets):
    learn = ts_learner(two_targets, arch, c_out=2, d=0)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        predicted, wanted = learn.get_preds()
    assert predicted.shape == wanted.shape == (12, 2) and predicted.isfinite().all()


def test_several_labels_a_series(series, tmp_path):
    X, y, split = series
    several = np.empty(len(y), dtype=object)
    several[:] = [["all", label] for label in y]
    tfms = [None, TSMultiLabelClassification()]
    dls = get_ts_dls(X, several, splits=split, tfms=tfms, bs=12, path=tmp_path, device="cpu")
    learn = ts_learner(dls, ODConvFCN, layers=[8, 8, 8], c_out=4, d=0)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        assert learn.get_preds()[0].shape == (12, 4)
