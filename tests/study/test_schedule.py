"""What a study compares with what lies in its folder, and how long it says the rest will take."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from studies import IMAGES, MASKS, SERIES, write_plan

from dynconv_plugins.errors import UserError
from dynconv_plugins.study import cells, costs, hosts, live, plan, pool, process, schedule
from dynconv_plugins.study.estimate import Estimates


def made(folder: Path, **tasks: dict) -> schedule.Schedule:
    return schedule.make(plan.load(write_plan(folder / "p.yaml", **tasks)), folder / "out", {}, lambda line: None)


def test_what_a_named_file_holds_is_an_input(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    task = {**IMAGES, "options": {**IMAGES["options"], "initial_checkpoint": str(weights)}}
    inputs = []
    for content in ("one", "another", "one"):
        weights.write_text(content)
        inputs.append([r["inputs"] for r in made(tmp_path, a=task).records.values()])
    assert inputs[0] == inputs[2] != inputs[1]


def test_a_named_file_that_is_gone_costs_no_result(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    task = {**IMAGES, "models": ["static", "odconv"]}
    task |= {"options": {**IMAGES["options"], "initial_checkpoint": str(weights)}}
    assert made(tmp_path, a=task).troubles == {"a": f"initial_checkpoint {weights} is not there"}
    weights.write_text("one")
    first = made(tmp_path, a=task).cells[0].folder
    cells.update(first, status="done", files={})  # as before they were written down
    cells.write(first, {"score": 0.5}, cells.METRICS)
    assert made(tmp_path, a=task).status["a/static/seed0"] == "done"
    unused = tmp_path / "out/a/odconv"
    shutil.rmtree(unused)  # as elsewhere, where only what was finished has arrived
    weights.unlink()
    again = made(tmp_path, a=task)
    assert again.status == {"a/static/seed0": "done"} and "is not there" in again.troubles["a"]
    assert cells.read(first, cells.METRICS) == {"score": 0.5} and not unused.exists()
    assert [c.key for c in again.blocked] == ["a/odconv/seed0"]
    cells.update(first, status="waiting")  # as one that an archive brought along, whose weights it left behind
    assert made(tmp_path, a=task).status == {} and cells.read(first)["status"] == "waiting"
    cells.update(first, status="done")
    weights.write_text("another")
    assert made(tmp_path, a=task).status["a/static/seed0"] == "waiting", "that is another input"


def test_changed_samples_are_changed_inputs(tmp_path: Path) -> None:
    """Of the same names, number and sizes: a study may not take what was trained on others for its result."""
    tasks = {"images": IMAGES, "masks": MASKS, "series": SERIES}
    first = made(tmp_path, **tasks)
    for cell in first.cells:
        cells.update(cell.folder, status="done")
        cells.write(cell.folder, {"score": 0.5}, cells.METRICS)
    assert set(made(tmp_path, **tasks).status.values()) == {"done"}

    data = {task: next((tmp_path / "out/data" / task).glob("*/diatoms")) for task in tasks}
    image, other = sorted((data["images"] / "tiny-imagenet-200/train").rglob("*.JPEG"))[:2]
    image.write_bytes(other.read_bytes())
    mask, other = sorted((data["masks"] / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"))[:2]
    mask.write_bytes(other.read_bytes())
    table = next(data["series"].rglob("Diatoms_TRAIN.tsv"))
    labels, values = zip(*(line.split("\t", 1) for line in table.read_text().splitlines()), strict=True)
    rotated = zip(labels[1:] + labels[:1], values, strict=True)
    table.write_text("".join(f"{label}\t{value}\n" for label, value in rotated))

    again = made(tmp_path, **tasks)
    assert set(again.status.values()) == {"waiting"}
    assert all("its inputs changed (what the data hold)" in note for note in again.notes) and len(again.notes) == 3


def test_runs_of_earlier_versions_count(tmp_path: Path) -> None:
    """They did not write down what their data held."""
    [cell] = made(tmp_path, a=SERIES).cells
    data = cells.read(cell.folder)["data"]
    del data["contents"]
    cells.update(cell.folder, status="done", data=data)
    cells.write(cell.folder, {"score": 0.5}, cells.METRICS)
    assert made(tmp_path, a=SERIES).status == {cell.key: "done"}
    assert cells.read(cell.folder)["data"]["contents"], "from now on it is known"


def test_other_settings_are_prepared_in_another_place(tmp_path: Path) -> None:
    """A study may be training on these, while a second one, or a dry run, looks at those."""
    places = []
    for holdout in (0.2, 0.4, 0.2):
        [record] = made(tmp_path, a={**IMAGES, "data": {**IMAGES["data"], "holdout": holdout}}).records.values()
        places.append(Path(record["data"]["path"]))
    assert places[0] == places[2] != places[1]
    assert [len(list((p / "val").rglob("*.*"))) for p in places[:2]] == [4, 8]


@pytest.mark.parametrize(("given", "batch"), [(SERIES, "32"), (IMAGES, None), (SERIES, 0), (SERIES, True)])
def test_a_batch_of_the_wrong_kind_is_a_line(tmp_path: Path, given: dict, batch: object) -> None:
    done = made(tmp_path, a={**given, "options": {**given["options"], "batch_size": batch}}, b=SERIES)
    assert done.troubles == {"a": f"batch_size is a positive whole number, not {batch!r}"}
    assert all(cell.task.name == "b" for cell in done.cells)


def test_runs_with_other_inputs_tell_nothing_of_the_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Estimates, "_time", lambda self, cell: 77.0)
    [cell] = (first := made(tmp_path, a=SERIES)).cells
    cells.update(cell.folder, status="done", seconds=5.0)
    assert Estimates(1, first.cells, first.records).of(cell) == (5.0, "measured before")
    again = {key: {**record, "inputs": "others"} for key, record in first.records.items()}
    assert Estimates(1, first.cells, again).of(cell)[0] == 77.0


def test_recipes_of_mmseg_count_by_what_they_say(tmp_path: Path) -> None:
    host = hosts.get("mmseg")
    assert json.dumps(host.recipe("study")) != json.dumps(host.recipe("modern"))
    assert "100" in json.dumps(host.recipe("modern")) and "BATCH" in host.recipe("modern")
    with pytest.raises(UserError, match="no recipe strong: modern, study|no recipe strong: study, modern"):
        host.recipe("strong")


def test_memory_is_the_networks(tmp_path: Path) -> None:
    """Not what its first call makes and keeps, nor what torch takes for each thread."""
    [record] = made(tmp_path, a={**IMAGES, "models": ["a2d2c"]}).records.values()
    model, before = hosts.get("timm").build(record).eval(), torch.get_num_threads()
    found = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        found.append(costs._memory(model, record))
    torch.set_num_threads(before)
    assert found[0] == found[1]


def test_fewer_cells_than_jobs_get_more_threads_each(tmp_path: Path) -> None:
    seen = []

    def run(folder: str, threads: int, *rest: object, **more: object) -> str:
        seen.append(threads)
        return "done"

    todo = made(tmp_path, a={**SERIES, "models": ["static", "odconv"]})
    board = live.Board(todo.cells, todo.status, Console(file=io.StringIO()))
    assert pool.run(todo.cells, jobs=16, threads=8, board=board, execute=run) and seen == [4, 4]


def test_a_network_more_or_less_keeps_what_was_trained(tmp_path: Path) -> None:
    """The folders of a plan with one network do not name it."""
    one, several = ({**SERIES, "networks": names} for names in (["Net1"], ["Net1", "FCN"]))
    for first, then in ((one, several), (several, one)):
        folder = tmp_path / str(len(first["networks"]))
        for cell in made(folder, a=first).cells:
            cells.update(cell.folder, status="done")
            cells.write(cell.folder, {"score": 0.5}, cells.METRICS)
        again = made(folder, a=then)
        assert not again.notes
        done = [cell.network for cell in again.cells if again.status[cell.key] == "done"]
        assert done == ["Net1"] and len({cell.folder for cell in again.cells}) == len(then["networks"])


def test_what_another_study_runs_comes_last(tmp_path: Path, monkeypatch, capsys) -> None:
    """And is taken over if that one has left it."""
    monkeypatch.setattr(pool, "LOOK", 0.1)
    todo = made(tmp_path, a={**SERIES, "models": ["static", "odconv"]})
    ran = []

    def run(folder: str, *rest: object, **more: object) -> str:
        ran.append(Path(folder).parent.name)
        if "static" in folder and len(ran) < 5:
            raise process.Busy(f"{folder} is being run by another study")
        return "done"

    board = live.Board(todo.cells, todo.status, Console(width=200))
    assert pool.run(todo.cells, jobs=1, threads=1, board=board, execute=run)
    assert ran == ["static", "odconv", *["static"] * (len(ran) - 2)] and len(ran) == 5
    assert set(todo.status.values()) == {"done"} and not board.troubles
    said = capsys.readouterr().out
    assert said.count("is being run by another study; its result is waited for") == 1 and said.count("started") == 2


@pytest.mark.parametrize(
    ("jobs", "visible", "expected"),
    [
        (1, None, ["0123"]),
        (2, None, ["02", "13"]),
        (6, None, ["0", "1", "2", "3", "0", "1"]),
        (2, "5,7,6,4", ["56", "74"]),
    ],
)
def test_jobs_share_the_gpus(monkeypatch, jobs: int, visible: str | None, expected: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert ["".join(share) for share in pool.shares(jobs)] == expected


def test_a_cell_sees_as_many_gpus_as_it_has_processes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pool, "shares", lambda jobs: [("0", "2"), ("1", "3")][:jobs])
    seen = {}

    def run(folder: str, threads: int, gpu: str | None, *rest: object, **more: object) -> str:
        seen[Path(folder).parent.parent.name] = gpu
        return "done"

    tasks = {f"p{n}": {**SERIES, "processes": n, "options": {"epochs": 1, "batch_size": 6}} for n in (1, 2, 3)}
    todo = made(tmp_path, **tasks)
    board = live.Board(todo.cells, todo.status, Console(file=io.StringIO()))
    assert pool.run(todo.cells, jobs=1, threads=1, board=board, execute=run)
    assert seen == {"p1": "0", "p2": "0,2", "p3": None}


@pytest.mark.parametrize("height", [16, 24, 60])
def test_what_runs_is_on_the_screen(tmp_path: Path, height: int) -> None:
    """Also of a study that is longer than the screen."""
    models = ["static", "odconv", "dcd", "dyconv", "condconv", "globalsoft", "hard", "a2d2c"]
    todo = made(tmp_path, **{name: {**SERIES, "models": models} for name in ("a", "b", "c")})
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, height=height, width=100)
    with live.Board(todo.cells, todo.status, console) as board:
        cell = next(c for c in todo.cells if c.key == "b/hard/seed0")
        board.start(cell)
        board.running[cell.key] = (cell, board.running[cell.key][1], "3 of 30  loss 1.2")
        board.refresh()
        said = screen.getvalue()
    assert "0 of 24 cells done" in said and "3 of 30  loss 1.2" in said
    lines = said.splitlines()
    assert len(lines) <= height and any("hard" in line and "0/1" in line for line in lines)
    assert (sum("0/1" in line for line in lines) == 24) == (height == 60)


@pytest.mark.parametrize(
    "task",
    [{**SERIES, "options": {"epohcs": 1}}, {**SERIES, "options": {"epoch": 1}}, {**IMAGES, "options": {"epohcs": 1}}],
)
def test_options_that_the_trainer_does_not_know_are_found_first(tmp_path: Path, task: dict) -> None:
    made_ = made(tmp_path, a=task)
    assert not made_.cells and re.search("epohcs|epoch", made_.troubles["a"]) and "\n" not in made_.troubles["a"]


def test_how_the_data_are_loaded_is_no_input(tmp_path: Path) -> None:
    inputs = [
        [r["inputs"] for r in made(tmp_path, a={**IMAGES, "options": {**IMAGES["options"], **more}}).records.values()]
        for more in ({}, {"workers": 2}, {"epochs": 2})
    ]
    assert inputs[0] == inputs[1] != inputs[2]


def test_records_know_where_the_data_are_from_anywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_plan(Path("p.yaml"), a=SERIES)
    [record] = schedule.make(plan.load(path), Path("out"), {}, lambda line: None).records.values()
    assert Path(record["data"]["path"]).is_absolute() and Path(record["data"]["path"]).is_relative_to(tmp_path)
