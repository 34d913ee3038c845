"""Tiny ImageNet as timm's ImageFolder wants it: ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``, all links."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError, require
from . import archives, decoding
from .download import fetch
from .preparation import Preparation, held, report

KIND = "tiny-imagenet"
ARCHIVE = "tiny-imagenet-200.zip"
URL = f"http://cs231n.stanford.edu/{ARCHIVE}"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
CLASSES, TRAIN, VAL = 200, 500, 50
SUFFIXES = (".jpeg", ".jpg", ".png")
EXPECTED = f"expected {ARCHIVE}, its unpacked folder (train/, val/), or a folder of .tar.gz shards"


@dataclass
class Split:
    """Image files by class, of one root folder, and what was left out of them."""

    train: dict[str, list[Path]]
    val: dict[str, list[Path]]
    notes: list[str] = field(default_factory=list)


def prepare(
    source: str | Path | None,
    out: str | Path,
    *,
    classes: int | None = None,
    download: bool = False,
    strict: bool = False,
    jobs: int | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Re-organises Tiny ImageNet by links, after counting and decoding every image.

    Args:
        source: The official zip, its unpacked folder, a folder already organised by class, or a folder of archives
            with parts of it. Archives are unpacked into ``out/.source``.
        out: Folder for ``train/``, ``val/`` and ``dataset.json``.
        classes: Only the first so many classes, in the order of their wnids.
        download: Get the official archive first (`source` must be None).
        strict: A deviation from the official counts is an error, not a note.
        jobs: Decoding threads.
        log: Called with lines that tell the result.

    Returns:
        `out`. A second call with the same arguments does nothing.

    Raises:
        UserError: If something is missing, damaged or inconsistent.
    """
    require("PIL", extra="timm")
    if classes is not None and classes < 1:
        raise UserError(f"--classes {classes}: at least one class is needed")
    out = Path(out).expanduser().absolute()
    source = fetch(URL, MD5, out) if download else locate(source)
    packed = [source] if archives.is_archive(source) else [] if (source / "train").is_dir() else archives.inside(source)
    sources = packed or [source / "train", source / "val"]
    work = Preparation(KIND, out, ["train", "val"], sources, {"classes": classes})
    with held(out):
        done = work.finished()
        record = done or _prepare(work, source, packed, classes, jobs)
    counts = record["counts"]
    summary = f"{counts['train']} train and {counts['val']} val images of {len(record['classes'])} classes in {out}"
    report(record, summary, record["notes"], strict, log, bool(done))
    return out


def locate(source: str | Path | None) -> Path:
    """Returns the archive, the folder of archives or the folder with ``train/`` meant by `source`."""
    if source is None:
        raise UserError(f"which source? {EXPECTED}, or use --download")
    source = Path(source).expanduser().absolute()
    if not source.exists():
        raise UserError(f"{source} does not exist; {EXPECTED}")
    if archives.is_archive(source):
        return source
    if source.is_dir():
        for folder in (source, source / "tiny-imagenet-200", source / "tiny-imagenet-mini"):
            if (folder / "train").is_dir():
                if not (folder / "val").is_dir():
                    raise UserError(f"{folder} has train/ but no val/; {EXPECTED}")
                return folder
        if archives.inside(source):
            return source
    raise UserError(f"{source} holds no Tiny ImageNet; {EXPECTED}")


def _prepare(work: Preparation, source: Path, packed: list[Path], classes: int | None, jobs: int | None) -> dict:
    work.begin()
    given = source
    if packed:
        source = _unpack(packed, archives.place(packed, work.out, KIND), classes)
    split = scan(source, classes)
    found = [str(p.relative_to(source)) for part in (split.train, split.val) for c in part.values() for p in c]
    decoding.verify(
        work,
        found,
        lambda name: decoding.image_problem(source / name),
        what="images cannot be decoded",
        advice=f"delete or replace them in {given}",
        jobs=jobs,
    )
    probe = []
    for part in ("train", "val"):
        folder = work.fresh(part)
        for wnid, images in getattr(split, part).items():
            (folder / wnid).mkdir()
            for image in images:
                work.link(image, f"{part}/{wnid}/{image.name}")
            probe.append(f"{part}/{wnid}/{images[-1].name}")
    return work.publish(
        probe,
        counts={part: sum(map(len, getattr(split, part).values())) for part in ("train", "val")},
        classes=_words(source, sorted(split.train)),
        notes=split.notes + _deviations(split, classes),
    )


