"""VOC 2012: sources, every kind of inconsistent pair, and SBD's masks by mmseg's convention."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from dynconv_plugins.datasets import find, voc2012
from dynconv_plugins.errors import UserError

np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")
LISTS = "ImageSets/Segmentation"


@pytest.fixture
def voc(official) -> Path:
    return official / "VOCdevkit" / "VOC2012"


def as_tar(voc: Path, to: Path) -> Path:
    with tarfile.open(to / "VOCtrainval.tar", "w") as t:
        t.add(voc.parent, "VOCdevkit")
    return to / "VOCtrainval.tar"


SOURCES = {
    "VOC2012": lambda voc, to: voc,
    "VOCdevkit": lambda voc, to: voc.parent,
    "parent": lambda voc, to: voc.parents[1],
    "tar": as_tar,
}


def repaint(path: Path, change) -> None:
    """Saves a mask again with other labels, palette kept."""
    with Image.open(path) as image:
        labels, palette = np.array(image), image.getpalette()
    changed = Image.fromarray(change(labels))
    changed.putpalette(palette)
    changed.save(path)


@pytest.mark.parametrize("form", SOURCES)
def test_every_source_gives_the_same(form, voc, tmp_path):
    lines: list[str] = []
    source = SOURCES[form](voc, tmp_path)
    out = voc2012.prepare(source, tmp_path / "out", log=lines.append)
    made = out / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", LISTS):
        assert sorted(p.name for p in (made / name).iterdir()) == sorted(p.name for p in (voc / name).iterdir())
    assert (made / LISTS / "val.txt").read_bytes() == (voc / LISTS / "val.txt").read_bytes()
    assert json.loads((out / "dataset.json").read_text())["voc2012"]["counts"] == {"train": 12, "val": 6}
    assert any("12 train pairs, officially 1464" in line for line in lines)

    before = {p: p.lstat().st_mtime_ns for p in out.rglob("*")}
    voc2012.prepare(source, out, log=lines.append)
    assert before == {p: p.lstat().st_mtime_ns for p in out.rglob("*")}
    assert any(line.startswith("already prepared") for line in lines)
    with pytest.raises(UserError, match="officially 1464"):
        voc2012.prepare(source, out, strict=True)


def unknown_label(voc: Path) -> None:
    repaint(voc / "SegmentationClass" / "diatom_train_000002.png", lambda m: np.where(m == 3, 21, m).astype(np.uint8))


def other_size(voc: Path) -> None:
    repaint(voc / "SegmentationClass" / "diatom_test_000001.png", lambda m: m[:, :-1])


def colour_mask(voc: Path) -> None:
    path = voc / "SegmentationClass" / "diatom_train_000000.png"
    with Image.open(path) as image:
        coloured = image.convert("RGB")
    coloured.save(path)


def no_mask(voc: Path) -> None:
    (voc / "SegmentationClass" / "diatom_train_000004.png").unlink()


def no_image(voc: Path) -> None:
    (voc / "JPEGImages" / "diatom_test_000003.jpg").unlink()


def truncated_image(voc: Path) -> None:
    path = voc / "JPEGImages" / "diatom_train_000007.jpg"
    path.write_bytes(path.read_bytes()[:-30])


def truncated_mask(voc: Path) -> None:
    path = voc / "SegmentationClass" / "diatom_train_000007.png"
    path.write_bytes(path.read_bytes()[:-40])


def no_list(voc: Path) -> None:
    (voc / LISTS / "val.txt").unlink()


def empty_list(voc: Path) -> None:
    (voc / LISTS / "train.txt").write_text("\n")


def id_twice(voc: Path) -> None:
    with open(voc / LISTS / "train.txt", "a") as f:
        f.write("diatom_train_000003\n")


def no_folder(voc: Path) -> None:
    shutil.rmtree(voc / "SegmentationClass")


DAMAGE = [
    (unknown_label, r"1 image and mask pairs .*, first: .*_000002.png has unknown labels 21, known: 0 to 20 and 255"),
    (other_size, r"diatom_test_000001.png is 31x32, diatom_test_000001.jpg is 32x32"),
    (colour_mask, r"diatom_train_000000.png: a RGB image, not a palette PNG"),
    (no_mask, r"1 ids of train.txt have no mask, first: .*/SegmentationClass/diatom_train_000004.png"),
    (no_image, r"1 ids of val.txt have no image, first: .*/JPEGImages/diatom_test_000003.jpg"),
    (truncated_image, r"diatom_train_000007.jpg: image file is truncated"),
    (truncated_mask, r"diatom_train_000007 \(diatom_train_000007.png: "),
    (no_list, r"val.txt is missing"),
    (empty_list, r"train.txt is empty"),
    (id_twice, r"train.txt names diatom_train_000003 twice"),
    (no_folder, r"SegmentationClass is missing"),
]


@pytest.mark.parametrize("damage, line", DAMAGE, ids=[d.__name__ for d, _ in DAMAGE])
def test_damage_is_one_line_and_leaves_no_result(damage, line, voc, tmp_path):
    damage(voc)
    with pytest.raises(UserError, match=line) as raised:
        voc2012.prepare(voc, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "dataset.json").exists() and not (tmp_path / "out" / "VOCdevkit").exists()


@pytest.fixture
def aug_ids(voc) -> list[str]:
    """Takes two ids off the train list: images that only the augmentation has masks for."""
    ids = (voc / LISTS / "train.txt").read_text().split()
    (voc / LISTS / "train.txt").write_text("\n".join(ids[:-2]) + "\n")
    return ids[-2:]


@pytest.mark.parametrize("form", ["png", "mat"])
def test_augmentation(form, voc, aug_ids, tmp_path):
    val = (voc / LISTS / "val.txt").read_text().split()
    folder = tmp_path / "sbd" / ("SegmentationClassAug" if form == "png" else "benchmark_RELEASE/dataset/cls")
    folder.mkdir(parents=True)
    for i in [*aug_ids, val[0]]:  # SBD has masks of VOC's val images: they must stay out
        mask = voc / "SegmentationClass" / f"{i}.png"
        if form == "png":
            shutil.copy(mask, folder)
        else:
            io = pytest.importorskip("scipy.io")
            with Image.open(mask) as image:
                cls = np.zeros((1, 1), dtype=[("Segmentation", object)])
                cls["Segmentation"][0, 0] = np.array(image)
            io.savemat(folder / f"{i}.mat", {"GTcls": cls})
    out = voc2012.prepare(voc, tmp_path / "out", aug=tmp_path / "sbd")
    made = out / "VOCdevkit" / "VOC2012"
    train = (made / LISTS / "train.txt").read_text().split()
    assert (made / LISTS / "aug.txt").read_text().split() == aug_ids
    assert (made / LISTS / "trainaug.txt").read_text().split() == train + aug_ids
    assert sorted(p.stem for p in (made / "SegmentationClassAug").iterdir()) == sorted(train + aug_ids)
    for i in train + aug_ids:
        with (
            Image.open(made / "SegmentationClassAug" / f"{i}.png") as a,
            Image.open(voc / "SegmentationClass" / f"{i}.png") as b,
        ):
            assert a.mode == "P" and (np.array(a) == np.array(b)).all()


def test_a_corrected_archive(voc, tmp_path):
    truncated_image(voc)
    archive, out = as_tar(voc, tmp_path), tmp_path / "out"
    with pytest.raises(UserError, match=f"_000007.jpg: .*; replace them in {archive}, or take them off its lists"):
        voc2012.prepare(archive, out)
    ids = (voc / LISTS / "train.txt").read_text().split()
    (voc / LISTS / "train.txt").write_text("\n".join(i for i in ids if not i.endswith("7")))
    (voc / "JPEGImages" / "diatom_train_000007.jpg").unlink()
    made = voc2012.prepare(as_tar(voc, tmp_path), out) / "VOCdevkit" / "VOC2012"
    assert (
        not (made / "JPEGImages" / "diatom_train_000007.jpg").exists() and len(list((out / ".source").iterdir())) == 1
    )


def test_augmentation_that_is_not_there(voc, tmp_path):
    with pytest.raises(UserError, match=r"holds neither .* get https?://\S+benchmark.tgz, unpack it and give --aug"):
        voc2012.prepare(voc, tmp_path / "out", aug=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_damaged_augmentation(voc, aug_ids, tmp_path):
    (tmp_path / "sbd").mkdir()
    (tmp_path / "sbd" / f"{aug_ids[0]}.mat").write_bytes(b"MATLAB 5.0 no more")
    with pytest.raises(UserError, match=f"{aug_ids[0]}.mat: not a mask of SBD"):
        voc2012.prepare(voc, tmp_path / "out", aug=tmp_path / "sbd")


def test_real_data(tmp_path):
    root = find().get("voc2012")
    if root is None:
        pytest.skip("no VOC 2012 under DYNCONV_DATA")
    out = voc2012.prepare(root, tmp_path)
    ids = (out / "VOCdevkit" / "VOC2012" / LISTS / "val.txt").read_text().split()
    assert ids and all((out / "VOCdevkit/VOC2012/SegmentationClass" / f"{i}.png").is_file() for i in ids)
