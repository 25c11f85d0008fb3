"""Superpixels of a picture by the four algorithms that PAMI uses, here or in worker processes.

H×W pixels, S segmentations.
"""

import multiprocessing
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""Red, green and blue, [H,W,3]."""

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
    segmenter = cv2.ximgproc.createSuperpixelSEEDS(
        *(width, height, channels, segments), num_levels=5, prior=2, histogram_bins=5, double_step=True
    )
    segmenter.iterate(np.ascontiguousarray(picture), 10)
    return np.asarray(segmenter.getLabels(), np.int32)


def watershed(picture: Picture, segments: int) -> Labels:
    """Basins of the grey picture's gradient, flooded from a regular grid."""
    from skimage.color import rgb2gray
    from skimage.filters import sobel
    from skimage.segmentation import watershed as segment

    return np.asarray(segment(sobel(rgb2gray(picture)), markers=segments, compactness=1e-4), np.int32)


SEGMENTATIONS: tuple[Callable[[Picture], Labels], ...] = (
    *(partial(felzenszwalb, scale=scale) for scale in (250, 200, 150, 100, 70, 50)),
    *(partial(slic, segments=count) for count in (10, 20, 30, 40, 50, 60, 70, 80)),
    *(partial(seeds, segments=count) for count in (10, 20, 30)),
    *(partial(watershed, segments=count) for count in (10, 20, 30)),
)
"""PAMI, Table Appendix A.1: 20 segmentations."""


def viridis(values: NDArray[np.floating[Any]]) -> Picture:
    """A map [H,W], scaled to [0, 1], in viridis colours; a flat one is of the lowest colour throughout."""
    from matplotlib import colormaps

    low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.ascontiguousarray(colormaps["viridis"](scaled, bytes=True)[:, :, :3])


class Segmenter:
    """Makes all segmentations of a picture, while the caller does something else if there are workers.

    Args:
        workers: processes; 0 segments in the caller's, when the labels are asked for. Workers are started with the
            first picture and end with this object. They are spawned: a script that uses them needs the
            `if __name__ == "__main__":` of all scripts that do.
    """

    def __init__(self, workers: int = 0) -> None:
        if workers < 0:
            raise ValueError(f"workers is {workers}; give the number of processes, 0 for none.")
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def start(self, picture: Picture) -> Callable[[], Labels]:
        """Begin to segment a picture; the function returned waits for its labels [S,H,W]."""
        if not self.workers:
            return lambda: np.stack([_labels(segment, picture) for segment in SEGMENTATIONS])
        futures = [self._running_pool().submit(_labels, segment, picture) for segment in SEGMENTATIONS]
        return lambda: np.stack([future.result() for future in futures])

    def _running_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a forked copy of a process that has threads can hang
            self._pool = ProcessPoolExecutor(self.workers, context, initializer=_one_thread)
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        return self._pool


def _labels(segment: Callable[[Picture], Labels], picture: Picture) -> Labels:
    return segment(picture).astype(np.int32)


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
