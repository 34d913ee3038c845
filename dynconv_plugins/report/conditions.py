"""Under which conditions the runs of one task were made, where these differ: numbers are comparable under one alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..study.hosts import CONTINUES
from .records import DONE, Task
from .sheet import listed
from .unite import held, parts

Record = Mapping[str, Any]


def differing(task: Task) -> list[str]:
    """A sentence for each condition in which the finished runs of a task differ."""
    done = [c.record for c in task.cells if c.status == DONE]
    made = []
    for what, get in (
        ("recipe", lambda r: r.get("recipe")),
        ("options", lambda r: r.get("options")),
        ("data", lambda r: parts(r.get("data") or {})),
        ("what the data hold", lambda r: held(r.get("data") or {})),
    ):
        seen = list(dict.fromkeys(str(get(r)) for r in done if get(r) is not None))
        if len(seen) > 1:
            made.append(f"Its cells differ in {what} ({'; '.join(seen)}): compare with care.")
    made += _by_model(task, "git commit", "at", _commits)
    dirty = sum(bool((r.get("git") or {}).get("dirty")) for r in done)
    if dirty:
        made.append(f"{dirty} of its {len(done)} runs were made with changes that were not committed.")
    made += _by_model(task, "the machine that trained them", "on", lambda r: machine(r.get("machine")))
    versions = [r["versions"] for r in done if isinstance(r.get("versions"), dict)]
    changed = [k for k in dict.fromkeys(k for v in versions for k in v) if len({str(v.get(k)) for v in versions}) > 1]
    made += _by_model(task, "versions", "with", lambda r: _versions(r, changed))
    for model in task.models.values():
        kinds = {str((r.get("where"), r.get("arguments"))) for c in model.cells.values() if (r := c.record)}
        if len(kinds) > 1:
            made.append(f"The runs of {task.name_of(model)} differ in their arguments: compare with care.")
    return made


def _by_model(task: Task, what: str, how: str, get: Callable[[Record], str | None]) -> list[str]:
    """Which models were made how, if not all alike: whole arms that differ are the worst."""
    found: dict[tuple[str, ...], list[str]] = {}
    for model in task.ordered():
        told = (get(c.record) for c in model.cells.values() if c.status == DONE)
        if kinds := tuple(dict.fromkeys(filter(None, told))):
            found.setdefault(kinds, []).append(task.name_of(model))
    if len({kind for kinds in found for kind in kinds}) < 2:
        return []
    if len(found) == 1:
        return [f"The runs of each model differ in {what} ({_several(next(iter(found)))}): compare with care."]
    told = "; ".join(f"{listed(names)} {how} {_several(kinds)}" for kinds, names in found.items())
    return [f"Its models differ in {what} ({told}): compare with care."]


def _several(kinds: tuple[str, ...]) -> str:
    # What has commas in it is not to be listed with commas.
    return " and ".join(kinds) if any("," in kind for kind in kinds) else listed(kinds)


def _commits(record: Record) -> str | None:
    """The commits a run was made by: several if it was continued by another."""
    earlier = record.get("earlier") or () if record.get("host") in CONTINUES else ()
    states = [r.get("git") or {} for r in (*earlier, record)]
    return " then ".join(dict.fromkeys(str(s["commit"])[:7] for s in states if s.get("commit"))) or None


def machine(of: Any) -> str | None:
    """A machine in words: ``"AMD EPYC, 2 cores, Linux x86_64"``; None where nothing is known of it."""
    if not isinstance(of, dict):
        return None
    return ", ".join(f"{v} cores" if k == "cores" else str(v) for k, v in of.items() if v) or None


def _versions(record: Record, changed: list[str]) -> str | None:
    """The versions of the libraries that are not the same everywhere."""
    versions = record.get("versions")
    if not isinstance(versions, dict) or not changed:
        return None
    return ", ".join(f"{k} {versions[k]}" if versions.get(k) else f"no {k}" for k in changed)
