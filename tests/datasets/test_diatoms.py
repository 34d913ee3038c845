"""The built-in data: determined by the seed, in the official layouts, learnable and not trivially so."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynconv_plugins import datasets
from dynconv_plugins.errors import UserError

np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")
diatoms = datasets.diatoms
SMALL = {"classes": 3, "train": 4, "test": 2, "size": 32}


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != "dataset.json"
    }


def test_the_seed_decides_every_byte(pristine, tmp_path):
    again = contents(diatoms.make(tmp_path / "again", **SMALL))
    other = contents(diatoms.make(tmp_path / "other", **SMALL, seed=1))
    assert again == contents(pristine)
    assert again.keys() == other.keys() and again != other


def test_more_samples_leave_the_first_ones_alone(pristine, tmp_path):
    few, many = contents(pristine), contents(diatoms.make(tmp_path, **{**SMALL, "train": 6}))
    images = [name for name in few if "tiny-imagenet-200/train" in name and name.endswith(".JPEG")]
    assert len(images) == 12 and all(many[name] == few[name] for name in images)


def test_layouts(pristine):
    tiny, voc = pristine / "tiny-imagenet-200", pristine / "VOCdevkit" / "VOC2012"
    wnids = (tiny / "wnids.txt").read_text().split()
    assert [len(list((tiny / "train" / w / "images").glob("*.JPEG"))) for w in wnids] == [4, 4, 4]
    rows = [line.split("\t") for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines()]
    assert len(rows) == 6 and all(len(row) == 6 and row[1] in wnids for row in rows)
    with Image.open(tiny / "val" / "images" / rows[0][0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))

    ids = (voc / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    with Image.open(voc / "SegmentationClass" / f"{ids[1]}.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        labels, counts = np.unique(np.asarray(mask), return_counts=True)
    assert labels.tolist() == [0, 2, 255] and counts.min() > 20

    x, y, (train, test) = datasets.ucr.load(pristine, "Diatoms")
    assert x.shape == (18, 1, 176) and x.dtype == np.float32 and (len(train), len(test)) == (12, 6)
    assert np.abs(x.mean(-1)).max() < 1e-5 and np.abs(x.std(-1) - 1).max() < 1e-5
    assert sorted(set(y)) == ["1", "2", "3"]


def test_a_shape_gives_all_three():
    for c, image, mask, series in diatoms.samples("train", 2, 2, 64, 0):
        inside = mask == c + 1
        assert image[inside].mean() < image[mask == 0].mean()
        # The mask's own reach from its centre agrees with the ratio of the contour's.
        rows, columns = (mask > 0).nonzero()
        reach = np.hypot(rows - rows.mean(), columns - columns.mean()).max()
        assert 64 * 0.25 < reach < 64 * 0.6
        assert series.argmax() in (0, *range(1, 4), *range(172, 176))


def test_shape_tells_the_class_and_colour_does_not():
    train, test = (list(diatoms.samples(split, 5, 20, 64, 0)) for split in ("train", "test"))

    def nearest(feature):
        known, asked = (np.array([feature(s) for s in part]) for part in (train, test))
        guess = ((asked[:, None] - known) ** 2).sum(-1).argmin(1)
        return np.mean([train[g][0] == s[0] for g, s in zip(guess, test, strict=True)])

    assert nearest(lambda s: s[3]) > 0.85
    assert nearest(lambda s: s[1].mean((0, 1))) < 0.45
    assert nearest(lambda s: s[1].astype(float).ravel()) < 0.8


def test_a_second_call_does_nothing_and_other_arguments_do(tmp_path):
    lines = []
    diatoms.make(tmp_path, **SMALL, log=lines.append)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    diatoms.make(tmp_path, **SMALL, log=lines.append)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert [line.partition(":")[0] for line in lines] == ["prepared", "already prepared"]
    diatoms.make(tmp_path, **{**SMALL, "classes": 2})
    assert len((tmp_path / "tiny-imagenet-200" / "wnids.txt").read_text().split()) == 2


def test_somebody_elses_files_are_left_alone(tmp_path):
    (tmp_path / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    with pytest.raises(UserError, match="was not made by this command"):
        diatoms.make(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["VOCdevkit"]


@pytest.mark.parametrize("bad", [{"classes": 1}, {"classes": 21}, {"train": 0}, {"size": 4}, {"seed": -1}], ids=str)
def test_arguments_out_of_range(bad, tmp_path):
    with pytest.raises(UserError, match=f"--{next(iter(bad))} .* out of range"):
        diatoms.make(tmp_path / "out", **bad)
    assert not (tmp_path / "out").exists()


def test_overview(dynconv, tmp_path):
    done = dynconv(
        "data",
        "diatoms",
        "--out",
        tmp_path / "d",
        "--classes",
        2,
        "--train",
        2,
        "--test",
        1,
        "--size",
        32,
        "--sheet",
        tmp_path / "pictures" / "sheet.png",
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "pictures" / "sheet.png") as sheet:
        assert sheet.width > 500 and len(sheet.convert("RGB").getcolors(1 << 20)) > 1000
