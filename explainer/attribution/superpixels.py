"""Superpixels of a picture by the four algorithms that PAMI uses, here or in worker processes.

H×W pixels, S segmentations.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainer.attribution.checks import whole

Picture = NDArray[np.uint8]
"""Red, green and blue, [H,W,3]."""

SEEDS_LEVELS = 5
SEEDS_SMALLEST = 12
"""Pixels a side below which OpenCV's SEEDS is not to be trusted."""

Labels = NDArray[np.int32]
"""Of each pixel, [H,W]; or of each pixel in each segmentation, [S,H,W]."""


def felzenszwalb(picture: Picture, scale: float) -> Labels:
    """Graph-based segments (Felzenszwalb and Huttenlocher, IJCV 2004)."""
    from skimage.segmentation import felzenszwalb as segment

    return segment(picture, scale=scale, sigma=0.8, min_size=784)


def slic(picture: Picture, segments: int) -> Labels:
    """K-means clusters of place and colour."""
    from skimage.segmentation import slic as segment

    return segment(picture, n_segments=segments, compactness=20)


def seeds(picture: Picture, segments: int) -> Labels:
    """SEEDS: blocks whose borders move as long as their colour histograms gain (ECCV 2012); on RGB."""
    import cv2

    height, width, channels = picture.shape
    segments = seeds_with_blocks(height, width, segments)
    if not segments:
        return np.zeros((height, width), np.int32)
    segmenter = cv2.ximgproc.createSuperpixelSEEDS(
        *(width, height, channels, segments), num_levels=SEEDS_LEVELS, prior=2, histogram_bins=5, double_step=True
    )
    segmenter.iterate(np.ascontiguousarray(picture), 10)
    return np.asarray(segmenter.getLabels(), np.int32)


def seeds_with_blocks(height: int, width: int, segments: int) -> int:
    """The smallest number of segments, from `segments` on, that SEEDS can begin with; 0 if there is none.

    OpenCV lays a grid of blocks and doubles them level by level. Where the top level is left without any (10 segments
    of 500×333 pixels), or the image is smaller than a few blocks, it crashes or never returns.
    """
    if min(height, width) < SEEDS_SMALLEST:
        return 0
    return next((count for count in range(segments, 10 * segments) if _seeds_blocks(height, width, count)), 0)


def _seeds_blocks(height: int, width: int, segments: int) -> bool:
    """Whether OpenCV's top level has a block."""
    rows = int((segments * height / width) ** 0.5)
    columns = rows * width // height
    if not rows or not columns:
        return False
    levels = SEEDS_LEVELS
    while levels > 1 and min(width / columns, height / rows) / 2 ** (levels - 1) < 1:
        levels -= 1
    down, across = (ceil(size / count / 2 ** (levels - 1)) for size, count in ((height, rows), (width, columns)))
    return (width // across) >> (levels - 1) > 0 and (height // down) >> (levels - 1) > 0


def watershed(picture: Picture, segments: int) -> Labels:
    """Basins of the grey picture's gradient, flooded from a regular grid."""
    from skimage.color import rgb2gray
    from skimage.filters import sobel
    from skimage.segmentation import watershed as segment

    return np.asarray(segment(sobel(rgb2gray(picture)), markers=segments, compactness=1e-4), np.int32)


Segmentation = Callable[[Picture], Labels]
ALGORITHMS: dict[str, tuple[Segmentation, ...]] = {
    "felzenszwalb": tuple(partial(felzenszwalb, scale=scale) for scale in (250, 200, 150, 100, 70, 50)),
    "slic": tuple(partial(slic, segments=count) for count in (10, 20, 30, 40, 50, 60, 70, 80)),
    "seeds": tuple(partial(seeds, segments=count) for count in (10, 20, 30)),
    "watershed": tuple(partial(watershed, segments=count) for count in (10, 20, 30)),
}
SEGMENTATIONS = tuple(segment for algorithm in ALGORITHMS.values() for segment in algorithm)
"""PAMI, Table Appendix A.1: 20 segmentations by four algorithms."""


def viridis(values: NDArray[np.floating[Any]]) -> Picture:
    """A map [H,W], scaled to [0, 1], in viridis colours; a flat one is of the lowest colour throughout."""
    from matplotlib import colormaps

    low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    # Whole numbers, which matplotlib takes as places in its table: rounding down first is what the authors do.
    levels = (scaled * 255).astype(np.uint8)
    return np.ascontiguousarray(colormaps["viridis"](levels, bytes=True)[:, :, :3])


class Segmenter:
    """Makes all segmentations of a picture, while the caller does something else if there are workers.

    Args:
        workers: processes; 0 segments in the caller's, when the labels are asked for. Workers are started with the
            first picture, serve all Segmenters of as many workers, and end with the program. They are spawned: a script
            that uses them needs the `if __name__ == "__main__":` of all scripts that do.
        segmentations: S ways to part a picture.
    """

    def __init__(self, workers: int = 0, segmentations: tuple[Segmentation, ...] = SEGMENTATIONS) -> None:
        whole("workers", workers, least=0)
        self.workers = workers
        self.segmentations = segmentations

    def start(self, picture: Picture) -> Callable[[], Labels]:
        """Begin to segment a picture; the function returned waits for its labels [S,H,W]."""
        if not self.workers:
            return lambda: np.stack([_labels(segment, picture) for segment in self.segmentations])
        try:
            futures = self._submit(picture)
        except BrokenProcessPool:  # a worker was killed, perhaps for its memory: others may live
            _pool.cache_clear()
            futures = self._submit(picture)
        return lambda: np.stack([future.result() for future in futures])

    def _submit(self, picture: Picture) -> list[Future[Labels]]:
        return [_pool(self.workers).submit(_labels, segment, picture) for segment in self.segmentations]


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a forked copy of a process that has threads can hang
    return ProcessPoolExecutor(workers, context, initializer=_one_thread)


def _labels(segment: Segmentation, picture: Picture) -> Labels:
    return segment(picture).astype(np.int32)


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
