"""PAMI: partition input and aggregate outputs (Shi et al., 2024), with its two ways to part an image.

B images, T targets of one image, H×W pixels.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from explainer.attribution.base import AttributionMethod, no_maps, present_classes
from explainer.attribution.checks import flag, number, one_of, whole
from explainer.attribution.pami_parts import Parts, Segments, Shape, Windows, average_over_parts, contributions
from explainer.attribution.perturb import (
    ChunkSize,
    card_statistics,
    checked_chunk_size,
    class_scores,
    gaussian_blur,
    masked_images,
    plain_images,
    resolved_chunk_size,
)
from explainer.attribution.superpixels import ALGORITHMS, SEGMENTATIONS, Labels, Picture, Segmenter, viridis
from explainer.explanandum import ClassifierCard, Explanandum

Masking = Literal["blur", "black", "white"]
Algorithm = Literal["all", "felzenszwalb", "slic", "seeds", "watershed"]
Job = Callable[[], Labels]

SHIFTS = ((0, 0), *((y, x) for by in (24, 30, 36) for y, x in ((by, 0), (-by, 0), (0, by), (0, -by))))
"""Pixels down and across of the thirteen views in the authors' code."""


def masking_image(image: Tensor, masking: Masking, card: ClassifierCard) -> Tensor:
    """What replaces masked pixels of normalised images [B,3,H,W]: themselves, blurred (PAMI, Sec. 4.1), or one colour.

    Blurring the normalised image equals normalising the blurred one, which is what the authors do.
    """
    if masking == "blur":
        return gaussian_blur(image, kernel_size=49, sigma=100.0)
    return plain_images(image, card, brightness=float(masking == "white"))


