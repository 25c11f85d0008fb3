"""XRAI (Kapishnikov et al., ICCV 2019): segments of an image, by the density of their integrated gradients.

B images, M maps, S segments, H×W = P pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explainer.attribution.backward import integrated_gradients
from explainer.attribution.base import SharingMethod, no_maps
from explainer.attribution.checks import number, one_of, whole
from explainer.attribution.perturb import (
    ChunkSize,
    card_statistics,
    checked_chunk_size,
    gradient_chunk,
    plain_images,
)
from explainer.explanandum import ClassifierCard, Explanandum

Segments = Literal["felzenszwalb", "slic", "both"]

Picture = NDArray[np.float32]
"""Red, green and blue in [0, 1], [H,W,3]."""

Labels = NDArray[np.integer[Any]]
"""The segment of each pixel, [H,W]."""

FELZENSZWALB_SCALES = (50, 100, 150, 250, 500, 1200)
"""Finenesses of the segments (authors' code)."""
FELZENSZWALB_SIDE = 224
"""Pixels a side of the pictures that these are meant for; others are resized (authors' code)."""
SLIC_SEGMENTS = (50, 100, 150, 250, 500)
"""SIGCAM, Experimental Setup."""
DILATION = 5
"""Pixels by which a segment is enlarged, so that the edges around it belong to it (authors' code)."""
LEAST_NEW = 50
"""Pixels that a segment must have besides those taken before, else it is left out (authors' code)."""


class XRAI(SharingMethod):
    """Segments of several finenesses, taken one by one: in each turn the one whose attributions are densest.

    A segment gives the pixels that it takes, and none took before, their mean attribution. Attributions are integrated
    gradients of the target's logit, averaged over the baselines, the largest of a pixel's three colours. All classes of
    an image share its segments and the forward passes.

    The segments are grown here, not by the authors' package `saliency`: its loop looks at every segment's pixels again
    in each round, and it takes the gradients of one class and image at a time. Segments and order are the package's, as
    the tests check.

    Args:
        explanandum: the classifier.
        segments: made by Felzenszwalb's graph (paper), by SLIC (SIGCAM, Experimental Setup), or by both.
        steps: of each integral, at the middles of equal intervals. The authors' code takes 100, which is more exact and
            four times the work; how much more depends on how curved the classifier is between baseline and image.
        baselines: grey levels in [0, 1] of the images where the integrals begin; black and white (paper).
        chunk_size: images of one forward and backward pass; auto fits the device.
    """

    paper = "Kapishnikov et al., ICCV 2019"
    needs = "gradients"
    passes = "baselines · steps forward (50), for all classes; as many backward"

    def __init__(
        self,
        explanandum: Explanandum,
        segments: Segments = "felzenszwalb",
        steps: int = 25,
        baselines: Sequence[float] | float = (0.0, 1.0),
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum)
        one_of("segments", segments, get_args(Segments))
        whole("steps", steps)
        self.segments: Segments = segments
        self.steps = steps
        self.baselines = read_baselines(baselines)
        self.chunk_size = checked_chunk_size(chunk_size)

    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """Maps [M,H,W] of targets [M] in the images [M] of the batch, which are sorted."""
        maps = [no_maps(image)]
        for index in image_index.unique().tolist():
            wanted = target[image_index == index]
            attributions = self._attributions(image[index, None], wanted).cpu().numpy().astype(np.float64)
            masks = segment_masks(to_picture(image[index], self.explanandum.card), self.segments)
            grown = np.stack([grow(each.ravel(), masks) for each in attributions])
            maps.append(torch.from_numpy(grown).to(image.device, torch.float32).unflatten(1, image.shape[-2:]))
        return torch.cat(maps)

    def _attributions(self, image: Tensor, target: Tensor) -> Tensor:
        """Of targets [M] to the pixels of one image [1,3,H,W]: [M,H,W]."""
        chunk, first = gradient_chunk(self.chunk_size, image), torch.zeros_like(target)
        of_each_baseline = [
            integrated_gradients(self.explanandum, image, baseline, first, target, self.steps, chunk)
            for baseline in (plain_images(image, self.explanandum.card, grey) for grey in self.baselines)
        ]
        return torch.stack(of_each_baseline).mean(dim=0).amax(dim=1)


def read_baselines(baselines: Sequence[float] | float) -> tuple[float, ...]:
    """Grey levels as a tuple.

    Raises:
        ValueError: if there is none, or one is not between 0 and 1.
    """
    listed = tuple(baselines) if isinstance(baselines, Sequence) else (baselines,)
    if not listed:
        raise ValueError("There are no baselines; give grey levels between 0 (black) and 1 (white), such as [0,1].")
    for grey in listed:
        number("baselines", grey, most=1, or_least=True)
    return listed


def to_picture(image: Tensor, card: ClassifierCard) -> Picture:
    """A normalised image [3,H,W] as a picture."""
    mean, std = card_statistics(card, image)
    return (image.detach().float() * std + mean).clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def segment_masks(picture: Picture, segments: Segments) -> NDArray[np.bool_]:
    """Segments of all finenesses, enlarged, none twice: [S,P]."""
    import cv2

    axis = np.arange(-DILATION, DILATION + 1)
    disk = (axis[:, None] ** 2 + axis**2 <= DILATION**2).astype(np.uint8)
    different: dict[bytes, NDArray[np.bool_]] = {}
    for labels in _segmentations(picture, segments):
        for label in np.unique(labels):
            mask = (labels == label).astype(np.uint8)
            key = mask.tobytes()
            if key not in different:
                different[key] = cv2.dilate(mask, disk).astype(bool).ravel()
    return np.stack(list(different.values()))


def _segmentations(picture: Picture, segments: Segments) -> Iterator[Labels]:
    from skimage.segmentation import felzenszwalb, slic

    if segments != "slic":
        canvas = _canvas(picture)
        for scale in FELZENSZWALB_SCALES:
            yield _resized_labels(felzenszwalb(canvas, scale=scale, sigma=0.8, min_size=150), picture.shape[:2])
    if segments != "felzenszwalb":
        for count in SLIC_SEGMENTS:
            yield slic(picture, n_segments=count)


def _canvas(picture: Picture) -> NDArray[np.floating[Any]]:
    """The picture at the size and with the contrast that Felzenszwalb's scales are meant for: from -1 to 1."""
    from skimage.transform import resize

    low, high = picture.min(), picture.max()
    stretched = 2 * (picture - low) / (high - low or 1) - 1
    size = (FELZENSZWALB_SIDE, FELZENSZWALB_SIDE)
    return resize(stretched, size, order=3, mode="constant", preserve_range=True, anti_aliasing=True)


def _resized_labels(labels: Labels, size: Sequence[int]) -> Labels:
    from skimage.transform import resize

    return resize(labels, size, order=0, mode="constant", preserve_range=True, anti_aliasing=False).astype(np.int32)


def grow(attribution: NDArray[np.float64], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The map [P] of attributions [P] for segments [S,P]: the greedy order of the paper (Algorithm 1).

    What each segment has left, its pixels and their sum, is kept and only lowered by the pixels that are taken. So a
    pixel is looked at once, not in every round.
    """
    grown, free = np.empty_like(attribution), np.ones(len(attribution), bool)
    left, total = masks.sum(axis=1), np.array([attribution[mask].sum() for mask in masks])
    while (left >= LEAST_NEW).any():
        density = np.where(left >= LEAST_NEW, total / np.maximum(left, 1), -np.inf)
        taken = np.flatnonzero(masks[density.argmax()] & free)
        grown[taken] = attribution[taken].mean()
        free[taken] = False
        of_each = masks[:, taken]
        left -= of_each.sum(axis=1)
        total -= of_each @ attribution[taken]
    if free.any():
        grown[free] = attribution[free].mean()
    return grown
