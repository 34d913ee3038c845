"""Closed contours from Fourier descriptors, and the series of their distances from the centroid.

A contour is ``z(t) = exp(it) + sum_k c_k exp(ikt)`` in the complex plane; ``c_-1`` stretches the circle to an
ellipse along the real axis and real descriptors keep it mirror-symmetric, as diatoms nearly are.
"""

from __future__ import annotations

import numpy as np

SERIES_LENGTH = 176
HARMONICS = np.array([k for k in range(-6, 7) if k not in (0, 1)])
POINTS = 512
_PROTOTYPE_STREAM = 0x51A9E


def rng_for(*key: int) -> np.random.Generator:
    """Returns a generator of its own for every key, so that one sample never depends on how many others there are."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def trace(descriptors: np.ndarray, points: int = POINTS) -> np.ndarray:
    """Returns the contour as complex points ``[points]``, evenly spaced along it and centred on its area's centroid."""
    t = np.linspace(0, 2 * np.pi, 4 * points, endpoint=False)
    z = np.exp(1j * t) + np.exp(1j * t[:, None] * HARMONICS) @ descriptors
    z = z - _centroid(z)
    closed = np.append(z, z[0])
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(closed)))])
    at = np.linspace(0, length[-1], points, endpoint=False)
    return np.interp(at, length, closed.real) + 1j * np.interp(at, length, closed.imag)


def _centroid(z: np.ndarray) -> complex:
    following = np.roll(z, -1)
    cross = z.real * following.imag - following.real * z.imag
    return complex(((z + following) * cross).sum() / (3 * cross.sum()))


def is_plain(z: np.ndarray) -> bool:
    """True when every ray from the centroid meets the contour once, at no less than a sixth of its largest radius.

    Such a contour cannot cross itself, and a radius for every direction is all that is needed to draw it.
    """
    turn = np.angle(np.roll(z, -1) / z)
    radius = np.abs(z)
    return bool((turn > 0).all() and radius.min() > radius.max() / 6)


def centroid_distance(z: np.ndarray, length: int = SERIES_LENGTH) -> np.ndarray:
    """Returns the distances from the centroid ``[length]``, z-normalised, from the farthest point around.

    The farthest point is the start because the series must not depend on the rotation; which of two similar tips
    is the farther one is chance, as it is in Adiac.
    """
    radius = np.abs(z)
    radius = np.roll(radius, -int(radius.argmax()))
    at = np.linspace(0, len(z), length, endpoint=False)
    series = np.interp(at, np.arange(len(z) + 1), np.append(radius, radius[0]))
    return (series - series.mean()) / series.std()


def prototypes(classes: int, seed: int) -> np.ndarray:
    """Returns the descriptors of the classes, real, ``[classes, len(HARMONICS)]``.

    Taken one after the other from a pool of random shapes, each the farthest from those already taken: random
    draws alone would give some pairs of classes that nobody could tell apart.
    """
    rng = rng_for(seed, _PROTOTYPE_STREAM)
    pool, spectra = [], []
    while len(pool) < 24 * classes:
        c = rng.normal(size=len(HARMONICS)) * 0.24 / np.abs(HARMONICS) ** 1.45
        c[HARMONICS == -1] = rng.uniform(0.15, 0.55)
        z = trace(c, 256)
        if is_plain(z):
            pool.append(c)
            # The magnitudes know neither the starting point nor the direction.
            spectra.append(np.abs(np.fft.rfft(np.abs(z) / np.abs(z).mean()))[1:16] / 256)
    pool, spectra = np.array(pool), np.array(spectra)
    taken = [0]
    while len(taken) < classes:
        gap = np.linalg.norm(spectra[:, None] - spectra[taken], axis=-1).min(1)
        taken.append(int(gap.argmax()))
    return pool[taken]


def jittered(prototype: np.ndarray, rng: np.random.Generator, amount: float = 0.022) -> np.ndarray:
    """Returns one individual's contour ``[POINTS]``: descriptors disturbed by complex noise, so not quite symmetric."""
    while True:
        noise = rng.normal(size=(2, len(HARMONICS))) / np.sqrt(np.abs(HARMONICS))
        z = trace(prototype + amount * (noise[0] + 1j * noise[1]))
        if is_plain(z):
            return z
        amount *= 0.8  # a prototype near the limit must not loop for ever
