"""Two studies in one folder: the data are prepared once, costs are measured alone, and cells keep to their inputs."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from studies import IMAGES, MASKS, SERIES, write_plan

from dynconv_plugins.errors import UserError
from dynconv_plugins.study import cells, costing, execute, plan, process, provenance, schedule
from dynconv_plugins.study.turns import turn


def made(path: Path, out: Path, said: list[str]) -> schedule.Schedule:
    return schedule.make(plan.load(path), out, {}, said.append)


def test_one_after_the_other(tmp_path: Path) -> None:
    order, said, inside = [], [], threading.Event()

    def first() -> None:
        with turn(tmp_path / "x" / ".lock", said.append, "is first"):
            inside.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with turn(tmp_path / "x" / ".lock", said.append, "is first"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"] and said == ["waiting for another study, which is first"]


@pytest.mark.parametrize("task", [IMAGES, MASKS, SERIES], ids=["images", "masks", "series"])
def test_the_data_are_prepared_once(tmp_path: Path, task: dict) -> None:
    path, said = write_plan(tmp_path / "p.yaml", a={**task, "models": ["static"]}), [[], [], []]
    alone = made(path, tmp_path / "alone", said[0])
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda each: made(path, tmp_path / "out", each), said[1:]))
    assert not alone.troubles and not both[0].troubles and not both[1].troubles
    [expected] = [record["inputs"] for record in alone.records.values()]
    assert [record["inputs"] for one in both for record in one.records.values()] == [expected] * 2
    assert sum("waiting for another study, which prepares the data of a" in line for line in said[1] + said[2]) == 1


def test_a_cell_of_other_inputs_is_nobodys_result(tmp_path: Path) -> None:
    path, changed = (
        write_plan(tmp_path / f"{n}.yaml", a={**SERIES, "options": {"epochs": n, "batch_size": 8}}) for n in (1, 50)
    )
    first = made(path, tmp_path / "out", [])
    [cell] = first.cells
    with process.claimed(cell.folder):  # it runs
        second = made(changed, tmp_path / "out", [])
        assert second.status[cell.key] == "waiting"
        with pytest.raises(process.Busy):
            execute.run_cell(str(cell.folder), inputs=second.records[cell.key]["inputs"])
        cells.update(cell.folder, status="done")
        cells.write(cell.folder, {"score": 0.5}, cells.METRICS)
    with pytest.raises(UserError, match="belongs to another study with other inputs"):
        execute.run_cell(str(cell.folder), inputs=second.records[cell.key]["inputs"])
    assert execute.run_cell(str(cell.folder), inputs=first.records[cell.key]["inputs"]) == "done"


def test_what_failed_for_the_other_one_has_failed(tmp_path: Path) -> None:
    [cell] = made(write_plan(tmp_path / "p.yaml", a=SERIES), tmp_path / "out", []).cells
    cells.update(cell.folder, status="failed", error="of something", command=["false"])
    assert execute.run_cell(str(cell.folder), waited=True) == "failed"
    assert cells.read(cell.folder)["error"] == "of something", "it has not been run again"
    assert execute.run_cell(str(cell.folder)) == "failed"
    assert cells.read(cell.folder)["error"] == "exit code 1: no output"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A study's folder with one finished cell."""
    [cell] = made(write_plan(tmp_path / "p.yaml", a=SERIES), tmp_path / "out", []).cells
    cells.update(cell.folder, status="done")
    cells.write(cell.folder, {"score": 0.5}, cells.METRICS)
    return cell.folder


def test_costs_are_not_measured_while_the_other_one_trains(trained: Path, tmp_path: Path) -> None:
    other, said = tmp_path / "out" / "b" / "odconv" / "seed0", []
    cells.write(other, {"inputs": "", "status": "running"})
    with process.claimed(other):
        assert costing.measure(tmp_path / "out", ["a"], 1, said.append) == {}
    assert said == ["a: costs are not measured while b/odconv/seed0 is trained; the same command does it later"]
    assert not (tmp_path / "out" / "a" / "costs.json").exists()


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (json.dumps({"models": {"static": {}}, "machine": "here"}), True),
        (json.dumps({"models": {"static": {}}, "machine": "another"}), False),
        (json.dumps({"models": {"odconv": {}}, "machine": "here"}), False),
        (json.dumps({"models": None, "machine": "here"}), False),
        ("\udcff\udcfe", False),
        ("{", False),
    ],
)
def test_costs_that_are_not_this_machines_are_measured_again(
    trained: Path, tmp_path: Path, monkeypatch, text: str, known: bool
) -> None:
    monkeypatch.setattr(provenance, "machine", lambda: "here")
    (tmp_path / "costs.json").write_bytes(text.encode(errors="surrogateescape"))
    assert costing.costed(tmp_path / "costs.json", {"static": trained}) is known
