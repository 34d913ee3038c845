"""Turns matplotlib figures and pixels into pictures of the page: drawings as inline SVG that takes the page's colours,
photographs as PNG; every one is kept as a PNG file besides."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np

from ..demo.figures import STYLE, Album, plt

INK, LINE, PAPER = "#010203", "#040506", "#070809"  # stand for the page's colours until they are replaced
DRAWN = STYLE | {
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.fontsize": 9,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}
ON_PAPER = {INK: "#1a1f29", LINE: "#e3e6eb", PAPER: "#ffffff"}
ON_PAGE = {INK: "currentColor", LINE: "var(--line)", PAPER: "var(--page)"}


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        name: Of its file in ``img/``.
        alt: What it shows, in words.
        svg: Inline SVG; empty for pixels.
        src: A data URL; empty for SVG.
        width: Natural width in CSS pixels.
        note: A line below it.
    """

    name: str
    alt: str
    svg: str = ""
    src: str = ""
    width: int = 0
    note: str = ""


class Studio(Album):
    """An `Album` whose drawings also come as inline SVG."""

    def draw(self, name: str, figure: plt.Figure, alt: str) -> Picture:
        """Keeps a figure that was made under ``rc_context(DRAWN)``."""
        text = io.StringIO()
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # All drawings are as wide as their figure, so that their letters have one size on the page.
        box = figure.get_tightbbox().padded(0.04)
        box.x0, box.x1 = 0.0, figure.get_size_inches()[0]
        with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            figure.savefig(text, format="svg", transparent=True, metadata=none, bbox_inches=box)
        _recolour(figure)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=144, bbox_inches=box)
        plt.close(figure)
        self._keep(name, data.getvalue())
        svg, width = _inline(text.getvalue(), name, alt)
        return Picture(name, alt, svg, width=width)

    def photo(self, name: str, image: np.ndarray, alt: str, height: int = 144) -> Picture:
        """Keeps pixels ``[H, W, 3]``, uint8; of large images every second, third, ... one, as labels must not blend."""
        step = max(1, round(max(image.shape[:2]) / (2 * height)))
        image = np.ascontiguousarray(image[::step, ::step])
        return Picture(name, alt, src=self.pixels(name, image, height), width=image.shape[1])

    def scan(self, name: str, figure: plt.Figure, alt: str) -> Picture:
        """Keeps a figure as pixels on white: for many small images in one."""
        width = round(figure.get_size_inches()[0] * 96)
        return Picture(name, alt, src=self.add(name, figure, dpi=120), width=width)


def _recolour(figure: plt.Figure) -> None:
    """Real colours instead of the stand-ins, for the PNG."""
    artists = figure.findobj()
    # The box behind a text is not among its figure's artists.
    boxes = (artist.get_bbox_patch() for artist in artists if isinstance(artist, plt.Text))
    for artist in (*artists, *filter(None, boxes)):
        for part in ("color", "edgecolor", "facecolor", "markerfacecolor", "markeredgecolor"):
            getter, setter = getattr(artist, f"get_{part}", None), getattr(artist, f"set_{part}", None)
            if getter and setter:
                try:
                    # Collections answer with arrays: plt's own conversion says whether it is one of ours.
                    found = getter()
                    shown = plt.matplotlib.colors.to_hex(found if isinstance(found, str) else np.squeeze(found))
                except (TypeError, ValueError):
                    continue
                if shown in ON_PAPER:
                    setter(ON_PAPER[shown])


def _inline(svg: str, name: str, alt: str) -> tuple[str, int]:
    """The ``<svg>`` element alone, with ids of its own, no namespaces or addresses, and the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    safe = re.sub(r"\W", "-", name)
    svg = re.sub(r'\bid="', f'id="{safe}-', svg)
    svg = re.sub(r"url\(#", f"url(#{safe}-", svg)
    svg = re.sub(r'href="#', f'href="#{safe}-', svg)
    svg = re.sub(r"font: ([^'\"]*?)(?:'[^;\"]*|[\w ,-]*sans-serif[^;\"]*)", r"font: \1var(--font)", svg)
    for stand_in, colour in ON_PAGE.items():
        svg = svg.replace(stand_in, colour)
    width = float(re.search(r'width="([\d.]+)pt"', svg).group(1))
    head = f'<svg role="img" aria-label="{_quoted(alt)}"'
    svg = re.sub(r'<svg width="[^"]*"', head, svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub(r">\s+<", "><", svg), round(width / 72 * 96)


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
