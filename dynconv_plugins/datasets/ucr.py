"""UCR archive: checks and links (or converts) the files, and loads them into the arrays tsai takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch.hub import tqdm

from ..errors import UnknownName, UserError, require
from . import archives, files, series, ucr_download
from .preparation import Preparation, held, report

if TYPE_CHECKING:
    import numpy as np

KIND = "ucr"
EXPECTED = "expected <Name>_TRAIN and <Name>_TEST files, .tsv or .ts, in a folder or a .zip"
# Name -> series to train, to test, length, classes, of the 2018 archive; for the data sets used here.
OFFICIAL = {
    "Adiac": (390, 391, 176, 37),
    "ArrowHead": (36, 175, 251, 3),
    "Beef": (30, 30, 470, 5),
    "ECG200": (100, 100, 96, 2),
    "GunPoint": (50, 150, 150, 2),
    "SwedishLeaf": (500, 625, 128, 15),
    "Trace": (100, 100, 275, 4),
}


def prepare(
    source: str | Path | None,
    out: str | Path,
    *,
    names: Sequence[str] | None = None,
    download: bool = False,
    strict: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Makes ``out/UCR/<Name>/<Name>_{TRAIN,TEST}.tsv``: links to .tsv files, converted copies of .ts files.

    Args:
        source: A folder that holds the files at any depth, or a zip of one. An archive is unpacked into
            ``out/.source``. Where the archive brings adjusted copies of data sets with missing values, these count.
        out: Folder for ``UCR/`` and ``dataset.json``.
        names: Data sets; default: all there are.
        download: Get the data sets in `names` through tsai first (`source` must be None).
        strict: A deviation from the official sizes is an error, not a note.
        log: Called with lines that tell the result.

    Returns:
        ``out/UCR``. A second call with the same arguments does nothing.

    Raises:
        UnknownName: If the source has no data set of that name.
        UserError: If something is missing, damaged or inconsistent.
    """
    out = Path(out).expanduser().absolute()
    if download:
        source = ucr_download.fetch(names, out)
    source = locate(source)
    unpacked = archives.place([source], out, KIND) if archives.is_archive(source) else None
    chosen = {} if unpacked else _chosen(source, names)  # before a folder is made for nothing
    with held(out):
        if unpacked:
            archives.unpack([source], unpacked, lambda name: name.endswith((".tsv", ".ts")))
            chosen = _chosen(unpacked, names)
        _prepare_all(chosen, out, strict, log)
    return out / "UCR"


def _chosen(root: Path, names: Sequence[str] | None) -> dict[str, tuple[Path, Path]]:
    available = scan(root)
    for name in names or ():
        if name not in available:
            raise UnknownName("UCR data set", name, available)
    return {name: available[name] for name in names or available}


def _prepare_all(chosen: dict[str, tuple[Path, Path]], out: Path, strict: bool, log: Callable[[str], None]) -> None:
    with tqdm(total=len(chosen), desc="UCR", unit="set", leave=False, disable=None) as bar:
        for name, pair in chosen.items():
            work = Preparation(f"{KIND}/{name}", out, [f"UCR/{name}"], pair)
            done = work.finished()
            record = done or _prepare(work, name, pair)
            train, test, length, classes = record["shape"]
            summary = f"{name}, {train} + {test} series of length {length}, {classes} classes, in {out / 'UCR' / name}"
            report(record, summary, record["notes"], strict, log, bool(done))
            bar.update(1)


def load(root: str | Path, name: str) -> tuple[np.ndarray, np.ndarray, tuple[list[int], list[int]]]:
    """Loads a data set with its official split.

    Args:
        root: A folder with ``UCR/<Name>/``, ``<Name>/`` or the files themselves, .tsv or .ts.
        name: The data set.

    Returns:
        ``X`` float32 ``[N, 1, L]``, ``y`` str ``[N]``, and ``(train_idx, test_idx)``: what tsai's ``TSDatasets``,
        ``get_ts_dls`` and ``TSClassifier`` take as `X`, `y` and `splits`.

    Raises:
        UnknownName: If there is no such data set.
        UserError: If a file is damaged, or train and test disagree.
    """
    np = require("numpy", extra="tsai")
    root = Path(root).expanduser()
    for folder in (root / "UCR" / name, root / "ucr" / name, root / name, root):
        found = _pair(folder, name)
        if found:
            break
    else:
        raise UnknownName("UCR data set", name, scan(root))
    train, test = _read_pair(found)
    rows = train + test
    x = np.array([row.values for row in rows], dtype=np.float64).astype(np.float32)[:, None]
    y = np.array([row.label for row in rows])
    return x, y, (list(range(len(train))), list(range(len(train), len(rows))))