def to_pictures(image: Tensor, card: ClassifierCard) -> list[Picture]:
    """Normalised images [B,3,H,W] -> B pictures [H,W,3] of 0 … 255."""
    mean, std = card_statistics(card, image)
    pixels = ((image.float() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy())


class _PAMI(AttributionMethod):
    """The target's probability for each part alone, averaged over the parts that cover a pixel.

    Images are taken one by one: what a batch's size does to the rounding of its outputs must not move a superpixel.
    """

    def __init__(self, explanandum: Explanandum, masking: Masking, chunk_size: ChunkSize) -> None:
        super().__init__(explanandum)
        one_of("masking", masking, get_args(Masking))
        self.masking: Masking = masking
        self.chunk_size = checked_chunk_size(chunk_size)

    @torch.no_grad()
    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] of probabilities, in [0, 1]."""
        return torch.cat([no_maps(image), *self._maps(image, list(target.split(1)[: len(image)]))])

    @torch.no_grad()
    def present_class_maps(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All present classes of an image from the same passes, as far as they have the same parts."""
        image_index, target = present_classes(image, labels)
        counts = labels.bool().sum(dim=1).tolist()
        maps = self._maps(image, list(target.split(counts)[: len(image)]))
        return torch.cat([no_maps(image), *maps]), image_index, target

    @abstractmethod
    def _maps(self, image: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
        """For each image its targets' maps [T,H,W]; an image may have none."""

    def _map(
        self, image: Tensor, baseline: Tensor, parts: Parts, target: Tensor, times: Tensor | None = None
    ) -> Tensor:
        """Maps [T,H,W] of targets [T] in one image [1,3,H,W]; `times` says how often each part counts."""

        def keep_only(members: Tensor) -> Tensor:
            return masked_images(image, members, baseline)

        def probability(inputs: Tensor) -> Tensor:
            return class_scores(self.explanandum, self.explanandum(inputs))[:, target]

        size = resolved_chunk_size(self.chunk_size, image)
        contribution = contributions(parts, keep_only, probability, size)
        return average_over_parts(parts, contribution, size, times)


class PAMIWindow(_PAMI):
    """PAMI, strategy I: sliding windows.

    Args:
        explanandum: the classifier.
        radius: of the windows in pixels (half the height of rectangles); 40 in Sec. 4.1. Maps of several are averaged.
        step: pixels between neighbouring windows; 6 in Sec. 4.1.
        shape: circle (Sec. 4.1) or rectangle.
        aspect: width over height of a window.
        masking: what replaces the rest of the image; blur in Sec. 4.5.
        chunk_size: masked images of one forward pass; auto fits the device.
    """

    paper = "Shi, Zhang and Wang: PAMI, strategy I"
    needs = "outputs only"
    passes = "a forward per window (224 px: 1444), for all classes"

    def __init__(
        self,
        explanandum: Explanandum,
        radius: float | Sequence[float] = 40,
        step: int = 6,
        shape: Shape = "circle",
        aspect: float = 1.0,
        masking: Masking = "blur",
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum, masking, chunk_size)
        self.radii = list(radius) if isinstance(radius, Sequence) and not isinstance(radius, str) else [radius]
        for each in self.radii:
            number("radius", each)
        whole("step", step)
        number("aspect", aspect)
        one_of("shape", shape, get_args(Shape))
        self.step = step
        self.shape: Shape = shape
        self.aspect = aspect

    def _maps(self, image: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
        baseline = masking_image(image, self.masking, self.explanandum.card)
        height, width = image.shape[-2:]
        scales = [
            Windows(height, width, radius, self.step, self.shape, self.aspect, image.device) for radius in self.radii
        ]
        maps = [no_maps(image)] * len(image)
        for index, target in enumerate(targets):
            if len(target):
                views = [self._map(image[index, None], baseline[index, None], scale, target) for scale in scales]
                maps[index] = torch.stack(views).mean(dim=0)
        return maps


class PAMI(_PAMI):
    """PAMI, strategy II: superpixels of 20 segmentations; in a second run those of the first run's map.

    Args:
        explanandum: the classifier.
        second_run: repeat with superpixels of the first map, whose place the second takes (Sec. 3.2.2).
        shifts: average over thirteen views, shifted by up to 36 pixels around the borders; not in the paper, but in the
            authors' code, at thirteen times the cost.
        masking: what replaces the rest of the image; blur in Sec. 3.2.2.
        chunk_size: masked images of one forward pass; auto fits the device.
        workers: processes that make superpixels while the classifier runs; 0 makes them in between.
        segmentation: whose superpixels: all four algorithms' (Sec. 3.2.2), or one's alone (Fig. 5).
    """

    paper = "Shi, Zhang and Wang: PAMI, strategy II"
    needs = "outputs only"
    passes = "a forward per superpixel (some 400), for all classes; again for the second run, per class"
    newer_options = ("segmentation",)

    def __init__(
        self,
        explanandum: Explanandum,
        second_run: bool = True,
        shifts: bool = False,
        masking: Masking = "blur",
        chunk_size: ChunkSize = "auto",
        workers: int = 0,
        segmentation: Algorithm = "all",
    ) -> None:
        super().__init__(explanandum, masking, chunk_size)
        flag("second_run", second_run)
        flag("shifts", shifts)
        one_of("segmentation", segmentation, get_args(Algorithm))
        self.second_run = second_run
        self.shifts = SHIFTS if shifts else SHIFTS[:1]
        self.segmenter = Segmenter(workers, ALGORITHMS.get(segmentation, SEGMENTATIONS))

    def _maps(self, image: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
        pictures = to_pictures(image, self.explanandum.card)
        used = [index for index, target in enumerate(targets) if len(target)]
        jobs = {index: self._segment(pictures[index]) for index in used}
        maps = [no_maps(image)] * len(image)
        again: dict[int, list[list[Job]]] = {}
        for index in used:
            maps[index] = self._run(image[index, None], jobs.pop(index), targets[index])
            if self.second_run:  # its superpixels are under way while the other images have their first run
                again[index] = [self._segment(viridis(single)) for single in maps[index].cpu().numpy()]
        for index, runs in again.items():
            pairs = zip(runs, targets[index].split(1), strict=True)
            maps[index] = torch.cat([self._run(image[index, None], run, target) for run, target in pairs])
        return maps

    def _segment(self, picture: Picture) -> list[Job]:
        """The superpixels of each view of a picture."""
        return [self.segmenter.start(np.roll(picture, shift, axis=(0, 1))) for shift in self.shifts]

    def _run(self, image: Tensor, jobs: list[Job], target: Tensor) -> Tensor:
        """Maps [T,H,W] of targets [T] in one image [1,3,H,W], the mean over its views."""
        total = torch.zeros((), device=image.device)
        for job, (down, across) in zip(jobs, self.shifts, strict=True):
            segments = Segments(torch.from_numpy(job()).to(image.device))
            view = image.roll((down, across), dims=(2, 3))
            baseline = masking_image(view, self.masking, self.explanandum.card)
            found = self._map(view, baseline, segments, target, segments.times)
            total = total + found.roll((-down, -across), dims=(1, 2))
        return total / len(jobs)
