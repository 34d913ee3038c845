"""``records.zip``: what a report was made from, weights and logs apart, so that it outlives the study's folders."""

from __future__ import annotations

import errno
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..study import cells as layout
from .collect import COSTS, PLAN
from .places import placeless
from .records import DAMAGED, MISSING, Cell, Study

ARCHIVE = "records.zip"
PREDICTIONS = "predictions.npz"
# Nothing else is unpacked: a folder of a run would be loaded, and its configuration executed.
_MEMBER = re.compile(
    r"[^/]+/(study\.yaml|[^/]+/costs\.json|[^/]+/[^/]+/[^/]+/(cell\.json|metrics\.json|predictions\.npz))"
)
_DATE = (1980, 1, 1, 0, 0, 0)  # the same records make the same file
# What an unfinished run has taken is lost with its checkpoints; that it was begun is not.
_OF_A_RUN = ("trained", "seconds", "processor_seconds", "attempts", "earlier", "started", "memory_mb")


def pack(study: Study, path: Path) -> None:
    """Writes plan, costs, records and metrics of a study, in the folders they have there.

    Args:
        study: As `collect` read it.
        path: The file.
    """
    entries: dict[str, bytes] = {}
    names = _names({cell.folder.parents[2]: None for cell in study.cells if cell.record or cell.status == DAMAGED})
    for root, name in names.items():
        if (root / PLAN).is_file():
            entries[f"{name}/{PLAN}"] = placeless((root / PLAN).read_text(encoding="utf-8")).encode()
        for task in sorted({cell.task for cell in study.cells}):
            if (root / task / COSTS).is_file():
                entries[f"{name}/{task}/{COSTS}"] = (root / task / COSTS).read_bytes()
    for cell in (c for c in study.cells if c.record or c.status == DAMAGED):
        place = f"{names[cell.folder.parents[2]]}/{cell.key}"
        entries[f"{place}/{layout.CELL}"] = json.dumps(_kept(cell), indent=1).encode() + b"\n"
        for file in (layout.METRICS, PREDICTIONS) if cell.metrics is not None else ():
            if (cell.folder / file).is_file():
                entries[f"{place}/{file}"] = (cell.folder / file).read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(entries.items()):
            file.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)


def _names(roots: Mapping[Path, Any]) -> dict[Path, str]:
    """A name for each folder, its own where no other has it."""
    made: dict[Path, str] = {}
    for root in roots:
        own = root.resolve().name
        free = (own if n == 1 else f"{own}-{n}" for n in range(1, len(roots) + 1))
        made[root] = next(name for name in free if name not in made.values())
    return made


def _kept(cell: Cell) -> dict[str, Any]:
    if cell.metrics is not None:
        return dict(cell.record)
    kept = {k: v for k, v in cell.record.items() if k not in _OF_A_RUN} | {"begun": cell.status != MISSING}
    # Files that cannot be read are not kept: what was wrong with them is.
    return {"inputs": "", **kept, "status": DAMAGED, "error": cell.why} if cell.status == DAMAGED else kept


def unpacked(runs: Sequence[Path], scratch: Path) -> dict[Path, Path]:
    """Replaces each archive among `runs` by the study's folders that it holds.

    Args:
        runs: Folders and archives.
        scratch: An empty folder to unpack into.

    Returns:
        Folders, and which of `runs` each is from.

    Raises:
        UserError: If a file is no archive of this kind, or damaged.
    """
    found: dict[Path, Path] = {}
    for number, run in enumerate(runs):
        if not run.is_file():
            found[run] = run
            continue
        into = scratch / str(number)
        try:
            with zipfile.ZipFile(run) as file:
                file.extractall(into, [name for name in file.namelist() if _MEMBER.fullmatch(name)])
        except Exception as e:  # a damaged archive fails in many ways
            if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            told = " ".join(str(e).split()) or type(e).__name__
            raise UserError(f"{run} is neither a study's folder nor the {ARCHIVE} of a report ({told})") from None
        folders = sorted(into.iterdir()) if into.is_dir() else []
        if not folders:
            raise UserError(f"{run} holds no study")
        found |= dict.fromkeys(folders, run)
    return found
