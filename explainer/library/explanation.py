"""What an Explainer says of one image: masks at the image's own size, with names and scores, ready to be looked at.

N classes that were asked for, H×W pixels of the image itself; masks lie in [0, 1].
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainer.report.gallery import blended
from explainer.report.strip import HEIGHT, draw_strip


@dataclass(frozen=True, eq=False)
class Explanation:
    """Shows itself at the end of a notebook's cell.

    Args:
        image: RGB, as it was explained.
        classes: names of the N classes, the strongest first unless they were asked for by name.
        masks: float32 [N,H,W].
        scores: probability of each class by the classifier, [N]; None if the classifier is not at hand.
    """

    image: Image.Image
    classes: Sequence[str]
    masks: NDArray[np.float32]
    scores: NDArray[np.float32] | None = None

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """The mask [H,W] of a class.

        Raises:
            KeyError: if that class was not asked for.
        """
        if name not in self.classes:
            raise KeyError(f"No mask of '{name}'; there are: {', '.join(self.classes)}. Ask for it with classes=[...].")
        return self.masks[list(self.classes).index(name)]

    @property
    def captions(self) -> list[str]:
        """Name of each class, and its score or, without a classifier, the share of the image that its mask covers."""
        if self.scores is None:
            return [f"{name}, area {mask.mean():.2f}" for name, mask in zip(self.classes, self.masks, strict=True)]
        return [f"{name} {score:.2f}" for name, score in zip(self.classes, self.scores, strict=True)]

    def overlay(self, name: str) -> Image.Image:
        """The mask of a class in colours over the image in grey, at the image's size."""
        return Image.fromarray(blended(self[name], np.asarray(self.image)))

    def picture(self) -> Image.Image:
        """The image and all overlays in one row, each as high as the row: a large image is made small first."""
        size = (max(1, round(self.image.width * HEIGHT / self.image.height)), HEIGHT)
        small = np.asarray(self.image.resize(size, Image.Resampling.LANCZOS))
        masks = (np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR)) for mask in self.masks)
        overlays = [blended(mask, small) for mask in masks]
        return Image.fromarray(draw_strip([(small, "image"), *zip(overlays, self.captions, strict=True)]))

    def _repr_png_(self) -> bytes:
        return _png(self.picture())

    def _repr_html_(self) -> str:
        return (
            f'<img alt="{html.escape(", ".join(self.captions))}" '
            f'src="data:image/png;base64,{base64.b64encode(self._repr_png_()).decode()}">'
        )


def _png(picture: Image.Image) -> bytes:
    opened = io.BytesIO()
    picture.save(opened, "PNG")
    return opened.getvalue()
