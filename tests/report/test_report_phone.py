"""Names on a phone: broken at spaces, hyphens, underscores and slashes alone, markers on their first line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("rich")
pytest.importorskip("yaml")

import browser

from dynconv_plugins import cli
from dynconv_plugins.report.page import parted

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium")
ENDLESS = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerk"
SCRIPT = """
const broken = [], lonely = [], out = [], seen = [];
for (const cell of d.querySelectorAll('tbody th, td:has(.marked)')) {
  const box = cell.getBoundingClientRect(), texts = d.createTreeWalker(cell, 4);
  let first = null;
  for (let t = texts.nextNode(); t; t = texts.nextNode()) {
    for (const word of t.data.matchAll(/[^\\s_/-]+/g)) {
      const range = d.createRange();
      range.setStart(t, word.index);
      range.setEnd(t, word.index + word[0].length);
      const lines = [...range.getClientRects()].filter(r => r.width);
      if (!lines.length) continue;
      first = first || lines[0];
      seen.push(word[0]);
      if (new Set(lines.map(r => Math.round(r.top))).size > 1) broken.push(word[0]);
      if (lines.some(r => r.right > box.right + 1)) out.push(word[0]);
    }
  }
  const mark = cell.querySelector('.mark');
  if (mark && first) {
    const r = mark.getBoundingClientRect(), middle = (r.top + r.bottom) / 2;
    if (middle < first.top || middle > first.bottom || r.right > first.left) lonely.push(cell.textContent.trim());
  }
}
const marks = d.querySelectorAll('.mark').length, e = d.documentElement;
return {broken, lonely, out, seen, marks, over: e.scrollWidth - e.clientWidth};
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, request) -> str:
    conftest = next(p for p in request.config.pluginmanager.get_plugins() if hasattr(p, "Fabricated"))
    root = tmp_path_factory.mktemp("runs") / "study"
    study = conftest.Fabricated(root, "phone")
    for task, host, networks in (
        ("tiny_imagenet_twenty_classes", "mmseg", ("deeplabv3plus", "fpn")),
        ("diatoms-official", "tsai", ("InceptionTime", "ResNet")),
    ):
        operators = ("static", "globalsoft", "odconv4x")
        scores = {f"{n}-{o}": [0.5 + 0.1 * k, 0.52, 0.55] for n in networks for k, o in enumerate(operators)}
        classes = ("pottedplant", "tvmonitor", ENDLESS) if host == "mmseg" else ()
        study.task(task, host, scores, networks=networks, per_class=classes)
    record = root / "tiny_imagenet_twenty_classes/deeplabv3plus-globalsoft/seed1/cell.json"
    failed = {"status": "failed", "error": "exit code 1: RuntimeError: no memory"}
    record.write_text(json.dumps(json.loads(record.read_text()) | failed))
    assert cli.run(["report", str(root), "--no-pictures"]) == 0
    return (root / "report" / "index.html").read_text()


@pytest.mark.parametrize("width", [360, 400])
def test_names_are_broken_between_words(page: str, tmp_path: Path, width: int) -> None:
    found = browser.measured(page, SCRIPT, width, tmp_path)
    assert {"seed1", "deeplabv3plus", "InceptionTime", "imagenet", "pottedplant", ENDLESS} <= set(found["seen"])
    assert set(found["broken"]) == {ENDLESS}, "what is wider than any column has to be broken somewhere"
    assert found["marks"] > 20 and found["lonely"] == []
    assert found["out"] == [] and found["over"] <= 0


def test_the_measure_sees_what_it_is_for(page: str, tmp_path: Path) -> None:
    """The rules as they once were: names broken anywhere, markers in the line."""
    style = "<style>th:first-child { overflow-wrap: anywhere !important; max-width: 4rem !important; }"
    style += " .mark { position: static; display: block } .marked { padding: 0 }</style></head>"
    found = browser.measured(page.replace("</head>", style), SCRIPT, 360, tmp_path)
    assert len(set(found["broken"])) > 2 and found["lonely"]


def test_where_a_name_may_be_broken() -> None:
    assert parted("tiny_imagenet <b>") == "tiny_<wbr>imagenet &lt;b&gt;"
    assert parted("task/model/seed0") == "task/<wbr>model/<wbr>seed0"
