"""Unpacks archives beside their result: only what is wanted, and only what is not there yet."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from torch.hub import tqdm

from ..errors import UserError
from . import files

FOLDER = ".source"
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DIGITS = 8


def is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def inside(folder: Path) -> list[Path]:
    """Returns the archives directly in a folder, sorted."""
    return sorted(p for p in folder.iterdir() if is_archive(p))


def names(archives: Sequence[Path]) -> list[tuple[str, int]]:
    """Returns (name, size in bytes) of every file in the archives."""
    return [(name, size) for archive in archives for name, size, _ in _entries(archive)]


def place(archives: Sequence[Path], out: Path, kind: str) -> Path:
    """Returns where below `out` to unpack: a folder of its own for other archives, or once these have changed."""
    told = [(a.name, a.stat().st_size, a.stat().st_mtime_ns) for a in archives]
    return out / FOLDER / f"{kind}-{hashlib.sha256(repr(told).encode()).hexdigest()[:_DIGITS]}"


def used(out: Path, paths: Iterable[Path]) -> list[str]:
    """Returns the names of the folders of unpacked archives that some of the paths lie in or lead to."""
    root = (out / FOLDER).resolve()
    return sorted({p.relative_to(root).parts[0] for p in (path.resolve() for path in paths) if root in p.parents})


def tidy(out: Path, kind: str, used: Collection[str]) -> None:
    """Deletes what archives of this kind were unpacked into, but for the `used` folders' names."""
    for folder in (out / FOLDER).glob(f"{kind.partition('/')[0]}-{'[0-9a-f]' * _DIGITS}"):
        if folder.name not in used:
            shutil.rmtree(folder)


def unpack(archives: Sequence[Path], into: Path, wanted: Callable[[str], bool]) -> None:
    """Unpacks the wanted files of the archives into one folder.

    A file that is there with the right size stays; since every file is written under a temporary name, a run that
    was killed simply goes on.

    Raises:
        UserError: If an archive is damaged or encrypted, names a file outside its folder, or needs more space than
            there is.
        OSError: If the disk becomes full all the same.
    """
    listed = [(name, size) for name, size in names(archives) if wanted(name)]
    missing = {name: size for name, size in listed if not _there(into / name, size)}
    if not missing:
        return
    for name in missing:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{archives[0]} wants to write outside its folder ({name}); get it from its official page")
    into.mkdir(parents=True, exist_ok=True)
    # Small files occupy whole blocks.
    needed, free = sum(size + 4096 for size in missing.values()), shutil.disk_usage(into).free
    if needed > free:
        raise UserError(f"{into} has {free / 1e6:.0f} MB free but {needed / 1e6:.0f} MB are needed; free some space")
    with tqdm(total=len(missing), desc="unpacking", unit="file", leave=False, disable=None) as bar:
        for archive in archives:
            for name, _, open_entry in _entries(archive):
                if name in missing:
                    (into / name).parent.mkdir(parents=True, exist_ok=True)
                    with _damage_reported(archive), open_entry() as f:
                        files.write(into / name, f)
                    bar.update(1)


def _there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _entries(archive: Path) -> Iterator[tuple[str, int, Callable[[], BinaryIO]]]:
    for name, size, open_entry in _files(archive):
        # macOS packs what its Finder knows of a file beside it, under a name that is otherwise the file's own.
        path = PurePosixPath(name)
        if "__MACOSX" not in path.parts and not path.name.startswith("._"):
            yield name, size, open_entry


def _files(archive: Path) -> Iterator[tuple[str, int, Callable[[], BinaryIO]]]:
    with _damage_reported(archive):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as z:
                for info in z.infolist():
                    if not info.is_dir():
                        yield info.filename, info.file_size, lambda info=info: z.open(info)
        else:
            with tarfile.open(archive) as t:
                for member in t:
                    if member.isfile():
                        yield member.name.removeprefix("./"), member.size, lambda member=member: t.extractfile(member)


@contextmanager
def _damage_reported(archive: Path):
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as e:
        raise UserError(f"{archive} is truncated or damaged ({e}); get it again") from None
    except OSError as e:
        if e.errno is not None:
            raise
        raise UserError(f"{archive} is truncated or damaged ({e}); get it again") from None  # gzip's BadGzipFile
    except RuntimeError as e:
        if "password" not in str(e):
            raise
        raise UserError(f"{archive} is encrypted; unpack it with its owner's password and give the folder") from None
