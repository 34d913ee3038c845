"""The code that docs/extending.md shows is the code that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXCERPTS = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", (ROOT / "docs" / "extending.md").read_text(), re.M | re.S)


@pytest.mark.parametrize(("file", "code"), EXCERPTS, ids=lambda value: value if value.endswith(".py") else "")
def test_excerpts_are_the_files_own_lines(file: str, code: str) -> None:
    assert code.strip() and code in (ROOT / file).read_text()


def test_every_step_is_shown() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    assert page.count("```python\n") == len(EXCERPTS), "an excerpt that does not name its file"
    assert {file for file, _ in EXCERPTS} == {
        "benchmarks/operator_pictures.py",
        "dynconv_plugins/operators/__init__.py",
        "dynconv_plugins/operators/fdconv.py",
        "dynconv_plugins/registry.py",
        "dynconv_plugins/report/names.py",
        "tests/engine/definitions.py",
        "tests/engine/test_operators.py",
        "tests/inspection/test_explain.py",
        "tests/mmseg/test_configs.py",
        "tests/mmseg/test_recipes.py",
    }


def test_every_table_that_names_the_example_is_shown() -> None:
    """So that the page does not forget one that is added later; tests of a few operators need not have a new one."""
    page = (ROOT / "docs" / "extending.md").read_text()
    tables = {
        file.relative_to(ROOT).as_posix()
        for folder in ("benchmarks", "dynconv_plugins", "timm_models", "tsai_models", "tests")
        for file in (ROOT / folder).rglob("*.py")
        if re.search(r'^ +"fdconv": ', file.read_text(), re.M)
    }
    assert {file for file in tables if file not in page} == set()
