"""Writes a whole report into an empty folder."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path

from ..errors import UserError
from ..writing import write_text
from .archive import ARCHIVE, pack
from .caveats import caveats
from .looks import looks
from .markdown import markdown
from .overview import overview
from .page import render
from .records import MISSING, Study
from .sections import provenance, section
from .sheet import listed
from .studio import Studio
from .summary import Answer
from .tuned import recipes


def build(study: Study, out: Path, pictures: bool = True) -> list[Answer]:
    """Draws everything and returns the answers.

    Args:
        study: As `collect` read it.
        out: ``index.html``, ``report.md``, ``csv/``, ``img/`` and ``records.zip`` are written here.
        pictures: Whether the networks are loaded to be looked into.

    Raises:
        UserError: If no cell of any task has been started, or none can be read.
    """
    if not any(c.record for c in study.cells):
        what = "can be read" if study.tasks else "has been started"
        raise UserError(f"no cell of {' and '.join(str(f) for f in study.folders)} {what}")
    drawn = looks(m.label for t in study.tasks.values() for m in t.ordered())
    studio = Studio(out / "img")
    with warnings.catch_warnings():
        # Hosts remark on their own parts while networks are built; a report is no place for that.
        warnings.simplefilter("ignore")
        sections = [section(task, drawn, studio, pictures) for task in study.tasks.values()]
    answers = [s.answer for s in sections]
    summaries = [t for t in (recipes(list(study.tasks.values())), overview(answers)) if t is not None]
    cautions = caveats(study, {s.task.name: s.rows for s in sections})
    facts = _facts(study)
    title = listed(list(dict.fromkeys(study.names)))
    head = f"{title}: {_finished(study)}, {len(study.tasks)} task{'' if len(study.tasks) == 1 else 's'}"
    write_text(out / "index.html", render(sections, summaries, cautions, facts, study.plans, drawn, head))
    write_text(out / "report.md", markdown(sections, summaries, cautions, facts))
    for each in (*summaries, *(t for s in sections for t in s.tables)):
        write_text(out / "csv" / f"{each.name}.csv", each.csv())
    pack(study, out / ARCHIVE)
    return answers


def _finished(study: Study) -> str:
    """``"10 of 72 planned runs finished (12 begun)"``."""
    finished = sum(c.metrics is not None for c in study.cells)
    told = f"{finished} of {study.planned}{' planned' if study.plans else ''} runs finished"
    begun = sum(c.status != MISSING for c in study.cells)
    return told if finished == study.planned else f"{told} ({begun} begun)"


def _shown(folder: Path) -> str:
    """A shell makes ``~/runs`` the path of somebody's home."""
    return folder.name if folder.is_absolute() else str(folder)


def _facts(study: Study) -> list[tuple[str, str]]:
    """Where the numbers come from; what is the same for all tasks is said once."""
    made = [
        (
            "report",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, dynconv report {' '.join(map(_shown, study.folders))}",
        ),
        ("records", f"{ARCHIVE} beside this page: settings, scores and curves of every run, for 'dynconv report'"),
    ]
    by_task = {name: provenance(task) for name, task in study.tasks.items()}
    for what, title in (("git", "commit"), ("versions", "versions"), ("machine", "machine")):
        found = {name: "; or ".join(p[what]) for name, p in by_task.items() if p.get(what)}
        if len(set(found.values())) == 1:
            made.append((title, next(iter(found.values()))))
        else:
            made += [(f"{title}, {name}", text) for name, text in found.items()]
    for name, p in by_task.items():
        ended = f", the last cell finished {p['finished']}" if p.get("finished") else ""
        made.append((f"training, {name}", f"{p['trained']} of wall clock in all{ended}"))
    return made
