"""What the README shows is what runs."""

from __future__ import annotations

import json
import os
import re
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


def test_links_and_pictures_are_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        targets = [t for t in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in t]
        missing = [t for t in targets if not (page.parent / t).exists()]
        assert not missing, page
        assert targets or page.name != "README.md"


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
