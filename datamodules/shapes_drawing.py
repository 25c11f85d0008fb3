"""The ink of the embedded data set: one object, a photograph behind it, the sticker of the planted shortcut.

h×w pixels of a patch; colours are 0–255, coverage is 0–1.
"""

import math
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from datamodules.shapes_catalogue import SHAPES, Array, ShapeClass

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
"""Photographs that lie in scikit-image's wheel itself (0.24 to 0.26); the others it would download."""

SUPERSAMPLING = 3
HUE_JITTER = 22.0
"""Degrees to either side; the classes' hues are 36 apart, so neighbours overlap and colour alone decides nothing."""


class Cutout(NamedTuple):
    """One drawn object: colour float32 [h,w,3] in 0–255, coverage float32 [h,w] in 0–1."""

    colour: Array
    coverage: Array


def _silhouette(shape: ShapeClass, radius: float, side: int, frame: Array) -> tuple[Array, Array]:
    """Coverage of the shape and of its rim, both [side,side] in 0–1, anti-aliased by drawing finer."""
    planes = []
    to_pixels = frame * (radius * SUPERSAMPLING)
    outline, hole = ([tuple(p) for p in (polygon @ to_pixels + side * SUPERSAMPLING / 2).tolist()]
                     for polygon in (shape.outline, shape.outline if shape.hole is None else shape.hole))  # fmt: skip
    for rim in (False, True):
        plane = Image.new("L", (side * SUPERSAMPLING,) * 2)
        pen = ImageDraw.Draw(plane)
        if rim:
            width = max(2, round(0.1 * radius * SUPERSAMPLING))
            for polygon in (outline, hole):
                pen.line([*polygon, *polygon[:2]], fill=255, width=width, joint="curve")
        else:
            pen.polygon(outline, fill=255)
            if shape.hole is not None:
                pen.polygon(hole, fill=0)
        planes.append(np.asarray(plane.reduce(SUPERSAMPLING), np.float32) / 255)
    return planes[0], planes[1]


def _colour(hue: float, saturation: float, value: float) -> Array:
    return np.array(ImageColor.getrgb(f"hsv({hue % 360:.1f},{100 * saturation:.1f}%,{100 * value:.1f}%)"), np.float32)


def _two_tones(rng: np.random.Generator, hue: float) -> tuple[Array, Array]:
    """The object's colour and a companion, lighter or darker, for its surface."""
    hue += rng.uniform(-HUE_JITTER, HUE_JITTER)
    saturation, value, shift = rng.uniform(0.6, 0.95), rng.uniform(0.72, 1), rng.uniform(-20, 20)
    first = _colour(hue, saturation, value)
    if rng.random() < 0.5:
        return first, _colour(hue + shift, saturation * 0.3, min(1, value + 0.2))
    return first, _colour(hue + shift, min(1, saturation + 0.1), value * 0.45)


def draw_object(rng: np.random.Generator, name: str, diameter: float) -> Cutout:
    """Draw one object of class `name`, turned at random, `diameter` pixels across."""
    shape, radius = SHAPES[name], diameter / 2
    side = 2 * math.ceil(radius) + 2
    angle = rng.uniform(0, 2 * np.pi)
    frame = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], np.float32)
    coverage, rim = _silhouette(shape, radius, side, frame)

    axis = (np.arange(side, dtype=np.float32) + 0.5 - side / 2) / radius
    u, v = (frame @ np.stack(np.meshgrid(axis, axis)).reshape(2, -1)).reshape(2, side, side)
    first, second = _two_tones(rng, shape.hue)
    colour = first + shape.surface(u, v)[..., None] * (second - first)
    light = 1.04 - 0.16 * (axis[None, :] + axis[:, None])  # from the upper left, wherever the object points
    colour *= (light * (1 - 0.55 * rim))[..., None]
    return Cutout(np.clip(colour, 0, 255), coverage)


@lru_cache(maxsize=1)
def photographs() -> tuple[Image.Image, ...]:
    """The background photographs, decoded once per process, at most 512 pixels wide and high."""
    folder = resources.files("skimage") / "data"
    images = []
    for name in PHOTOGRAPHS:
        with (folder / name).open("rb") as file:
            image = Image.open(file).convert("RGB")
        image.thumbnail((512, 512))
        images.append(image)
    return tuple(images)


def draw_background(rng: np.random.Generator, side: int) -> Array:
    """A random square crop of a random photograph, float32 [side,side,3] in 0–255, its light and tint changed a bit."""
    photograph = photographs()[rng.integers(len(PHOTOGRAPHS))]
    edge = min(photograph.size) * rng.uniform(0.35, 1)
    left, top = (rng.uniform(0, length - edge) for length in photograph.size)
    box = (left, top, left + edge, top + edge)
    crop = np.asarray(photograph.resize((side, side), Image.Resampling.BILINEAR, box=box), np.float32)
    crop = 0.85 * crop + 0.15 * crop.mean()  # a little duller, as behind glass, so that the objects stand out
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.clip(crop * (rng.uniform(0.75, 1.15) * rng.uniform(0.9, 1.1, 3)).astype(np.float32), 0, 255)


def draw_sticker(side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The shortcut's cue: a white sticker with magenta edge and cross, [side,side,3], and its pixels, [side,side]."""
    fine = 4 * side
    picture = Image.new("RGB", (fine, fine), "magenta")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((fine // 8, fine // 8, fine - fine // 8, fine - fine // 8), fill="white")
    for ends in ((0.3, 0.3, 0.7, 0.7), (0.3, 0.7, 0.7, 0.3)):
        pen.line([fine * end for end in ends], fill="magenta", width=max(1, fine // 7))
    form = Image.new("L", (side, side))
    ImageDraw.Draw(form).rounded_rectangle((0, 0, side - 1, side - 1), radius=side // 5, fill=255)
    return np.asarray(picture.reduce(4)), np.asarray(form) > 0
