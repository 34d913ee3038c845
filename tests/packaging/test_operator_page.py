"""The page of operators has an entry and a picture for each registered one."""

from __future__ import annotations

from pathlib import Path

import dynconv_plugins as dc
from benchmarks.operator_pictures import DRAW
from benchmarks.operator_texts import ENTRIES

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_operator_has_an_entry_and_a_picture():
    names = dc.registry.names()
    assert set(ENTRIES) == set(DRAW) == set(names)
    page = (DOCS / "operators.md").read_text()
    for name in names:
        assert f"\n## {name}: " in page and (DOCS / "img" / "operators" / f"{name}.png").is_file(), name
