"""A grid of saliency maps: a row for each method, a column for each pair of image and target.

H×W pixels of an image, S×S of a tile; pictures are uint8 [h,w,3], photographs float [H,W,3] and maps float [H,W], both
in [0, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE = 120
GAP = 4
CAPTION = 18
FOOTER = 34
LABEL = 140
"""Pixels after which a label goes on in the next line; a single word may be longer."""
LINE = 15
LETTERS = 12
"""Their size in pixels."""
COLOURS = "inferno"
"""Of the heat: as light as it is hot, so that it reads in grey and with any colour vision."""
HEAT = 0.65
"""Its share in a pixel of the overlay; the grey photograph has the rest."""
OTHERS = 0.35
"""Grey of what is in the image besides the target, where the target itself is white."""
NO_MAP = "no map"
MOST_LABEL = "1: matters most"
QUALITY = 90
SLOWEST = 6
"""Of Pillow's ways to pack a WebP the one with the smallest files."""

Floats = NDArray[np.floating]
Picture = NDArray[np.uint8]


@dataclass
class Column:
    """One image, asked about one target.

    Args:
        photograph: [H,W,3].
        caption: e.g. the target's name.
        truth: where the target is, [H,W] as `truth_shades` gives it; None if nobody knows.
    """

    photograph: Floats
    caption: str
    truth: Floats | None = None


@dataclass
class Row:
    """One method.

    Args:
        name: first line of its label.
        details: further lines, which may be long.
        maps: [H,W] each, a column each; they are drawn as they are, 0 darkest and 1 lightest. None where the method
            has no map.
    """

    name: str
    details: list[str]
    maps: Sequence[Floats | None]


def draw_gallery(columns: list[Column], rows: list[Row]) -> Picture:
    """The photographs, the ground truth where there is one, then the rows, and the scale of their colours."""
    has_truth = any(column.truth is not None for column in columns)
    tiles = [(["photograph"], [to_tile(column.photograph) for column in columns])]
    if has_truth:
        tiles.append((["ground truth", "white: the target"], [draw_truth(column) for column in columns]))
    for row in rows:
        label = [line for text in (row.name, *row.details) for line in wrapped(text, LABEL)]
        pairs = zip(row.maps, columns, strict=True)
        tiles.append((label, [_map_tile(values, column.photograph) for values, column in pairs]))
    left = max(text_width(line) for label, _ in tiles for line in label) + 3 * GAP
    height = CAPTION + len(tiles) * (TILE + GAP) + FOOTER
    canvas = Image.new("RGB", (left + len(columns) * (TILE + GAP), height), "white")
    for across, column in enumerate(columns):
        write(canvas, (left + across * (TILE + GAP), 2), shortened(column.caption, TILE))
    for down, (label, pictures) in enumerate(tiles):
        top = CAPTION + down * (TILE + GAP)
        for index, line in enumerate(label):
            middle = top + (TILE - LINE * len(label)) // 2
            write(canvas, (GAP, middle + LINE * index), line, "dimgrey" if index else "black")
        for across, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (left + across * (TILE + GAP), top))
    _draw_scale(canvas, left, height - FOOTER + GAP)
    return np.asarray(canvas)


def save_gallery(picture: Picture, file: Path) -> None:
    """As a WebP: a fifth of the PNG's size, and nothing of it can be seen."""
    Image.fromarray(picture).save(file, "WEBP", quality=QUALITY, method=SLOWEST)


def overlay(values: Floats, photograph: Floats) -> Picture:
    """A map [H,W] in colours over the grey photograph, as a tile."""
    large = to_tile(np.repeat(values[..., None], 3, axis=2))[..., 0] / 255
    return blended(large, to_tile(photograph))


def blended(values: Floats, photograph: Picture) -> Picture:
    """A map [h,w] in colours over the photograph [h,w,3] in grey."""
    grey = photograph.mean(axis=2, keepdims=True) / 255
    return _eight_bit(HEAT * heat(values) + (1 - HEAT) * grey)


