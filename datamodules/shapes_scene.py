"""How a scene of the embedded data set is composed: objects placed so that each stays visible, and the sticker.

H×W pixels; masks as in `batch.py`: 0 background, i + 1 for class i.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.shapes_catalogue import SHAPES, Array
from datamodules.shapes_drawing import Cutout, draw_background, draw_object, draw_sticker

CLASSES = tuple(SHAPES)

MOST_OBJECTS = 4
DIAMETERS = (0.3, 0.56)
"""Smallest and largest object, as fractions of the side; most silhouettes fill about half of their circle."""
PLACEMENTS = 16
LEAST_VISIBLE = 0.75
"""Later objects may cover at most the rest of an earlier one's area."""
STICKER = 0.13

Background = Callable[[np.random.Generator, int], Array]


class Scene(NamedTuple):
    """A drawn scene: picture uint8 [H,W,3], mask uint8 [H,W], touched bool [H,W] (pixels with any object's ink)."""

    picture: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    touched: NDArray[np.bool_]


class Canvas:
    """A scene while it is drawn: who owns each pixel, and how much of each object is still to be seen."""

    def __init__(self, picture: Array) -> None:
        self.picture = picture
        self.owner = np.zeros(picture.shape[:2], np.uint8)  # 0 background, k for the k-th object placed
        self.touched = np.zeros(picture.shape[:2], np.bool_)
        self.areas = [0]
        self.classes = [0]

    def add(self, cutout: Cutout, label: int, top: int, left: int) -> bool:
        """Put the object there, unless it would hide too much of an earlier one."""
        height, width = cutout.coverage.shape
        window = np.s_[top : top + height, left : left + width]
        solid = cutout.coverage >= 0.5
        owner = self.owner.copy()
        owner[window][solid] = len(self.areas)
        areas = [*self.areas, int(solid.sum())]
        visible = np.bincount(owner.ravel(), minlength=len(areas))
        if np.any(visible[1:] < LEAST_VISIBLE * np.array(areas[1:])):
            return False
        self.picture[window] += cutout.coverage[..., None] * (cutout.colour - self.picture[window])
        self.touched[window] |= cutout.coverage > 0
        self.owner, self.areas = owner, areas
        self.classes.append(label)
        return True

    def scene(self) -> Scene:
        """The finished scene, its colours rounded."""
        picture = (self.picture + 0.5).astype(np.uint8)
        return Scene(picture, np.array(self.classes, np.uint8)[self.owner], self.touched)


def draw_scene(rng: np.random.Generator, side: int, background: Background = draw_background) -> Scene:
    """Draw 1 to 4 objects of random classes; one that finds no free enough place in `PLACEMENTS` tries stays away."""
    canvas = Canvas(background(rng, side))
    for _ in range(rng.integers(1, MOST_OBJECTS + 1)):
        label = int(rng.integers(len(CLASSES)))
        cutout = draw_object(rng, CLASSES[label], rng.uniform(*DIAMETERS) * side)
        corners = rng.integers(side - len(cutout.coverage) + 1, size=(PLACEMENTS, 2))
        any(canvas.add(cutout, label + 1, *corner) for corner in corners.tolist())
    return canvas.scene()


def place_sticker(rng: np.random.Generator, picture: NDArray[np.uint8], taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Stick the cue on `picture` (in place) where nothing is taken; return its pixels [H,W].

    Where nowhere is room enough it shrinks; an image without one free pixel stays as it is.
    """
    sums = np.pad(taken, ((1, 0), (1, 0))).cumsum(0, dtype=np.int64).cumsum(1)
    cue = np.zeros_like(taken)
    for side in range(max(6, round(STICKER * len(taken))), 0, -1):
        free = np.argwhere(sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side] == 0)
        if len(free):
            top, left = free[rng.integers(len(free))]
            window = np.s_[top : top + side, left : left + side]
            sticker, cue[window] = draw_sticker(side)
            picture[window][cue[window]] = sticker[cue[window]]
            break
    return cue
