"""The built-in data: closed contours as images, as masks and as series, in the three official layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from torch.hub import tqdm

from ..errors import UserError, require
from .preparation import Preparation, held

TINY, VOC, UCR = "tiny-imagenet-200", "VOCdevkit/VOC2012", "UCR/Diatoms"
SPLITS = ("train", "test")


def make(
    out: str | Path,
    *,
    classes: int = 5,
    train: int = 40,
    test: int = 10,
    size: int = 64,
    seed: int = 0,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Makes the diatoms: one shape gives an image, a mask and a series. The seed decides everything.

    Args:
        out: Folder to fill: ``tiny-imagenet-200/`` (Tiny ImageNet's layout), ``VOCdevkit/VOC2012/`` (label ids
            ``1..classes``, background 0, border 255) and ``UCR/Diatoms/Diatoms_{TRAIN,TEST}.tsv`` (length 176).
        classes: Number of shapes, 2 to 20 (VOC has no more labels).
        train: Samples per class for training. More samples leave the first ones as they are.
        test: Samples per class for validation.
        size: Edge of the images in pixels, 16 to 1024.
        seed: Any non-negative integer.
        log: Called with lines that tell the result.

    Returns:
        `out`. A second call with the same arguments does nothing.

    Raises:
        UserError: If an argument is out of range, or `out` holds other files under these names.
    """
    require("PIL", extra="timm")
    for name, value, low, high in (
        ("classes", classes, 2, 20),
        ("train", train, 1, 100_000),
        ("test", test, 1, 100_000),
        ("size", size, 16, 1024),
        ("seed", seed, 0, 2**63),
    ):
        if not low <= value <= high:
            raise UserError(f"--{name} {value} is out of range: {low} to {high}")
    options = {"classes": classes, "train": train, "test": test, "size": size, "seed": seed}
    work = Preparation("diatoms", Path(out), [TINY, VOC, UCR], options=options)
    summary = f"{classes} classes of {train} + {test} diatoms in {work.out}"
    with held(work.out):
        if work.finished():
            log(f"already prepared: {summary}")
            return work.out
        work.begin()
        _write(work, **options)
        probe = [f"{TINY}/wnids.txt", f"{VOC}/ImageSets/Segmentation/val.txt", f"{UCR}/Diatoms_TEST.tsv"]
        work.publish(probe, counts={"train": classes * train, "val": classes * test})
    log(f"prepared: {summary}")
    return work.out


def samples(split: str, classes: int, count: int, size: int, seed: int) -> Iterator[tuple]:
    """Yields ``(class index, image, mask, series)`` of every sample, the classes in turn.

    Shapes: image uint8 ``[size, size, 3]``, mask uint8 ``[size, size]``, series float64 ``[176]``.
    """
    from . import contours, render

    shapes = contours.prototypes(classes, seed)
    for i in range(count):
        for c in range(classes):
            rng = contours.rng_for(seed, SPLITS.index(split), c, i)
            contour = contours.jittered(shapes[c], rng)
            image, mask = render.draw(contour, size, c + 1, rng)
            yield c, image, mask, contours.centroid_distance(contour)


def wnid(index: int) -> str:
    """Returns the class's identifier in Tiny ImageNet's style; WordNet has no such numbers."""
    return f"n99{index + 1:06d}"


def _write(work: Preparation, classes: int, train: int, test: int, size: int, seed: int) -> None:
    from . import layouts

    words = {wnid(c): f"diatom {c + 1}" for c in range(classes)}
    tiny = layouts.TinyImageNet(work.fresh(TINY), words)
    voc = layouts.VOC2012(work.fresh(VOC))
    ucr = layouts.UCR(work.fresh(UCR))
    with tqdm(total=classes * (train + test), desc="diatoms", unit="img", leave=False, disable=None) as bar:
        for split, count in zip(SPLITS, (train, test), strict=True):
            listed = "train" if split == "train" else "val"
            for n, (c, image, mask, series) in enumerate(samples(split, classes, count, size, seed)):
                jpeg = layouts.jpeg(image)
                tiny.add(listed, n // classes if split == "train" else n, wnid(c), jpeg, _box(mask))
                voc.add(listed, f"diatom_{split}_{n:06d}", jpeg, mask)
                ucr.add(split.upper(), str(c + 1), series)
                bar.update(1)
    for layout in (tiny, voc, ucr):
        layout.close()


def _box(mask) -> tuple[int, int, int, int]:
    columns, rows = (mask > 0).any(0).nonzero()[0], (mask > 0).any(1).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