def colour_ramp(steps: int) -> Picture:
    """The overlay's colours from 0 to 1, as they look on a grey photograph, [1,steps,3]."""
    return _eight_bit(HEAT * heat(np.linspace(0, 1, steps)[None]) + (1 - HEAT) * 0.5)


def heat(values: Floats) -> Floats:
    """Values in [0, 1] -> their colours [...,3]."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOURS](values))[..., :3]


def truth_shades(target: NDArray[np.bool_], others: NDArray[np.bool_]) -> Floats:
    """Where the target is (1), where something else is that has a class (`OTHERS`), and the rest (0)."""
    return np.where(target, 1.0, np.where(others, OTHERS, 0.0))


def draw_truth(column: Column) -> Picture:
    """The target white, other objects grey, the rest black; white altogether where the truth is unknown."""
    shade = np.ones((1, 1)) if column.truth is None else column.truth
    return to_tile(np.repeat(shade[..., None], 3, axis=2))


def _map_tile(values: Floats | None, photograph: Floats) -> Picture:
    """The overlay, or a tile that says that there is none."""
    if values is not None:
        return overlay(values, photograph)
    blank = Image.new("RGB", (TILE, TILE), "white")
    write(blank, ((TILE - text_width(NO_MAP)) // 2, (TILE - LINE) // 2), NO_MAP, "dimgrey")
    return np.asarray(blank)


def to_tile(picture: Floats) -> Picture:
    """[H,W,3] in [0, 1] -> [S,S,3]."""
    return np.asarray(Image.fromarray(_eight_bit(picture)).resize((TILE, TILE), Image.Resampling.BILINEAR))


def caption_of(name: str, probability: float | None) -> str:
    """A class and its probability in [0, 1], which stays whole where the name is too wide for a tile."""
    number = " –" if probability is None else f" {probability:.2f}"
    return shortened(name, TILE - text_width(number)) + number


def label_of(method: str) -> tuple[str, list[str]]:
    """A method's name, and its options so that lines can break between them."""
    name, _, options = method.partition(":")
    return name, [options.replace(",", ", ")] if options else []


def text_width(text: str, size: int = LETTERS) -> int:
    """Pixels, rounded up."""
    return int(np.ceil(font(size).getlength(text)))


def shortened(text: str, width: float, measure: Callable[[str], float] = text_width) -> str:
    """The text itself, or its beginning and an ellipsis, if it is longer than `width` in what `measure` gives."""
    kept = text
    while kept and measure(kept + "…" * (kept != text)) > width:
        kept = kept[:-1]
    return text if kept == text else kept + "…"


def wrapped(text: str, width: float, measure: Callable[[str], float] = text_width) -> list[str]:
    """Lines of whole words no longer than `width` in what `measure` gives, as far as a single word isn't."""
    lines: list[str] = []
    for word in text.split():
        if lines and measure(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _draw_scale(canvas: Image.Image, left: int, top: int) -> None:
    """The colours from 0 to 1, as they look on a grey photograph."""
    length = min(2 * TILE, canvas.width - left - GAP)
    canvas.paste(Image.fromarray(colour_ramp(length).repeat(FOOTER // 3, axis=0)), (left, top))
    below = top + FOOTER // 3 + 2
    write(canvas, (left, below), "0")
    write(canvas, (min(left + length - 6, canvas.width - text_width(MOST_LABEL)), below), MOST_LABEL)


def write(canvas: Image.Image, place: tuple[int, int], text: str, fill: str = "black") -> None:
    """Put a line of text onto a picture; `place` is its upper left corner."""
    ImageDraw.Draw(canvas).text(place, text, fill=fill, font=font())


@cache
def font(size: int = LETTERS) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters that Pillow brings along; to unpack them takes longer than to draw a word."""
    return ImageFont.load_default(size)


def _eight_bit(picture: Floats) -> Picture:
    return (picture * 255).round().clip(0, 255).astype(np.uint8)
