"""Words coloured by what they contribute: a line of boxes for each method, one text below the other.

Pictures are uint8 [h,w,3]; contributions are any numbers on one scale, probabilities if nothing else is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from explainer.report.gallery import font, text_width

COLOURS = "PuOr"
"""Orange below the centre, white at it, purple above it: told apart with any colour vision."""
MOST_WIDTH = 900
"""Pixels after which a text goes on in the next line."""
LABEL = 150
"""Pixels for the names of the rows."""
WORD, SMALL = 16, 11
"""Sizes of letters in pixels."""
BOX, LINE = 26, 46
"""Heights in pixels: of a word's box, and of a row with the numbers below the boxes."""
GAP = 4
TITLE = 28
FOOTER = 58
RAMP = 300

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]


class Scale(NamedTuple):
    """What the colours mean.

    Attributes:
        low: the number that is all orange; numbers below look like it.
        high: the number that is all purple; the centre of both is white.
        low_name: what orange speaks for.
        high_name: what purple speaks for.
    """

    low: float = 0.0
    high: float = 1.0
    low_name: str = "against"
    high_name: str = "for"


@dataclass
class WordRow:
    """One method's answer.

    Args:
        name: of the method.
        values: a number for each word.
    """

    name: str
    values: Sequence[float]


@dataclass
class WordText:
    """One text.

    Args:
        title: above it, e.g. the score of the whole text.
        words: of the text.
        rows: the methods' answers.
    """

    title: str
    words: Sequence[str]
    rows: Sequence[WordRow]


def draw_words(texts: Sequence[WordText], scale: Scale) -> Picture:
    """The texts, and the scale of their colours. A number without colour would hide how close two colours are."""
    lines = [_broken(text.words) for text in texts]
    rows = sum(len(text.rows) * len(broken) for text, broken in zip(texts, lines, strict=True))
    widths = [_width(text.words[line]) for text, broken in zip(texts, lines, strict=True) for line in broken]
    size = (LABEL + max(RAMP + TITLE, *widths), len(texts) * TITLE + rows * LINE + FOOTER)
    canvas = Image.new("RGB", size, "white")
    top = 0
    for text, broken in zip(texts, lines, strict=True):
        _write(canvas, (GAP, top + TITLE // 2), text.title, "black", anchor="lm")
        top += TITLE
        for line in broken:
            for row in text.rows:
                _write(canvas, (GAP, top + BOX // 2), row.name, "dimgrey", SMALL + 1, "lm")
                _draw_row(canvas, top, text.words[line], row.values[line], scale)
                top += LINE
    _draw_scale(canvas, top + GAP, scale)
    return np.asarray(canvas)


def colour_of(value: float, scale: Scale) -> Colour:
    """A number's colour."""
    from matplotlib import colormaps

    share = (value - scale.low) / (scale.high - scale.low)
    red, green, blue, _ = colormaps[COLOURS](float(np.clip(share, 0, 1)), bytes=True)
    return int(red), int(green), int(blue)


def readable_on(colour: Colour) -> str:
    """Black or white, whichever differs more in lightness."""
    return "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 128 else "white"


def _broken(words: Sequence[str]) -> list[slice]:
    """Lines of whole words."""
    starts = [0]
    for position in range(1, len(words)):
        if _width(words[starts[-1] : position + 1]) > MOST_WIDTH:
            starts.append(position)
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(words)], strict=True)]


def _draw_row(canvas: Image.Image, top: int, words: Sequence[str], values: Sequence[float], scale: Scale) -> None:
    left = LABEL
    for word, value in zip(words, values, strict=True):
        width, colour = _box_width(word), colour_of(value, scale)
        middle = left + (width - GAP) // 2
        box = (left, top, left + width - GAP, top + BOX)
        ImageDraw.Draw(canvas).rounded_rectangle(box, 4, fill=colour, outline="lightgrey")
        _write(canvas, (middle, top + BOX // 2), word, readable_on(colour), WORD, "mm")
        _write(canvas, (middle, top + BOX + SMALL // 2 + 2), f"{value:.2f}", "dimgrey", SMALL, "mm")
        left += width


def _draw_scale(canvas: Image.Image, top: int, scale: Scale) -> None:
    for across in range(RAMP):
        colour = colour_of(scale.low + (scale.high - scale.low) * across / (RAMP - 1), scale)
        ImageDraw.Draw(canvas).line((LABEL + across, top, LABEL + across, top + 14), fill=colour)
    middle = (scale.low + scale.high) / 2
    names = ((0, scale.low, scale.low_name), (0.5, middle, ""), (1, scale.high, scale.high_name))
    for share, value, name in names:
        place = LABEL + round(share * RAMP)
        _write(canvas, (place, top + 24), f"{value:g}", "black", SMALL, "mm")
        _write(canvas, (place, top + 38), name, "black", SMALL, "mm")


def _width(words: Sequence[str]) -> int:
    return sum(_box_width(word) for word in words)


def _box_width(word: str) -> int:
    return max(text_width(word, WORD), text_width("0.00", SMALL)) + 10 + GAP


def _write(
    canvas: Image.Image, place: tuple[int, int], text: str, fill: str, size: int = WORD, anchor: str = "la"
) -> None:
    ImageDraw.Draw(canvas).text(place, text, fill=fill, font=font(size), anchor=anchor)
