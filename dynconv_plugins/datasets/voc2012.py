"""PASCAL VOC 2012 segmentation as mmseg reads it: ``VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,...}``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import UserError, require
from . import archives, decoding, files, sbd
from .download import fetch
from .preparation import Preparation, held, report

KIND = "voc2012"
PRODUCT = "VOCdevkit/VOC2012"
LISTS = "ImageSets/Segmentation"
OFFICIAL = {"train": 1464, "val": 1449, "trainaug": 10582}
LABELS, VOID = 21, 255
EXPECTED = "expected VOCtrainval_11-May-2012.tar or its unpacked VOCdevkit folder"


def prepare(
    source: str | Path | None,
    out: str | Path,
    *,
    aug: str | Path | None = None,
    download: bool = False,
    strict: bool = False,
    jobs: int | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Links VOC 2012, after checking that every listed image has its mask, and decoding both.

    Args:
        source: The official tar, or a folder with ``VOCdevkit/VOC2012``. An archive is unpacked into
            ``out/.source``.
        out: Folder for ``VOCdevkit/VOC2012/`` and ``dataset.json``.
        aug: Folder of the Semantic Boundaries Dataset (``dataset/cls/*.mat``) or of masks made from it
            (``SegmentationClassAug/*.png``); adds ``SegmentationClassAug/`` and the lists ``aug.txt`` and
            ``trainaug.txt``, by mmseg's convention.
        download: Get the official archive first (`source` must be None).
        strict: A deviation from the official counts is an error, not a note.
        jobs: Decoding threads.
        log: Called with lines that tell the result.

    Returns:
        `out`. A second call with the same arguments does nothing.

    Raises:
        UserError: If something is missing, damaged or inconsistent.
    """
    require("PIL", extra="mmseg")
    out = Path(out).expanduser().absolute()
    extra = sbd.locate(aug) if aug is not None else None
    source = _fetch(out) if download else locate(source)
    packed = archives.is_archive(source)
    sources = [source] if packed else [source / part for part in ("JPEGImages", "SegmentationClass", "ImageSets")]
    missing = [s for s in sources if not s.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing; {EXPECTED}")
    work = Preparation(KIND, out, [PRODUCT], sources + ([extra] if extra else []))
    with held(out):
        done = work.finished()
        record = done or _prepare(work, source, packed, extra, jobs)
    counts = ", ".join(f"{count} {name}" for name, count in record["counts"].items())
    report(record, f"{counts} pairs in {out / PRODUCT}", record["notes"], strict, log, bool(done))
    return out


def locate(source: str | Path | None) -> Path:
    """Returns the archive, or the folder ``VOC2012``, meant by `source`."""
    if source is None:
        raise UserError(f"which source? {EXPECTED}, or use --download")
    source = Path(source).expanduser().absolute()
    if not source.exists():
        raise UserError(f"{source} does not exist; {EXPECTED}")
    if archives.is_archive(source):
        return source
    for folder in (source, source / "VOC2012", source / PRODUCT):
        if (folder / "JPEGImages").is_dir() or (folder / "ImageSets").is_dir():
            return folder
    found = archives.inside(source) if source.is_dir() else []
    if len(found) == 1:
        return found[0]
    raise UserError(f"{source} holds no VOC2012; {EXPECTED}")


def _fetch(out: Path) -> Path:
    require("torchvision", extra="timm")
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    official = DATASET_YEAR_DICT["2012"]
    return fetch(official["url"], official["md5"], out)


def _prepare(work: Preparation, source: Path, packed: bool, extra: Path | None, jobs: int | None) -> dict:
    work.begin()
    given = source
    if packed:
        wanted = tuple(f"{PRODUCT}/{part}/" for part in ("JPEGImages", "SegmentationClass", LISTS))
        unpacked = archives.place([given], work.out, KIND)
        archives.unpack([given], unpacked, lambda name: name.startswith(wanted))
        source = unpacked / PRODUCT
        if not source.is_dir():
            raise UserError(f"{given} holds no {PRODUCT}; {EXPECTED}")
    lists = {name: read_list(source / LISTS / f"{name}.txt") for name in ("train", "val")}
    for name, ids in lists.items():
        _complete(source, name, ids)
    pairs = {i: source / "SegmentationClass" / f"{i}.png" for ids in lists.values() for i in ids}

    folder = work.fresh(PRODUCT)
    for part in ("JPEGImages", "SegmentationClass"):
        work.link(source / part, f"{PRODUCT}/{part}")
    (folder / LISTS).mkdir(parents=True)
    for name in ("train", "val", "trainval"):
        if (source / LISTS / f"{name}.txt").is_file():
            work.link(source / LISTS / f"{name}.txt", f"{PRODUCT}/{LISTS}/{name}.txt")
    notes = []
    if extra:
        masks, notes = sbd.select(extra, source / "JPEGImages", lists)
        more = list(masks)
        lists |= {"aug": more, "trainaug": lists["train"] + more}
        pairs |= masks
        for name in ("aug", "trainaug"):
            files.write(folder / LISTS / f"{name}.txt", "".join(f"{i}\n" for i in lists[name]))
    decoding.verify(
        work,
        list(pairs),
        lambda i: pair_problem(source / "JPEGImages" / f"{i}.jpg", pairs[i]),
        what="image and mask pairs are unusable",
        advice=f"replace them in {given}, or take them off its lists",
        jobs=jobs,
    )
    if extra:
        sbd.write(work, f"{PRODUCT}/SegmentationClassAug", {i: pairs[i] for i in lists["trainaug"]})
    for name, ids in lists.items():
        if name in OFFICIAL and len(ids) != OFFICIAL[name]:
            notes.append(f"{len(ids)} {name} pairs, officially {OFFICIAL[name]}")
    first = lists["val"][-1]
    probe = [f"{PRODUCT}/{LISTS}/val.txt", f"{PRODUCT}/JPEGImages/{first}.jpg"]
    return work.publish(probe, counts={name: len(ids) for name, ids in lists.items()}, notes=notes)


def read_list(path: Path) -> list[str]:
    """Returns the ids in a list of ``ImageSets/Segmentation``.

    Raises:
        UserError: If it is missing, empty or names an id twice.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {EXPECTED}")
    ids = path.read_text().split()
    if not ids:
        raise UserError(f"{path} is empty; {EXPECTED}")
    if len(set(ids)) < len(ids):
        twice = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise UserError(f"{path} names {twice} twice; take the official list")
    return ids


def _complete(source: Path, name: str, ids: list[str]) -> None:
    for folder, suffix, what in (("JPEGImages", ".jpg", "image"), ("SegmentationClass", ".png", "mask")):
        missing = [i for i in ids if not (source / folder / f"{i}{suffix}").is_file()]
        if missing:
            raise UserError(
                f"{len(missing)} ids of {name}.txt have no {what}, first: {source / folder / missing[0]}{suffix}; "
                "add the files or take the ids off the list"
            )


def pair_problem(image: Path, mask: Path) -> str | None:
    """Says what is wrong with an image and its mask (a palette PNG, or SBD's ``.mat``), or returns None."""
    from PIL import Image

    wrong = decoding.image_problem(image)
    if wrong:
        return f"{image.name}: {wrong}"
    labels = sbd.read_mask(mask)
    if isinstance(labels, str):
        return f"{mask.name}: {labels}"
    with Image.open(image) as opened:
        size = opened.size
    if labels.shape != size[::-1]:
        return f"{mask.name} is {labels.shape[1]}x{labels.shape[0]}, {image.name} is {size[0]}x{size[1]}"
    unknown = sorted({v for v in set(labels.ravel().tolist()) if v >= LABELS and v != VOID})
    if unknown:
        return f"{mask.name} has unknown labels {', '.join(map(str, unknown))}, known: 0 to {LABELS - 1} and {VOID}"
    return None
