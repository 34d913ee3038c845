"""Gets official archives through torchvision, which brings the checksum and the progress bar."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError, require
from . import files

FOLDER = ".download"
TIMEOUT = 30  # seconds without an answer; without it, a network that swallows packets would hang for ever


def fetch(url: str, md5: str, out: Path) -> Path:
    """Returns the archive in ``out/.download``, downloaded unless it is there already.

    Args:
        url: Where it is.
        md5: Its checksum.
        out: The folder that is being prepared.

    Raises:
        UserError: If it cannot be had, in a line that says what to place where, or its checksum is wrong.
    """
    archive = out / FOLDER / url.rpartition("/")[2]
    verified = archive.with_name(archive.name + ".md5")
    if archive.is_file() and verified.is_file():
        return archive
    require("torchvision", extra="timm")
    from torchvision.datasets.utils import check_md5, download_url

    if archive.is_file():  # placed there by hand
        if not check_md5(archive, md5):
            raise UserError(f"{archive} does not have the checksum {md5} of {url}; delete it, or give it as SOURCE")
        files.write(verified, f"{md5}  {archive.name}\n")
        return archive
    part = archive.with_name(archive.name + ".part")
    try:
        with time_limited():
            download_url(url, archive.parent, part.name, md5)
        os.replace(part, archive)
        files.write(verified, f"{md5}  {archive.name}\n")
    except RuntimeError:
        raise UserError(f"{url} does not have the checksum {md5}; try again, or get it from another place") from None
    except OSError as e:  # URLError and time-outs are among them
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise UserError(unreachable(url, e, f"{archive.name} as {archive} and run the command again")) from None
    finally:
        part.unlink(missing_ok=True)
        for folder in (archive.parent, out):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    return archive


def unreachable(url: str, why: Exception | str, place: str) -> str:
    """Returns the line for a failed download: what could not be reached, and what to place where instead."""
    why = getattr(why, "reason", None) or why
    return f"cannot reach {url} ({why}); get it elsewhere, place {place}"


@contextmanager
def time_limited() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