def locate(source: str | Path | None) -> Path:
    """Returns the archive or folder meant by `source`."""
    if source is None:
        raise UserError(f"which source? {EXPECTED}; or use --download with --names")
    source = Path(source).expanduser().absolute()
    if not source.exists():
        raise UserError(f"{source} does not exist; {EXPECTED}")
    if not source.is_dir() and not archives.is_archive(source):
        raise UserError(f"{source} is neither a folder nor an archive; {EXPECTED}")
    return source


def scan(root: Path) -> dict[str, tuple[Path, Path]]:
    """Returns the train and test file of every data set below a folder, by name, sorted.

    Raises:
        UserError: If there are none, or a test file is missing.
    """
    if not root.is_dir():
        raise UserError(f"{root} does not exist; {EXPECTED}")
    found: dict[str, tuple[Path, Path]] = {}
    lone = None

    def rank(train: Path) -> tuple[bool, bool, str]:
        place = str(train.relative_to(root))
        return "adjusted" in place.lower(), train.suffix == ".tsv", place

    # The adjusted copies come last and .tsv after .ts: the later ones win.
    for train in sorted(root.rglob("*_TRAIN.ts*"), key=rank):
        name = train.stem.removesuffix("_TRAIN")
        pair = _pair(train.parent, name)
        if pair:
            found[name] = pair
        else:
            lone = lone or train
    if not found:
        if lone:
            raise UserError(f"{lone} has no {lone.name.replace('TRAIN', 'TEST')} beside it; add it")
        raise UserError(f"{root} holds no data sets; {EXPECTED}")
    return dict(sorted(found.items()))


def _pair(folder: Path, name: str) -> tuple[Path, Path] | None:
    for suffix in (".tsv", ".ts"):
        pair = folder / f"{name}_TRAIN{suffix}", folder / f"{name}_TEST{suffix}"
        if all(p.is_file() for p in pair):
            return pair
    return None


def _read_pair(pair: tuple[Path, Path]) -> tuple[list[series.Row], list[series.Row]]:
    train, test = (series.read(p) for p in pair)
    if len(train[0].values) != len(test[0].values):
        raise UserError(f"{pair[1]} has length {len(test[0].values)}, {pair[0].name} has {len(train[0].values)}")
    known = {row.label for row in train}
    for row in test:
        if row.label not in known:
            raise UserError(f"{pair[1]}:{row.line}: label '{row.label}' does not occur in {pair[0].name}")
    return train, test


def _prepare(work: Preparation, name: str, pair: tuple[Path, Path]) -> dict:
    work.begin()
    train, test = _read_pair(pair)
    folder = work.fresh(f"UCR/{name}")
    for rows, path in ((train, pair[0]), (test, pair[1])):
        if path.suffix == ".tsv":
            work.link(path, f"UCR/{name}/{path.name}")
        else:
            lines = ["\t".join([row.label, *(v.strip() for v in row.values)]) for row in rows]
            files.write(folder / f"{path.stem}.tsv", "".join(f"{line}\n" for line in lines))
    shape = len(train), len(test), len(train[0].values), len({row.label for row in train})
    notes = []
    if shape != OFFICIAL.get(name, shape):
        notes.append(f"{name} has (train, test, length, classes) {shape}, officially {OFFICIAL[name]}")
    return work.publish([f"UCR/{name}/{name}_TRAIN.tsv", f"UCR/{name}/{name}_TEST.tsv"], shape=shape, notes=notes)
