"""``records.zip``: what a report was made from, weights and logs apart, so that it outlives the study's folders."""

from __future__ import annotations

import json
import shlex
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..study import cells as layout
from .commands import command
from .records import Cell, Study

ARCHIVE = "records.zip"
PLAN, COSTS, PREDICTIONS = "study.yaml", "costs.json", "predictions.npz"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same records make the same file


def pack(study: Study, path: Path) -> None:
    """Writes plan, costs, records and metrics of a study, in the folders they have there.

    Args:
        study: As `collect` read it.
        path: The file.
    """
    entries: dict[str, bytes] = {}
    roots = {cell.folder.parents[2]: None for cell in study.cells if cell.record}
    for root in roots:
        for file in (root / PLAN, *(root / task / COSTS for task in study.tasks)):
            if file.is_file():
                name = f"{root.resolve().name}/{file.relative_to(root)}"
                # Ratios need one machine: of two measurements that of more models counts.
                entries[name] = max(entries.get(name, b""), file.read_bytes(), key=len)
    for cell in (c for c in study.cells if c.record):
        place = f"{cell.folder.parents[2].resolve().name}/{cell.key}"
        entries[f"{place}/{layout.CELL}"] = _text(_placeless(cell))
        # Records of a cell that has no result say why.
        for name in (layout.METRICS, PREDICTIONS) if cell.metrics is not None else ():
            if (cell.folder / name).is_file():
                entries[f"{place}/{name}"] = (cell.folder / name).read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(entries.items()):
            file.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)


def _placeless(cell: Cell) -> dict[str, Any]:
    """A cell's record without the places of the machine that made it."""
    record = dict(cell.record)
    root, data = cell.folder.parents[2].resolve(), dict(record.get("data") or {})
    if record.get("command"):
        record["command"] = shlex.split(command(cell))
    where = Path(data.get("path") or "")
    if where.is_absolute():
        inside = where.is_relative_to(root)
        data["path"] = str(where.relative_to(root.parent) if inside else Path("$DYNCONV_DATA") / where.name)
        record["data"] = data
    if record.get("error"):
        record["error"] = str(record["error"]).replace(f"{root.parent}/", "")
    return record


def _text(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def unpacked(runs: Sequence[Path], scratch: Path) -> list[Path]:
    """Replaces each archive among `runs` by the study's folders that it holds.

    Args:
        runs: Folders and archives.
        scratch: An empty folder to unpack into.

    Raises:
        UserError: If a file is no archive of this kind, or damaged.
    """
    found = []
    for number, run in enumerate(runs):
        if not run.is_file():
            found.append(run)
            continue
        into = scratch / str(number)
        try:
            with zipfile.ZipFile(run) as file:
                file.extractall(into)
        except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, NotImplementedError) as e:
            raise UserError(f"{run} is neither a study's folder nor the {ARCHIVE} of a report ({_told(e)})") from None
        folders = sorted(p for p in into.iterdir() if p.is_dir())
        if not folders:
            raise UserError(f"{run} holds no study")
        found += folders
    return found


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
