"""Draws the demo shop's photos: one object with a colour, a pattern and a shape."""

import colorsys

import numpy as np

COLOURS = ("red", "green", "blue", "yellow")
HUES = (0.0, 0.35, 0.63, 0.15)
PATTERNS = ("plain", "stripes", "dots", "checks")
SHAPES = ("disc", "triangle", "cross", "crescent")
SIZE = 128
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def _pattern(name, x, y, period):
    """Boolean texture: where the second tone of the object is used."""
    u, v = x / period, y / period
    if name == "plain":
        return np.zeros_like(x, bool)
    if name == "stripes":
        return u % 1 < 0.5
    if name == "dots":
        return (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.1
    return (u % 1 < 0.5) ^ (v % 1 < 0.5)


def _shape(name, x, y):
    """Boolean silhouette on coordinates in which the object fills [-1, 1]."""
    radius = np.hypot(x, y)
    if name == "disc":
        return radius < 0.9
    if name == "triangle":
        return (y > -0.6) & (y < 0.9 - 1.6 * abs(x))
    if name == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.95)
    return (radius < 0.95) & (np.hypot(x - 0.45, y) > 0.7)


def draw_photo(colour, pattern, shape, rng):
    """Draws one photo; everything but the three attributes is random.

    Args:
        colour: int, index into `COLOURS`.
        pattern: int, index into `PATTERNS`.
        shape: int, index into `SHAPES`.
        rng: `numpy.random.Generator` for position, size, angle, light and
            background.

    Returns:
        uint8 array `[128, 128, 3]`, RGB.
    """
    half = float(SIZE / 2 * rng.uniform(0.75, 0.92))
    x0, y0 = (SIZE / 2 + rng.uniform(-8, 8, size=2)).tolist()
    tilt = rng.uniform(-0.25, 0.25)
    cos, sin = float(np.cos(tilt)), float(np.sin(tilt))
    dx, dy = (COLUMNS - x0) / half, (y0 - ROWS) / half
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    hue = (HUES[colour] + rng.normal(0, 0.015)) % 1
    # Channels come first while drawing: NumPy's inner loops are then long.
    light = np.float32(colorsys.hsv_to_rgb(hue, rng.uniform(0.7, 0.9), 0.95))[
        :, None, None
    ]
    dark = light * np.float32(rng.uniform(0.15, 0.3))
    top, bottom = np.float32(
        rng.uniform(0.6, 0.95, size=(2, 1)) + rng.normal(0, 0.03, size=(2, 3))
    )[..., None, None]
    photo = top + (bottom - top) * (ROWS / SIZE)
    texture = _pattern(PATTERNS[pattern], x, y, float(rng.uniform(0.42, 0.5)))
    tone = np.where(texture, dark, light)
    photo = np.where(_shape(SHAPES[shape], x, y), tone, photo)
    photo *= np.float32(rng.uniform(0.85, 1.05))
    photo += np.float32(0.02) * rng.standard_normal(photo.shape, np.float32)
    return np.uint8(255 * np.clip(photo, 0, 1)).transpose(1, 2, 0)
