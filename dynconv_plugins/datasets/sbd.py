"""The Semantic Boundaries Dataset as VOC's augmentation, by mmseg's convention: ``SegmentationClassAug``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, require
from . import decoding, files
from .preparation import Preparation

if TYPE_CHECKING:
    import numpy as np

URL = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"


def locate(folder: str | Path) -> Path:
    """Returns the folder with the masks, ``.png`` or ``.mat``, meant by `folder`."""
    root = Path(folder).expanduser().absolute()
    for below in ("SegmentationClassAug", "dataset/cls", "benchmark_RELEASE/dataset/cls", "cls", "."):
        masks = (root / below).resolve() if below == "." else root / below
        if masks.is_dir() and any(p.suffix in (".png", ".mat") for p in masks.iterdir()):
            return masks
    raise UserError(
        f"{root} holds neither SegmentationClassAug/*.png nor dataset/cls/*.mat; "
        f"get {URL}, unpack it and give --aug the folder benchmark_RELEASE"
    )


def select(masks: Path, images: Path, lists: dict[str, list[str]]) -> tuple[dict[str, Path], list[str]]:
    """Returns the masks to add, by id: those with an image that are in neither official list; and notes."""
    known = {i for ids in lists.values() for i in ids}
    found = {p.stem: p for p in sorted(masks.iterdir()) if p.suffix in (".png", ".mat") and p.stem not in known}
    added = {i: p for i, p in found.items() if (images / f"{i}.jpg").is_file()}
    if not added:
        raise UserError(f"no mask of {masks} has an image in {images}; VOC's complete JPEGImages are needed")
    absent = len(found) - len(added)
    return added, [f"{absent} masks of {masks} have no image and are left out"] if absent else []


def read_mask(path: Path) -> np.ndarray | str:
    """Returns the labels ``[H, W]``, or what is wrong with the file."""
    import numpy as np

    if path.suffix == ".mat":
        require("scipy", extra="mmseg")
        from scipy.io import loadmat

        try:
            return loadmat(path)["GTcls"][0]["Segmentation"][0]
        except Exception as e:  # scipy raises whatever the damage leads to
            return f"not a mask of SBD ({type(e).__name__})"
    from PIL import Image

    wrong = decoding.image_problem(path)
    if wrong:
        return wrong
    with Image.open(path) as image:
        if image.mode not in ("P", "L"):
            return f"a {image.mode} image, not a palette PNG with class numbers"
        return np.asarray(image)


def write(work: Preparation, product: str, masks: dict[str, Path]) -> None:
    """Fills ``SegmentationClassAug``: PNGs are linked, SBD's own files converted."""
    from .layouts import palette_png

    folder = work.fresh(product)
    for i, path in masks.items():
        if path.suffix == ".png":
            work.link(path, f"{product}/{i}.png")
        else:
            files.write(folder / f"{i}.png", palette_png(read_mask(path).astype("uint8")))