def _unpack(packed: list[Path], into: Path, classes: int | None) -> Path:
    wnids = set()
    root = None
    for name, _ in archives.names(packed):
        parts = name.split("/")
        if "train" in parts[:-2]:
            at = parts.index("train")
            root = "/".join(parts[:at])
            wnids.add(parts[at + 1])
    if root is None:
        raise UserError(f"{packed[0]} holds no train/<wnid>/; {EXPECTED}")
    keep = set(sorted(wnids)[:classes])

    def wanted(name: str) -> bool:
        first, *rest = name.removeprefix(root).strip("/").split("/")
        return first != "test" and (first != "train" or not rest or rest[0] in keep)

    archives.unpack(packed, into, wanted)
    return into / root


def scan(root: Path, classes: int | None = None) -> Split:
    """Lists the images by class, in either layout.

    Raises:
        UserError: If there are none, or the annotations of the val images are missing or wrong.
    """
    train = {p.name: images_in(p) for p in sorted((root / "train").iterdir()) if p.is_dir()}
    if not train:
        raise UserError(f"{root / 'train'} has no class folders; {EXPECTED}")
    available = len(train)
    if classes and classes > available:
        raise UserError(f"--classes {classes}: {root / 'train'} has only {available}")
    train = dict(list(train.items())[:classes])
    if not (root / "val").is_dir():
        raise UserError(f"{root} has no val/; {EXPECTED}")
    flat = images_in(root / "val")
    if flat:
        val = _annotated(root / "val", flat)
    else:
        val = {p.name: images_in(p) for p in sorted((root / "val").iterdir()) if p.is_dir()}
    notes = []
    dropped = sum(wnid not in train for wnid, found in val.items() if found)
    # Of an archive only the classes that were asked for have been unpacked.
    if dropped and classes is None:
        notes.append(f"val images of {dropped} classes without training images are left out")
    val = {wnid: val.get(wnid, []) for wnid in train}
    for part, found in (("train", train), ("val", val)):
        empty = [wnid for wnid, images in found.items() if not images]
        if empty:
            raise UserError(f"{len(empty)} classes have no {part} images in {root / part}, first: {empty[0]}; add them")
    return Split(train, val, notes)


def _annotated(val: Path, flat: list[Path]) -> dict[str, list[Path]]:
    table = val / "val_annotations.txt"
    if not table.is_file():
        raise UserError(f"{table} is missing: it names the classes of val/images; take it from {ARCHIVE}")
    there = {p.name: p for p in flat}
    found: dict[str, list[Path]] = {}
    named, absent = set(), []
    for number, line in enumerate(table.read_text().splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise UserError(f"{table}:{number}: expected 'image<tab>wnid...'; take the file from {ARCHIVE}")
        named.add(fields[0])
        if fields[0] in there:
            found.setdefault(fields[1], []).append(there[fields[0]])
        else:
            absent.append(fields[0])
    if absent:
        raise UserError(f"{len(absent)} images of {table} are missing, first: images/{absent[0]}; unpack it again")
    unnamed = sorted(there.keys() - named)
    if unnamed:
        raise UserError(f"{len(unnamed)} val images are not in {table}, first: {unnamed[0]}; take it from {ARCHIVE}")
    return found


def images_in(folder: Path) -> list[Path]:
    """Returns the images in ``images/`` below a folder where there is one, else directly in it, sorted."""
    folder = folder / "images" if (folder / "images").is_dir() else folder
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(SUFFIXES))


def _words(root: Path, wnids: list[str]) -> dict[str, str]:
    table = root / "words.txt"
    lines = table.read_text().splitlines() if table.is_file() else []
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return {wnid: words.get(wnid, wnid) for wnid in wnids}


def _deviations(split: Split, classes: int | None) -> list[str]:
    notes = []
    if len(split.train) != (classes or CLASSES):
        notes.append(f"{len(split.train)} classes, officially {CLASSES}")
    for part, official in (("train", TRAIN), ("val", VAL)):
        odd = {wnid: len(images) for wnid, images in getattr(split, part).items() if len(images) != official}
        if odd:
            wnid, count = next(iter(odd.items()))
            notes.append(f"{len(odd)} classes without the official {official} {part} images, first: {wnid} has {count}")
    return notes
