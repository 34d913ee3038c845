"""Where a number comes from: versions, machine, git state and the command as a person would type it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..demo import machine as facts

_PLUGINS = (":/timm_models", ":/tsai_models", ":/mmseg_configs")


@cache
def versions() -> dict[str, str]:
    """Of Python, this package and what it trains with."""
    import platform

    found = {name: number for name in facts.DISTRIBUTIONS if (number := facts._version(name))}
    return {"Python": platform.python_version(), **found}


@cache
def machine() -> dict[str, Any]:
    """Processor, cores, GPU and system; nothing that identifies a person or a host."""
    import os
    import platform

    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": facts._cpu(), "cores": os.cpu_count(), "system": system, "gpu": gpu}


def git() -> dict[str, Any] | None:
    """Commit of the checkout that this package runs from, and whether it differs from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def said(*words: str) -> str:
        done = subprocess.run(("git", "-C", str(here), *words), capture_output=True, text=True, timeout=20)
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout.strip()

    try:
        if said("ls-files", "--error-unmatch", str(here / "provenance.py")) == "":
            return None
        # A new module that is not in the commit counts, a new file beside the packages does not.
        dirty = bool(
            said("status", "--porcelain", "--untracked-files=no")
            or said("ls-files", "--others", "--exclude-standard", "--full-name", f":/{here.parent.name}", *_PLUGINS)
        )
        return {"commit": said("rev-parse", "HEAD"), "dirty": dirty}
    except (OSError, subprocess.SubprocessError):
        return None


def shown(record: Mapping[str, Any]) -> str:
    """A cell's command as a person would type it, in an active environment."""
    first = Path(record["command"][0]).name
    return shlex.join(("python" if first.startswith("python") else first, *record["command"][1:]))
