"""The page of operators is what its command writes, and has a picture for each registered one."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("timm")
pytest.importorskip("matplotlib")
pytest.importorskip("fvcore")

import dynconv_plugins as dc
from benchmarks.operator_page import page
from benchmarks.operator_pictures import DRAW
from benchmarks.operator_texts import ENTRIES

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_operator_has_an_entry_and_a_picture():
    names = dc.registry.names()
    assert set(ENTRIES) == set(DRAW) == set(names)
    for name in names:
        assert (DOCS / "img" / "operators" / f"{name}.png").is_file(), name


def test_the_page_is_what_its_command_writes():
    """After a change: python -m benchmarks.operator_page."""
    assert (DOCS / "operators.md").read_text() == page()
