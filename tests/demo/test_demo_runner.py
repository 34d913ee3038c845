"""The runner, on commands that do next to nothing."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dynconv_plugins.demo.records import Cell, Curve
from dynconv_plugins.demo.runner import finished, run_all, shown

APPEND = "import pathlib; p = pathlib.Path({mark!r}); p.write_text((p.read_text() if p.exists() else '') + 'x')"


def cell(folder: Path, code: str, operator: str = "static") -> Cell:
    return Cell("images", operator, "m", folder / operator, (sys.executable, "-c", code), 1, "epoch")


def run(cells: list[Cell]) -> tuple[dict[str, float], dict[str, str], str]:
    out = io.StringIO()
    seconds, errors = run_all(cells, lambda _cell: Curve(), Console(file=out, width=200), threads=1)
    return seconds, errors, out.getvalue()


def test_a_finished_cell_is_not_run_again_unless_its_command_changed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    first = cell(tmp_path, APPEND.format(mark=str(mark)))
    assert finished(first) is None
    for _ in range(2):
        seconds, errors, said = run([first])
        assert list(seconds) == ["images/static"] and not errors
    assert mark.read_text() == "x" and "done before" in said
    run([cell(tmp_path, APPEND.format(mark=str(mark)) + " # changed")])
    assert mark.read_text() == "xx"
    run([replace(cell(tmp_path, APPEND.format(mark=str(mark)) + " # changed"), inputs="other data")])
    assert mark.read_text() == "xxx"


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "logo.png").write_text("mine")
    _, errors, _ = run([cell(tmp_path, "print()")])
    assert "holds other files; choose another --out" in errors["images/static"]
    assert (tmp_path / "static" / "logo.png").read_text() == "mine"


def test_a_failed_cell_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bad = cell(tmp_path, "import sys; print('noise'); sys.exit('error: the data is damaged')")
    seconds, errors, said = run([bad, cell(tmp_path, APPEND.format(mark=str(mark)), "odconv")])
    assert errors == {"images/static": "exit code 1: error: the data is damaged"}
    assert list(seconds) == ["images/odconv"] and mark.exists()
    assert "failed" in said and finished(bad) is None


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGKILL, "killed by SIGKILL (by a system out of memory?)"), (signal.SIGSEGV, "killed by SIGSEGV")],
)
def test_a_killed_command_is_told_as_such(tmp_path: Path, number: int, told: str) -> None:
    code = f"import os; print('epoch 3', flush=True); os.kill(os.getpid(), {int(number)})"
    _, errors, _ = run([cell(tmp_path, code), cell(tmp_path, code.replace("'epoch 3'", "''"), "odconv")])
    assert errors == {"images/static": f"{told}; its last line: epoch 3", "images/odconv": told}


def test_the_exception_of_a_command_is_told_not_that_of_its_launcher(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.check_call([sys.executable, '-c', 'raise ValueError(\"the cause\")'])"
    _, errors, _ = run([cell(tmp_path, code)])
    assert errors["images/static"] == "exit code 1: ValueError: the cause"


def test_the_command_is_shown_as_it_can_be_typed(tmp_path: Path) -> None:
    made = Cell("x", "static", "m", tmp_path, (sys.executable, "-m", "a b"), 1, "s", (("DYNCONV_DATA", "d e"),))
    assert shown(made) == "DYNCONV_DATA='d e' python -m 'a b'"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_reaches_the_command_and_keeps_what_is_finished(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    slow = f"import time, pathlib\ntry:\n pathlib.Path({str(tmp_path / 'on')!r}).touch(); time.sleep(60)\n"
    slow += f"except KeyboardInterrupt:\n pathlib.Path({str(mark)!r}).write_text('saved')"
    script = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from dynconv_plugins.demo.records import Cell, Curve\n"
        "from dynconv_plugins.demo.runner import run_all\n"
        f"root = Path({str(tmp_path)!r})\n"
        f"cells = [Cell('a', n, 'm', root / n, (sys.executable, '-c', c), 1, 's') for n, c in "
        f"(('static', 'pass'), ('odconv', {slow!r}))]\n"
        "run_all(cells, lambda cell: Curve(), Console(), 1)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (tmp_path / "on").exists():
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) != 0
    assert mark.read_text() == "saved"
    assert (tmp_path / "static" / "cell.json").exists() and not (tmp_path / "odconv" / "cell.json").exists()
