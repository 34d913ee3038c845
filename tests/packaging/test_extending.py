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
        "tests/engine/definitions.py",
        "tests/engine/test_operators.py",
        "tests/mmseg/test_configs.py",
    }
