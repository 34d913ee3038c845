"""docs/results.md: what its summary says stands in the reports that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]|×)")


def rows() -> list[tuple[str, str]]:
    """What was measured, and the words of the reports beside it, by row of the summary."""
    summary = (DOCS / "results.md").read_text().partition("## What was asked for")[2].partition("\n## ")[0]
    table = [line for line in summary.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [line.strip("| ").split(" | ") for line in table]
    made = []
    for _, measured, where in cells[1:]:
        reports = [DOCS / link for link in re.findall(r"\]\(([^)]+)\)", where)]
        assert all(path.is_file() for path in reports), where
        made.append((measured, "\n".join(path.read_text() for path in reports)))
    return made


SAID = re.compile(r"(?i)\b(static|odconv 4x|odconv|orconv|condconv|(?:global|local) soft|hard)(?:,| has)? (\d+\.\d)\b")


@pytest.mark.parametrize("row", range(len(rows())))
def test_scores_are_those_of_their_models(row: int) -> None:
    """Some row of a table in the report names the model and has the score."""
    measured, told = rows()[row]
    table = [line.lower() for line in told.splitlines() if line.startswith("| ")]
    strange = [
        f"{name} {score}"
        for name, score in SAID.findall(measured)
        if not any(name.lower() in line and score in NUMBER.findall(line) for line in table)
    ]
    assert not strange, f"{measured}: in none of the reports"


@pytest.mark.parametrize("row", range(len(rows())))
def test_numbers_are_those_of_the_reports(row: int) -> None:
    measured, told = rows()[row]
    strange = [number for number in NUMBER.findall(measured) if number not in NUMBER.findall(told)]
    assert not strange, f"{measured}: in none of the reports"


def test_there_is_a_summary() -> None:
    assert len(rows()) >= 4 and all(NUMBER.search(measured) or "not run" in measured for measured, _ in rows())
