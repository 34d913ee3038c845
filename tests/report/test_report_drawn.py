"""Figures 7 and 8 on the page and in Markdown: networks of two hosts as they stand before training, in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("cv2")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytest.importorskip("jinja2")
pytest.importorskip("rich")
pytest.importorskip("yaml")
pytest.importorskip("tsai")
pytest.importorskip("mmseg")

import browser
import untrained

from dynconv_plugins import cli
from dynconv_plugins.report import grids

SERIES, IMAGES = 3, 4
OPERATORS, OF_MASKS = ["static", "localsoft", "orconv"], ["static", "localsoft"]
# A series and its map under each model, for two networks; an image, its truth, its masks, and again with its maps.
DRAWN = 2 * SERIES * (1 + len(OPERATORS))
PIXELS = IMAGES * (2 + len(OF_MASKS)) + IMAGES * (1 + len(OF_MASKS))
SCANS = 2 * 2 + 1  # of each dynamic operator in each network
BOXES = """
d.querySelectorAll('details').forEach(x => { x.open = true; });
return [...d.querySelectorAll('.tiles > div, .scan')].map(x => {
  const picture = x.matches('.scan') ? x : x.querySelector('img, svg');
  if (!picture) return null;
  const r = picture.getBoundingClientRect(), pixels = picture.tagName === 'IMG';
  const whole = pixels ? picture.complete && picture.naturalWidth > 0 : !!picture.querySelector('path');
  return {kind: x.className || picture.tagName, whole, width: r.width, height: r.height, alt: picture.alt};
});
"""
WIDE = "const e = d.documentElement; d.querySelectorAll('details').forEach(x => { x.open = true; }); "
WIDE += "return [e.scrollWidth, e.clientWidth];"


@pytest.fixture(scope="module")
def made(tmp_path_factory, request) -> Path:
    conftest = next(p for p in request.config.pluginmanager.get_plugins() if hasattr(p, "Fabricated"))
    folder = tmp_path_factory.mktemp("drawn")
    scores = {f"{n}-{o}": [0.5] for n in ("FCN", "Net1") for o in OPERATORS}
    series = untrained.series(conftest.Fabricated(folder / "series", "lines"), folder, scores, ["FCN", "Net1"])
    masks = untrained.masks(folder / "masks", ["fpn"], OF_MASKS)
    assert cli.run(["report", str(series), str(masks), "--out", str(folder / "report")]) == 0
    return folder / "report"


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    return (made / "index.html").read_text()


def figure(page: str, title: str) -> str:
    return next(f for f in re.findall(r"<figure>.*?</figure>", page, re.S) if f"<h3>{title}</h3>" in f)


def test_every_picture_is_on_the_page(page: str) -> None:
    assert "No pictures of" not in page and "cannot be" not in page and "no attention" not in page
    for network in ("FCN", "Net1"):
        assert figure(page, f"Attention maps of {network}").count('<svg role="img"') == DRAWN // 2
    assert figure(page, "Segmentations").count("<img ") == IMAGES * (2 + len(OF_MASKS))
    assert figure(page, "Attention maps").count("<img ") == IMAGES * (1 + len(OF_MASKS))
    assert page.count('class="scan"') == SCANS
    assert len(re.findall(r"<img [^>]*src=\"data:image/png;base64,[\w+/=]{100,}\"", page)) == PIXELS + SCANS
    assert all(f"attentions: {n} ORConv" in page for n in ("FCN", "Net1")) and "Rotations by position" in page


def test_every_picture_is_in_markdown(made: Path) -> None:
    links = re.findall(r"!\[[^\]]+\]\(img/([^)]+)\)", (made / "report.md").read_text())
    assert {p.name for p in (made / "img").iterdir()} == set(links)
    assert sum("-cam" in name for name in links) == DRAWN + IMAGES * (1 + len(OF_MASKS))
    assert sum("-mask" in name for name in links) == IMAGES * (2 + len(OF_MASKS))
    assert sum("-rotations" in name for name in links) == 2 and sum("-kernel-map" in name for name in links) == 3


def test_maps_are_told_apart_and_are_not_the_input(made: Path, page: str) -> None:
    assert "Grad-CAM at convblock3" in figure(page, "Attention maps of FCN")
    told = figure(page, "Attention maps of Net1")
    assert "HiResCAM at head.0. HiResCAM leaves each gradient at its position" in told and "Grad-CAM at" not in told
    assert "and the background where a network finds nothing else" in figure(page, "Attention maps")
    same = 0
    for network in ("FCN", "Net1"):
        for start in (f"{made / 'img'}/series-{network}-cam{i + 1}" for i in range(SERIES)):
            plain = Path(f"{start}-input.png").read_bytes()
            same += sum(Path(f"{start}-{network}-{o}.png").read_bytes() == plain for o in OPERATORS)
    assert same == page.count(grids.NOTHING), "a map of nothing has a line that says so"
    assert same < DRAWN / 4


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_sticks_out_and_pictures_are_large_enough(page: str, tmp_path: Path, width: int) -> None:
    content, visible = browser.measured(page, WIDE, width, tmp_path)
    assert content <= visible
    found = browser.measured(page, BOXES, width, tmp_path)
    assert len(found) == DRAWN + PIXELS + SCANS and None not in found
    assert all(f["whole"] and f["width"] >= 70 and f["height"] >= 35 for f in found), found


def coloured(path: Path, tmp_path: Path) -> list[bool]:
    """Of each segmentation and map of mmseg on a page: whether it shows anything, as the browser paints it."""
    text = path.read_text()
    script = "return [...d.querySelectorAll('.tiles > div')].filter(x => !x.querySelector('svg')).map(x => {"
    script += "const r = x.getBoundingClientRect(); return [r.left, r.top + d.defaultView.scrollY, r.width]; });"
    boxes = browser.measured(text, script, 1200, tmp_path)
    height = int(max(top for _, top, _ in boxes)) + 300
    image = np.asarray(browser.shot(path, 1200, height, tmp_path))
    parts = (image[round(y) + 3 : round(y) + 50, round(x) + 3 : round(x + w) - 3] for x, y, w in boxes)
    # Letters are dark and grey on white; pictures fill what they have.
    return [bool((part < 250).any(-1).mean() > 0.7) for part in parts]


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium")
def test_it_is_drawn_with_its_pictures(page: str, made: Path, tmp_path: Path) -> None:
    seen = coloured(made / "index.html", tmp_path)
    assert len(seen) == PIXELS and all(seen)
    # The measure itself: a page whose pictures are lost.
    lost = tmp_path / "lost.html"
    lost.write_text(re.sub(r'src="data:image/png;base64,[^"]*"', 'src="data:,"', page))
    assert not any(coloured(lost, tmp_path))


def test_a_map_of_nothing_is_told(made: Path, fabricate, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(grids, "grad_cam", lambda *_: (np.zeros(176, np.float32), 1))
    root = untrained.series(fabricate(), tmp_path, {"static": [0.5]}, ["Net1"])
    assert cli.run(["report", str(root)]) == 0
    text = (root / "report" / "report.md").read_text()
    assert text.count(f", {grids.NOTHING}") == SERIES
    assert f"<small>class 1, {grids.NOTHING}</small>" in (root / "report" / "index.html").read_text()
