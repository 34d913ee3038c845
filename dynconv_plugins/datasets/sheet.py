"""An overview of the diatoms in one picture: a row per class, with images, a mask and the series."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from . import diatoms, files
from .render import voc_palette

INK, PAPER = (52, 58, 64), (250, 249, 246)
GAP = 6


def save(path: str | Path, *, classes: int, train: int, test: int, size: int, seed: int, columns: int = 6) -> Path:
    """Draws the first training samples of each class: `columns` images, then the last one's mask and series.

    Args:
        path: A PNG file to write; its folder is made.
        classes: As for ``diatoms.make``; so are the following.
        train: Fewer samples than `columns` give fewer columns.
        test: Unused: the overview shows training samples.
        size: Edge of an image in pixels; the picture shows it at 96 at least.
        seed: Any non-negative integer.
        columns: Images per class.

    Returns:
        `path`.
    """
    columns = min(columns, train)
    cell = max(size, 96)
    palette = np.array(voc_palette(), np.uint8).reshape(256, 3)
    shown = list(diatoms.samples("train", classes, columns, size, seed))
    wide = 3 * cell
    step = cell + GAP
    sheet = Image.new("RGB", ((columns + 1) * step + wide + GAP, classes * step + GAP), PAPER)
    for n, (c, image, mask, series) in enumerate(shown):
        column = n // classes
        at = GAP + column * step, GAP + c * step
        sheet.paste(Image.fromarray(image).resize((cell, cell), Image.Resampling.LANCZOS), at)
        if column == columns - 1:
            coloured = Image.fromarray(palette[mask]).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(coloured, (at[0] + step, at[1]))
            sheet.paste(_curve(series, wide, cell), (at[0] + 2 * step, at[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, buffer.getvalue())
    return path


def _curve(series: np.ndarray, width: int, height: int) -> Image.Image:
    # Pillow draws lines without smoothing: drawn large and reduced.
    over, edge = 4, 8
    x = edge + np.arange(len(series)) * (width - 2 * edge) / (len(series) - 1)
    y = edge + (series.max() - series) / np.ptp(series) * (height - 2 * edge)
    picture = Image.new("RGB", (width * over, height * over), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    pen.line([(float(a) * over, float(b) * over) for a, b in zip(x, y, strict=True)], INK, 2 * over, "curve")
    return picture.resize((width, height), Image.Resampling.LANCZOS)
