"""What the demo's table says about numbers."""

from __future__ import annotations

import json
import math

import pytest

from dynconv_plugins.demo.records import Curve, Row
from dynconv_plugins.demo.table import markdown, number, numbers, points, score
from dynconv_plugins.writing import write_json


def row(operator: str = "static", **values) -> Row:
    known = {"status": "done", "score": 0.5, "params": 11_689_512, "macs": 1_814_000_000}
    known |= {"latency_ms": 20.0, "seconds": 100.0} | values
    return Row("images", operator, "resnet18", "diatoms", 160, 100, 5, "images", "python train", **known)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00k"), (11_689_512, "11.69M"), (311_800_000, "311.8M"), (1.838e9, "1.84G")],
)
def test_numbers_have_three_or_four_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_an_accuracy_comes_with_its_binomial_error_and_miou_without() -> None:
    assert row().stderr == pytest.approx(math.sqrt(0.5 * 0.5 / 100))
    assert score(row()) == "50.0% ± 5.0"
    assert row(score_name="mIoU").stderr is None
    assert score(row(score_name="mIoU")) == "50.0%"


def test_a_dynamic_row_is_compared_with_its_static_twin() -> None:
    rows = [row(), row("odconv", score=0.42, latency_ms=50.0, params=11_936_000)]
    assert points(rows[1], rows) == "-8.0", "a loss is printed as what it is"
    assert points(rows[0], rows) == ""
    assert [times for _, times in numbers(rows[1], rows)] == ["1.02x", "1.00x", "2.50x", "1.00x"]
    assert all(times == "" for _, times in numbers(rows[0], rows))


def test_a_failed_row_is_in_the_markdown_with_its_reason() -> None:
    text = markdown([row(), row("odconv", status="failed", error="exit code 2: no data", score=None)])
    assert "failed" in text.splitlines()[3]
    assert "no data" in text


def test_the_last_score_is_the_last_one_there_is() -> None:
    curve = Curve()
    assert curve.last_score() is None
    curve.add(1, 0.9, None, 0.3)
    curve.add(2, 0.8, None, None)
    assert curve.last_score() == 0.3


def test_json_is_read_by_every_reader(tmp_path) -> None:
    write_json(tmp_path / "a" / "x.json", {"x": [1.0, math.nan], "y": {"z": math.inf}})
    assert json.loads((tmp_path / "a" / "x.json").read_text()) == {"x": [1.0, None], "y": {"z": None}}
    assert not list(tmp_path.rglob("*.part"))
