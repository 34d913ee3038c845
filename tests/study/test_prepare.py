"""The data of a task, before anything is trained.

A recipe is chosen on the training data: with ``score_on: held-out`` no sample of the test set is read.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from studies import IMAGES, MASKS, SERIES

from dynconv_plugins import datasets
from dynconv_plugins.errors import UserError
from dynconv_plugins.study import hosts, plan


def prepared(given: dict, folder: Path, **data: object):
    task = plan.parse({"tasks": {"a": {**given, "data": {**given["data"], **data}}}}, "p").tasks[0]
    folder.mkdir()
    return hosts.get(task.host).prepare(task, {}, folder)


def test_images(tmp_path: Path) -> None:
    test = prepared(IMAGES, tmp_path / "a")
    tuned = prepared(IMAGES, tmp_path / "b", score_on="held-out")
    assert (test.train, test.valid, test.test) == (16, 4, 8)
    # a fifth of the training images to score on, and a fifth of the rest for the recipe's own choices
    assert (tuned.train, tuned.valid, tuned.test) == (12, 4, 4)
    assert tuned.fingerprint != test.fingerprint and "training images only" in tuned.name
    parts = [{p.name for p in (tuned.path / part).rglob("*.*")} for part in ("train", "val", "test")]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    links = [os.readlink(p) for p in tuned.path.rglob("*") if p.is_symlink()]
    assert len(links) == 20 and not any("/val/" in link for link in links)


def test_images_that_arrive_later_are_seen(tmp_path: Path) -> None:
    """A data set may have been half unpacked when the study first looked."""
    source = datasets.diatoms.make(tmp_path / "d", classes=2, train=10, test=4) / datasets.diatoms.TINY
    late = sorted(source.glob("train/*/images/*"))[::2]
    for path in late:
        path.rename(tmp_path / path.name)
    task = {**IMAGES, "data": {"name": "tiny-imagenet", "holdout": 0.2}}
    task, found = plan.parse({"tasks": {"a": task}}, "p").tasks[0], {"tiny-imagenet": source}
    before = hosts.get("timm").prepare(task, found, tmp_path / "made")
    for path in late:
        (tmp_path / path.name).rename(path)
    after = hosts.get("timm").prepare(task, found, tmp_path / "made")
    assert (before.train, before.valid) == (8, 2) and (after.train, after.valid) == (16, 4)
    assert len(list((after.path / "train").rglob("*.JPEG"))) == 16


def test_masks(tmp_path: Path) -> None:
    prepared(MASKS, tmp_path / "b", score_on="held-out")
    parts = [(tmp_path / "b" / f"{part}.txt").read_text().split() for part in ("train", "valid", "test")]
    official = next((tmp_path / "b" / "diatoms").rglob("Segmentation/val.txt")).read_text().split()
    names = [name for part in parts for name in part]
    assert len(names) == len(set(names)) and official and not set(names) & set(official)


def test_series(tmp_path: Path) -> None:
    test = prepared(SERIES, tmp_path / "a")
    tuned = prepared(SERIES, tmp_path / "b", score_on="held-out", holdout=1 / 3)
    X, _, (train, _) = datasets.ucr.load(test.path, test.name)
    divided, y, (kept, held) = datasets.ucr.load(tuned.path, "Diatoms")
    assert len(kept) == tuned.train == 12 and len(held) == tuned.test == 6
    # every class in both parts, and all the training series, to the last bit
    assert {*y[kept]} == {*y[held]}
    order = [np.lexsort(values[:, 0].T) for values in (X[train], divided)]
    np.testing.assert_array_equal(X[train][order[0]], divided[order[1]])


@pytest.mark.parametrize("given", [IMAGES, MASKS, SERIES])
def test_anything_else_is_refused(tmp_path: Path, given: dict) -> None:
    with pytest.raises(UserError, match="score_on is test or held-out, not 'valid'"):
        prepared(given, tmp_path / "a", score_on="valid")


def test_options_of_images_are_checked_before_they_train(tmp_path: Path) -> None:
    task = plan.parse({"tasks": {"a": {**IMAGES, "options": {"model_kwargs": "small_stem=false"}}}}, "p").tasks[0]
    with pytest.raises(UserError, match="model_kwargs takes a mapping"):
        hosts.get("timm").prepare(task, {}, tmp_path)
