"""docs/results.md: what its summary says stands in the reports that it names."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w×]|\.\d)")  # also before a full stop


def rows() -> list[tuple[str, list[Path]]]:
    """What was measured, and the reports beside it, by row of the summary."""
    summary = (DOCS / "results.md").read_text().partition("## What was asked for")[2].partition("\n## ")[0]
    table = [line for line in summary.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [line.strip("| ").split(" | ") for line in table]
    made = []
    for _, measured, where in cells[1:]:
        reports = [DOCS / link for link in re.findall(r"\]\(([^)]+)\)", where)]
        assert all(path.is_file() for path in reports), where
        made.append((measured, reports))
    return made


def scores(report: Path) -> list[dict[str, str]]:
    """The scores of each task of a report to one decimal, by model, in small letters."""
    tasks = []
    for path in sorted((report.parent / "csv").glob("*-results.csv")):
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        (column,) = lines[0].keys() & {"accuracy (%)", "mIoU (%)"}
        tasks.append({line["Model"].lower(): f"{float(line[column]):.1f}" for line in lines})
    return tasks


NETWORKS = {name.lower(): name.lower() for name in ("FCN", "ResNet", "InceptionTime", "Net1", "Net2", "FPN")}
NETWORKS |= {"deeplabv3+": "deeplabv3plus"}
MODEL = r"static|odconv 4x|odconv|orconv|condconv|dyconv|fdconv|dcd|a2d2c\+|(?:global|local) soft|hard"
NAMED = rf"(?<!\w)(?P<network>{'|'.join(map(re.escape, NETWORKS))})(?!\w)"
SAID = re.compile(rf"(?i){NAMED}|\b(?P<model>{MODEL})(?:,| has)? (?P<score>\d+\.\d)\b")
PAIR = re.compile(r"(?<![+\d.])(\d+\.\d) and (\d+\.\d)\b")


def said(measured: str) -> list[tuple[str, str]]:
    """Models and scores; a model is of the network that was named last."""
    network, found = "", []
    for match in SAID.finditer(measured):
        if match["network"]:
            network = NETWORKS[match["network"].lower()] + " "
        else:
            found.append((network + match["model"].lower(), match["score"]))
    return found


@pytest.mark.parametrize("row", range(len(rows())))
def test_scores_are_those_of_their_models(row: int) -> None:
    """Of the same network, and both of a pair are of the same recipe."""
    measured, reports = rows()[row]
    tasks = [task for report in reports for task in scores(report)]
    strange = [pair for pair in said(measured) if not any(task.get(pair[0]) == pair[1] for task in tasks)]
    if "static and ODConv:" in measured:
        pairs = {(task["static"], task.get("odconv")) for task in tasks}
        strange += [pair for pair in PAIR.findall(measured) if pair not in pairs]
    assert not strange, f"{measured}: in none of the reports"


def test_what_the_summary_says_is_found() -> None:
    assert sum(len(said(measured)) for measured, _ in rows()) >= 15
    assert said("FCN: static 85.5, hard, 73.9. ResNet: ODConv 4x has 1.0") == [
        ("fcn static", "85.5"), ("fcn hard", "73.9"), ("resnet odconv 4x", "1.0")
    ]  # fmt: skip
    assert NUMBER.findall("24.5. 1.2.3, 4x5.6, 7.8×") == ["24.5"]


@pytest.mark.parametrize("row", range(len(rows())))
def test_numbers_are_those_of_the_reports(row: int) -> None:
    measured, reports = rows()[row]
    told = "\n".join(report.read_text() for report in reports)
    strange = [number for number in NUMBER.findall(measured) if number not in NUMBER.findall(told)]
    assert not strange, f"{measured}: in none of the reports"


def test_there_is_a_summary() -> None:
    assert len(rows()) >= 4 and all(NUMBER.search(measured) or "not run" in measured for measured, _ in rows())
