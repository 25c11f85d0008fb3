"""A contact sheet of one photograph: itself, the target mask, and its class masks, for one method or several.

H×W pixels of the photograph. Pictures keep its proportions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from explainer.report.gallery import HEAT, heat, shortened, write

TILE = 200
"""Longer side of a picture in the sheet, in pixels."""
NARROWEST = 120
"""Width that a caption gets at least."""
GAP = 6
LINE = 18
ACROSS = 6
"""Pictures side by side; further ones go on below."""
MOST = 16
"""Class masks shown of a method."""


@dataclass(frozen=True)
class Tile:
    """A picture with a line of text above it.

    Args:
        caption: is shortened where it is too long.
        picture: `shrunk` to the sheet's size; None leaves an empty frame.
    """

    caption: str
    picture: Image.Image | None


@dataclass(frozen=True)
class Block:
    """What one method shows.

    Args:
        title: a line above its tiles.
        tiles: in order.
    """

    title: str
    tiles: Sequence[Tile]


def overlay_picture(photograph: Image.Image, mask: Image.Image) -> Image.Image:
    """A mask in colours over the grey photograph, at its size.

    Args:
        photograph: RGB.
        mask: "L" of the same size, 255 where it matters most.
    """
    colours = mask.copy()
    colours.putpalette((heat(np.linspace(0, 1, 256)) * 255).round().astype(np.uint8).tobytes())
    return Image.blend(photograph.convert("L").convert("RGB"), colours.convert("RGB"), HEAT)


def draw_sheet(title: str, blocks: Sequence[Block]) -> Image.Image:
    """The blocks one below the other, under the photograph's name."""
    pictures = [tile.picture for block in blocks for tile in block.tiles if tile.picture is not None]
    width = max([NARROWEST, *(picture.width for picture in pictures)])
    height = max([LINE, *(picture.height for picture in pictures)])
    across = min(ACROSS, max(len(block.tiles) for block in blocks))
    rows = [[block.tiles[start : start + across] for start in range(0, len(block.tiles), across)] for block in blocks]
    tall = sum(LINE + len(lines) * (LINE + height + GAP) for lines in rows)
    canvas = Image.new("RGB", (GAP + across * (width + GAP), LINE + GAP + tall), "white")
    write(canvas, (GAP, 2), shortened(title, canvas.width - 2 * GAP), "black")
    top = LINE + GAP
    for block, lines in zip(blocks, rows, strict=True):
        write(canvas, (GAP, top), shortened(block.title, canvas.width - 2 * GAP), "dimgrey")
        top += LINE
        for line in lines:
            for column, tile in enumerate(line):
                _draw_tile(canvas, tile, (GAP + column * (width + GAP), top), (width, height))
            top += LINE + height + GAP
    return canvas


def shrunk(picture: Image.Image, longest: int = TILE) -> Image.Image:
    """A picture as large as the sheet shows it, or with another longer side, in its proportions."""
    scale = longest / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3)


def _draw_tile(canvas: Image.Image, tile: Tile, place: tuple[int, int], frame: tuple[int, int]) -> None:
    left, top = place
    write(canvas, (left, top), shortened(tile.caption, frame[0]), "black")
    if tile.picture is None:
        ImageDraw.Draw(canvas).rectangle(
            (left, top + LINE, left + frame[0] - 1, top + LINE + frame[1] - 1), "gainsboro"
        )
        return
    canvas.paste(tile.picture, (left, top + LINE))
