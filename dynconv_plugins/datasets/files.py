"""Writing that never leaves a half-written file, and links."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError


def write(path: Path, content: bytes | str | BinaryIO) -> None:
    """Writes a file under a temporary name and renames it; on any failure nothing is left.

    Raises:
        OSError: With `path` as its file name, e.g. when the disk is full.
    """
    # A name of its own: another process may be writing the same file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as f:
            if isinstance(content, str):
                f.write(content.encode())
            elif isinstance(content, bytes):
                f.write(content)
            else:
                shutil.copyfileobj(content, f, 1 << 20)
        os.replace(part, path)
    except BaseException as e:
        part.unlink(missing_ok=True)
        if isinstance(e, OSError) and e.errno is not None and e.filename is None:
            e.filename = str(path)
        raise


def link(target: Path, at: Path, final: Path, root: Path) -> None:
    """Links `at`, which will be moved to `final`, to `target`.

    The link is relative when `target` lies within `root`, so that `root` can be moved, and absolute otherwise.
    """
    text = os.path.relpath(target, final.parent) if target.is_relative_to(root) else target
    try:
        os.symlink(text, at)
    except OSError as e:
        if e.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise UserError(f"the file system of {root} has no symbolic links; choose an --out on another") from None
        raise


def listing(root: Path) -> list[tuple[str, int, int]]:
    """Returns (relative path, size, mtime in ns) of every file below `root`, or of `root` itself, sorted."""
    if root.is_file():
        found = root.stat()
        return [(root.name, found.st_size, found.st_mtime_ns)]
    rows = []
    folders = [str(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                elif entry.is_file():
                    found = entry.stat()
                    rows.append((os.path.relpath(entry.path, root), found.st_size, found.st_mtime_ns))
    return sorted(rows)
