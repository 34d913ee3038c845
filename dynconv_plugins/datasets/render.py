"""Draws a contour as a microscope would show it: an RGB image, and its mask in VOC's label values."""

from __future__ import annotations

import numpy as np

VOID = 255
# Background, and the colours of glass-brown, olive and amber cells. None says anything about the class.
GROUNDS = ((226, 219, 196), (203, 214, 209), (214, 205, 214), (192, 205, 222), (228, 224, 216))
BODIES = ((168, 122, 52), (126, 132, 58), (186, 142, 78), (142, 96, 56), (104, 124, 92))


def voc_palette() -> list[int]:
    """Returns PASCAL VOC's palette, 256 colours in one flat list: the bits of a label spread over its channels."""
    palette = []
    for label in range(256):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit)
        palette += rgb
    return palette


def draw(contour: np.ndarray, size: int, label: int, rng: np.random.Generator):
    """Draws one cell, turned, scaled and placed at random.

    Args:
        contour: Complex points around their centroid, of the kind ``contours.is_plain`` accepts.
        size: Edge of the square image in pixels.
        label: The mask's value inside.
        rng: Source of the placing and of all that is not shape.

    Returns:
        ``image`` uint8 ``[size, size, 3]`` and ``mask`` uint8 ``[size, size]``: 0 outside, `label` inside and 255
        on the border, one pixel to either side of the contour.
    """
    reach = rng.uniform(0.32, 0.46) * size / np.abs(contour).max()
    contour = contour * reach
    turn = rng.uniform(0, 2 * np.pi)
    slack = max(0.0, size / 2 - np.abs(contour).max() - 2)
    centre = size / 2 + rng.uniform(-slack, slack, 2) * 0.6

    edge, along, across = _frame(contour, size, centre, turn)
    image = _ground(size, rng)
    image = _debris(image, size, rng)
    image = _cell(image, edge, along, across, np.abs(contour).max(), rng)
    image = image * rng.uniform(0.82, 1.1) + rng.normal(0, rng.uniform(1, 5), image.shape)

    mask = np.where(edge < 0, label, 0).astype(np.uint8)
    mask[np.abs(edge) < 1] = VOID
    return image.clip(0, 255).astype(np.uint8), mask


def _frame(contour: np.ndarray, size: int, centre: np.ndarray, turn: float) -> tuple[np.ndarray, ...]:
    """For every pixel, in pixels: the distance to the edge (< 0 inside), and the place along and across the cell."""
    at = np.arange(size) + 0.5
    z = ((at - centre[0])[None, :] + 1j * (at - centre[1])[:, None]) * np.exp(-1j * turn)
    limit = np.interp(np.angle(z), np.angle(contour), np.abs(contour), period=2 * np.pi)
    here, there = (np.stack([v.real, v.imag], -1).reshape(-1, 2).astype(np.float32) for v in (z, contour[::2]))
    square = np.empty(len(here), np.float32)
    for start in range(0, len(here), 1024):  # a block's products stay in the cache
        block = here[start : start + 1024]
        square[start : start + 1024] = (block @ (-2 * there.T) + (there**2).sum(1)).min(1) + (block**2).sum(1)
    distance = np.sqrt(square.clip(0)).reshape(size, size)
    return np.where(np.abs(z) < limit, -distance, distance), z.real, z.imag


def _noise(size: int, grain: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit size, ``[size, size]``, with `grain` bumps along an edge."""
    coarse = rng.normal(size=(grain + 2, grain + 2))
    at = np.linspace(0, grain, size, endpoint=False)
    low, part = at.astype(int), at % 1
    part = part * part * (3 - 2 * part)
    rows = coarse[low] * (1 - part[:, None]) + coarse[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _ground(size: int, rng: np.random.Generator) -> np.ndarray:
    colour = np.array(GROUNDS[rng.integers(len(GROUNDS))], float) + rng.normal(0, 8, 3)
    at = np.linspace(-1, 1, size)
    lamp = at[None, :] * rng.uniform(-14, 14) + at[:, None] * rng.uniform(-14, 14)
    texture = 9 * _noise(size, 3, rng) + 6 * _noise(size, 8, rng) + 4 * _noise(size, 24, rng)
    vignette = -16 * (at[None, :] ** 2 + at[:, None] ** 2)
    return colour + (lamp + texture + vignette)[..., None]


def _debris(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Specks, bubbles and broken needles: background that looks a little like the real thing."""
    at = np.arange(size) + 0.5
    x, y = at[None, :], at[:, None]
    for _ in range(rng.poisson(3)):
        cx, cy = rng.uniform(0, size, 2)
        turn = rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        length = rng.uniform(0.01, 0.11) * size
        width = length * rng.choice([1.0, 0.7, 0.15])
        r = np.hypot(u / length, v / max(width, 0.5))
        ring = np.exp(-(((r - 1) * 3) ** 2)) * rng.uniform(15, 60) + (r < 1) * rng.uniform(-6, 22)
        image = image - ring[..., None] * np.array([0.8, 0.9, 1.1])
    return image


def _cell(image, edge, along, across, reach: float, rng: np.random.Generator) -> np.ndarray:
    colour = np.array(BODIES[rng.integers(len(BODIES))], float) + rng.normal(0, 9, 3)
    opacity = rng.uniform(0.6, 0.9)
    inside = np.clip(0.5 - edge, 0, 1)
    depth = np.clip(-edge / (0.35 * reach), 0, 1)

    # Striae bow away from the middle, as they do on a raphid valve.
    pitch = rng.uniform(2.6, 5.0)
    striae = np.cos(2 * np.pi * (np.abs(along) - 0.12 * np.abs(across)) / pitch)
    striae = striae * np.clip(np.abs(across) / (0.1 * reach) - 0.4, 0, 1)
    raphe = np.exp(-((across / 0.6) ** 2)) * (np.abs(along) > 0.1 * reach)
    nodule = np.exp(-((along**2 + across**2) / (0.07 * reach) ** 2))
    lobes = np.exp(-(((np.abs(along) - 0.38 * reach) / (0.2 * reach)) ** 2) - (across / (0.26 * reach)) ** 2)

    shade = 26 * depth + rng.uniform(6, 15) * striae + 34 * raphe + 30 * nodule
    body = colour + shade[..., None] + lobes[..., None] * rng.uniform(10, 55) * np.array([-0.9, -0.15, -0.9])
    rim = np.exp(-((edge + 0.9) ** 2) / 0.9) * rng.uniform(55, 100)
    halo = np.exp(-((edge - 1.5) ** 2) / 1.3) * rng.uniform(8, 26)
    image = image + (body - image) * (inside * opacity)[..., None]
    return image + (halo - rim)[..., None]
