"""Pictures side by side, each in its own proportions with a caption above.

Pictures are uint8 [h,w,3].
"""

import numpy as np
from PIL import Image

from explainer.report.gallery import CAPTION, GAP, Picture, shortened, write

HEIGHT = 240
"""Of every picture, in pixels."""
NARROWEST = 80
"""So wide is the place of a picture at least, so that its caption can be read."""


def draw_strip(pictures: list[tuple[Picture, str]], height: int = HEIGHT) -> Picture:
    """One row of pictures and captions, on white."""
    tiles = [_tile(Image.fromarray(picture), caption, height) for picture, caption in pictures]
    return np.concatenate(tiles, axis=1)


def _tile(picture: Image.Image, caption: str, height: int) -> Picture:
    width = max(1, round(picture.width * height / picture.height))
    place = max(width, NARROWEST)
    canvas = Image.new("RGB", (place + GAP, height + CAPTION), "white")
    canvas.paste(picture.resize((width, height), Image.Resampling.LANCZOS), ((place - width) // 2, CAPTION))
    write(canvas, (1, 2), shortened(caption, place))
    return np.asarray(canvas)
