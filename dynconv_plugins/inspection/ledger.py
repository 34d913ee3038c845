"""Counts that were made before, kept in the user's cache folder: a hundred networks take minutes to build and count."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("dynconv_plugins", "timm_models", "tsai_models", "mmseg_configs")
_HOSTS = ("torch", "timm", "tsai", "onedl-mmsegmentation", "mmsegmentation")


class Ledger:
    """Parameters and multiply-adds by model and input size, for as long as no source file and no host changes.

    Attributes:
        path: ``$XDG_CACHE_HOME/dynconv/counts.json``, by default below ``~/.cache``.
    """

    def __init__(self) -> None:
        self.path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynconv" / "counts.json"
        self.state = _state()
        self.counts: dict[str, list[int]] = {}
        # A file that is missing, damaged or of another state is none: everything is counted anew.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            stored = json.loads(self.path.read_text())
            if stored["state"] == self.state:
                self.counts = {str(k): [int(n) for n in v] for k, v in stored["counts"].items() if len(v) == 2}

    def get(self, key: str) -> tuple[int, int] | None:
        """Parameters and multiply-adds."""
        found = self.counts.get(key)
        return None if found is None else (found[0], found[1])

    def put(self, key: str, params: int, macs: int) -> None:
        """Keeps both; `write` puts them on the disk."""
        self.counts[key] = [params, macs]

    def write(self) -> None:
        """Writes the file; where nothing can be written, the next call counts again."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            part.write_text(json.dumps({"state": self.state, "counts": self.counts}))
            os.replace(part, self.path)


def _state() -> str:
    """Changes with every source file of ours and every release of a host."""
    root, made = Path(__file__).resolve().parents[2], hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            facts = path.stat()
            made.update(f"{path.relative_to(root)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    for host in _HOSTS:
        with contextlib.suppress(PackageNotFoundError):
            made.update(f"{host} {version(host)}\n".encode())
    return made.hexdigest()
