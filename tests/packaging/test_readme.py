"""What the README shows is what runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README, USING = ((ROOT / name).read_text() for name in ("README.md", "docs/using.md"))
USE = README.partition("\n## Use\n")[2].partition("\n## Data\n")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


def environment() -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    env = {k: v for k, v in os.environ.items() if k != "DYNCONV_DATA"}
    return env | {"PYTHONPATH": str(ROOT), "PATH": scripts + os.pathsep + env.get("PATH", "")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples' relative paths mean what they mean in the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "mmseg_configs").symlink_to(ROOT / "mmseg_configs")
    for line in blocks(USE, "bash")[0].splitlines():
        subprocess.run(line, shell=True, check=True, cwd=folder, env=environment(), timeout=300)
    return folder


def links(page: Path, text: str) -> list[str]:
    """Targets of a page's links that are not there: files, and headings in them."""
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, part = target.partition("#")
        to = page.parent / file if file else page
        if "://" not in target and not (to.exists() and (not part or part in headings(to))):
            missing.append(target)
    return missing


def headings(page: Path) -> set[str]:
    """Names that GitHub gives a page's headings."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_links_and_pictures_are_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert not links(page, page.read_text()), page
    assert "](docs/" in README


@pytest.mark.parametrize("target", ["docs/nothere.md", "docs/nothere.md#part", "docs/using.md#nothere", "#nothere"])
def test_a_dead_link_is_found(target: str) -> None:
    assert links(ROOT / "README.md", f"[a page]({target}), [another](docs/using.md#temperature)") == [target]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(
    ("active", "folder"),
    [
        ({}, ROOT / ".venv"),
        ({"VIRTUAL_ENV": "/mine"}, "/mine"),
        ({"CONDA_PREFIX": "/conda", "CONDA_DEFAULT_ENV": "mine"}, "/conda"),
        ({"CONDA_PREFIX": "/conda", "CONDA_DEFAULT_ENV": "base"}, ROOT / ".venv"),
    ],
)
def test_make_takes_the_active_environment(active: dict[str, str], folder: str | Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV" and not k.startswith("CONDA")}
    command = ["make", "--dry-run", "--always-make", "lint"]
    done = subprocess.run(command, cwd=ROOT, env=env | active, capture_output=True, text=True, check=True)
    assert f"{folder}/bin/python -m ruff check ." in done.stdout


def test_the_first_screen_says_what_to_type() -> None:
    first = README.splitlines()[:30]
    assert "make demo" in "\n".join(first) and "make test" in "\n".join(first)
    assert len(README.splitlines()) <= 200


# Each in a process of its own that has imported what is slow to import: an example must name whatever else it uses.
RUN = """
import json, os, sys, traceback
import timm, torch, torchvision
failed = []
for number, code in enumerate(json.load(sys.stdin)):
    child = os.fork()
    if not child:
        try:
            exec(compile(code, f"example {number}", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(number)
sys.exit(f"failed: {failed}" if failed else 0)
"""


def test_python_examples_run(checkout: Path) -> None:
    for module in ("timm", "tsai", "torchvision", "fvcore"):
        pytest.importorskip(module)
    examples = blocks(README, "python") + blocks(USING, "python")
    assert len(examples) == 9
    words = [sys.executable, "-W", "ignore", "-c", RUN]
    done = subprocess.run(
        words, input=json.dumps(examples), cwd=checkout, env=environment(), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_shell_examples_run(checkout: Path) -> None:
    pytest.importorskip("mim")
    pytest.importorskip("tsai")
    script = "set -e\n" + "".join(blocks(USE, "bash"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=checkout, env=environment(), capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
