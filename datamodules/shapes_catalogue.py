"""The ten shapes of the embedded data set: silhouette, surface and typical hue of each.

Coordinates u (right) and v (down) lie in an object's own frame, where its silhouette fits the unit disc.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Surface = Callable[[Array, Array], Array]


class ShapeClass(NamedTuple):
    """What makes a class: polygons of the unit disc (outline, then an optional hole), typical hue, surface."""

    outline: Array
    hue: float
    surface: Surface
    hole: Array | None = None


def _turn(degrees: Array | float, radius: Array | float = 1.0) -> Array:
    angle = np.radians(degrees)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=-1).astype(np.float32)


def _points(*pairs: tuple[float, float]) -> Array:
    return np.array(pairs, np.float32)


def _heart() -> Array:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    points = np.stack([x, y - (y.min() + y.max()) / 2], axis=-1).astype(np.float32)
    return points / np.linalg.norm(points, axis=1).max()


def _crescent() -> Array:
    outer = _turn(np.linspace(-142, 142, 48, dtype=np.float32))
    start, tip = outer[0], outer[-1]  # the inner arc runs from tip back to start around a centre moved down
    centre, radius = np.array([0, 0.42], np.float32), math.hypot(tip[0], tip[1] - 0.42)
    low, high = (math.degrees(math.atan2(p[0], -(p[1] - 0.42))) for p in (start, tip))
    return np.concatenate([outer, centre + _turn(np.linspace(high, low, 36, dtype=np.float32), radius)])


def _wave(phase: Array, sharpness: float = 2.5) -> Array:
    """A square wave of `phase` (in periods) between 0 and 1, its edges softened against aliasing."""
    return np.clip(0.5 + sharpness * np.sin(2 * np.pi * phase), 0, 1)


def _angle(u: Array, v: Array) -> Array:
    """Clockwise from the top, in full turns."""
    return np.arctan2(u, -v) / (2 * np.pi)


def _checks(u: Array, v: Array) -> Array:
    return np.clip(0.5 + 4 * np.sin(2 * np.pi * u / 0.7) * np.sin(2 * np.pi * v / 0.7), 0, 1)


def _dots(u: Array, v: Array) -> Array:
    du, dv = (u / 0.46 + 0.5) % 1 - 0.5, (v / 0.46 + 0.5) % 1 - 0.5
    return np.clip(0.5 + 8 * (0.32 - np.hypot(du, dv)), 0, 1)


def _sash(u: Array, v: Array) -> Array:
    """Candy stripes across, thin ones on a plain ground."""
    return np.clip(0.5 + 3 * (np.sin(2 * np.pi * (u + v) / 0.52) - 0.55), 0, 1)


def _cube(u: Array, v: Array) -> Array:
    """Three faces, each of its own lightness."""
    return np.floor((_angle(u, v) + 1 / 6) % 1 * 3).astype(np.float32) / 2


_ROUND = np.arange(0, 360, 6, dtype=np.float32)
_TIPS = np.arange(0, 360, 36, dtype=np.float32)
_ARM = 0.34

SHAPES: dict[str, ShapeClass] = {
    "disc": ShapeClass(_turn(_ROUND, 0.88), 26, lambda u, v: _wave(np.hypot(u, v) / 0.46 + 0.25)),
    "square": ShapeClass(_points((-0.69, -0.69), (0.69, -0.69), (0.69, 0.69), (-0.69, 0.69)), 170, _checks),
    "triangle": ShapeClass(_turn(np.arange(0, 360, 120, dtype=np.float32)), 98, lambda u, v: _wave(v / 0.4)),
    "star": ShapeClass(_turn(_TIPS, np.array([1, 0.46] * 5)), 62, lambda u, v: _wave(_angle(u, v) * 5, 4)),
    "cross": ShapeClass(
        _points(*((x * s, y * s) for s in (1, -1) for x, y in ((-_ARM, -0.94), (_ARM, -0.94), (_ARM, -_ARM),
                                                              (0.94, -_ARM), (0.94, _ARM), (_ARM, _ARM)))),
        314, _dots,
    ),
    "ring": ShapeClass(_turn(_ROUND, 0.94), 242, lambda u, v: _wave(_angle(u, v) * 6, 4), hole=_turn(_ROUND, 0.5)),
    "heart": ShapeClass(_heart(), 350, _sash),
    "crescent": ShapeClass(_crescent(), 278, lambda u, v: np.clip(0.5 + 0.6 * u, 0, 1)),
    "arrow": ShapeClass(
        _points((0, -1), (0.8, -0.1), (0.34, -0.1), (0.34, 0.92), (-0.34, 0.92), (-0.34, -0.1), (-0.8, -0.1)),
        206, lambda u, v: _wave((v - np.abs(u)) / 0.5),
    ),
    "hexagon": ShapeClass(_turn(np.arange(0, 360, 60, dtype=np.float32), 0.94), 134, _cube),
}  # fmt: skip
