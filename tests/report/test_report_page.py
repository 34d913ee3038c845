"""The report as a whole: the page in a browser, for eyes and without, Markdown and CSV."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("rich")
pytest.importorskip("yaml")

import browser

from dynconv_plugins import cli
from dynconv_plugins.report import published

LONG = "a-label-that-somebody-made-very-long-and-did-not-think-of-phones"
WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft"


@pytest.fixture(scope="module")
def made(tmp_path_factory, request) -> Path:
    """One report of everything that is awkward: one seed, three seeds, folds, failures, long names, no costs."""
    conftest = next(p for p in request.config.pluginmanager.get_plugins() if hasattr(p, "Fabricated"))
    root = tmp_path_factory.mktemp("runs") / "study"
    study = conftest.Fabricated(root, "awkward")
    study.task(
        "images", "timm", {"static": [0.60, 0.61, 0.62], "odconv": [0.66, 0.67, 0.67], "hard": [0.59, 0.63, 0.61]}
    )
    study.task("masks", "mmseg", {"static": [0.3], LONG: [0.31]}, per_class=("background", WORD, "cat"), costs=False)
    own = published.folds()
    scores = {
        f"{n}-{o}": own[k]["accuracy"] for n in ("Net1", "Net2") for o, k in (("static", "CNN"), ("odconv", "D-CNN"))
    }
    losses = {key: own["CNN" if key.endswith("static") else "D-CNN"]["loss"] for key in scores}
    study.task("series", "tsai", scores, networks=("Net1", "Net2"), folds=True, losses=losses)
    failed = root / "images" / "hard" / "seed2"
    failed.joinpath("cell.json").write_text(
        failed.joinpath("cell.json")
        .read_text()
        .replace('"status": "done"', f'"status": "failed", "error": "{WORD * 3}"')
    )
    (root / "images" / "odconv" / "seed2" / "metrics.json").write_text("{")
    assert cli.run(["report", str(root), "--no-pictures"]) == 0
    return root / "report"


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    return (made / "index.html").read_text()


def test_the_page_needs_nothing_else(page: str) -> None:
    assert not re.search(r"https?:", page), "an address"
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "something is loaded"
    assert not re.search(r"<script|@import|url\((?!#)", page)
    assert not re.search(
        r"/tmp/|nan\b|None\b|\bundefined", re.sub(r"<pre>.*?</pre>|<dd>.*?</dd>", "", page, flags=re.S)
    )


def test_the_answer_comes_first_and_nothing_is_hidden(page: str) -> None:
    text = html.unescape(re.sub(r"<svg.*?</svg>|<style.*?</style>", "", page, flags=re.S))
    text = re.sub(r"<[^>]+>", " ", text)
    assert (
        text.index("Does dynamic convolution pay?") < text.index("In one table") < text.index("Before you believe it")
    )
    for words in (
        "2 of 9 cells have no result: 1 failed, 1 damaged.",
        WORD,
        "metrics.json is damaged",
        "too few runs to test",
        "beats its static twin",
        "not significant",
        "Bhati & Sherawat",
        "The paper's own ten folds under our test: D-CNN is +8.2 points ahead",
        "below five seeds nothing is a firm result",
        "Table 3 of the paper",
        "Table 4 of the paper",
        "Table 4b of the paper",
        "Table 4a and Figure 9 of the paper",
        "95% confidence interval",
        "--seed 0",
        "torch 2.9.0",
    ):
        assert words in text, words


def test_a_reader_without_eyes_can_use_it(page: str) -> None:
    assert not re.findall(r"<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", page)
    drawings = re.findall(r"<svg(?! class=\"mark\")[^>]*>", page)
    assert len(drawings) >= 15 and all('role="img"' in d and re.search('aria-label="[^"]+"', d) for d in drawings)
    assert all("scope=" in th for th in re.findall(r"<th\b[^>]*>", page))
    assert '<html lang="en">' in page and page.count("<h1") == 1
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "ids of drawings must not clash"
    targets = re.findall(r'href="#([^"]+)"', page)
    assert set(targets) <= set(ids)


def contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_in_light_and_dark(page: str) -> None:
    """WCAG AA: 4.5 for text, 3 for graphics."""
    from dynconv_plugins.report.looks import COLOURS, GREY

    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", page, re.S)[:2]
    ]
    assert [s["page"] for s in schemes] == ["#ffffff", "#14171d"]
    for scheme in schemes:
        for name in ("ink", "soft", "link", "good", "bad", "quiet"):
            assert contrast(scheme[name], scheme["page"]) >= 4.5, name
        for name in ("good", "bad", "quiet"):
            assert contrast(scheme[name], scheme[f"{name}-band"]) >= 4.5, name
        for colour in (*COLOURS, GREY):
            assert contrast(colour, scheme["page"]) >= 3, colour


def test_markdown_and_csv(made: Path) -> None:
    text = (made / "report.md").read_text()
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(images) >= 15 and all((made / i).is_file() for i in images)
    assert {p.stem for p in (made / "img").iterdir()} == {Path(i).stem for i in images}
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 60 and "not significant" in text and "too few runs to test" in text
    names = {p.name for p in (made / "csv").iterdir()}
    assert {"summary.csv", "images-results.csv", "images-costs.csv", "masks-classes.csv", "series-runs.csv"} <= names
    for path in (made / "csv").iterdir():
        widths = {len(line) for line in csv.reader(path.open())}
        assert len(widths) == 1, path


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [360, 390, 1200])
def test_nothing_sticks_out(page: str, tmp_path: Path, width: int) -> None:
    """The page is as wide as its window; wide tables and pictures scroll in boxes of their own; no text is cut off."""
    script = """const e = d.documentElement, out = [];
      for (const x of d.querySelectorAll('body *')) {
        if (x.closest('.scroll') && !x.matches('.scroll') || x.closest('svg') && !x.matches('svg')) continue;
        const r = x.getBoundingClientRect();
        if (r.width && r.right > e.clientWidth + 1) out.push(x.tagName + '.' + x.className);
      }
      const small = [...d.querySelectorAll('.drawings svg')].filter(x => x.getBoundingClientRect().width < 290).length;
      return [e.scrollWidth, e.clientWidth, e.scrollHeight, out.slice(0, 5), small];"""
    content, visible, height, out, small = browser.measured(page, script, width, tmp_path)
    assert content <= visible and out == [], f"{content} pixels of content on {visible}: {out}"
    assert height > 3000 and small == 0


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium")
def test_it_is_drawn(page: str, made: Path, tmp_path: Path) -> None:
    """A screenshot: dark text on white, coloured marks, and no broken halves."""
    image = browser.shot(made / "index.html", 1280, 3000, tmp_path)
    assert image.size == (1280, 3000) and image.getpixel((5, 5)) == (255, 255, 255)
    for top in range(0, 3000, 500):
        part = image.crop((0, top, 1280, top + 500)).convert("L")
        dark = sum(part.histogram()[:128]) / (1280 * 500)
        assert 0.001 < dark < 0.3, f"{top}: {dark:.4f} of it is dark"
    colours = {c for _, c in image.getcolors(1 << 24)}
    assert any(b > r + 60 for r, _, b in colours) and any(g > r + 40 for r, g, _ in colours)
