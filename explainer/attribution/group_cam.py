"""Group-CAM (Zhang, Rao and Yang, 2021): groups of channels, each weighted by what its region does for the score.

B images, N maps, K channels of the target layer of h×w cells, G groups, H×W pixels.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from explainer.attribution.cam import CAM, enlarge
from explainer.attribution.checks import whole
from explainer.attribution.perturb import (
    ChunkSize,
    Classifier,
    checked_blur,
    checked_chunk_size,
    gaussian_blur,
    masked_logits,
)
from explainer.explanandum import Explanandum


def group_maps(activation: Tensor, gradient: Tensor, groups: int) -> Tensor:
    """Sums of the weighted channels of each group (Eq. 1 and 2): [N,K,h,w] -> [N,G,h,w] >= 0."""
    return grouped(gradient.mean(dim=(2, 3), keepdim=True) * activation, groups)


def grouped(channels: Tensor, groups: int) -> Tensor:
    """Sums of the channels of each group, negative ones as zero (Eq. 2): [N,K,h,w] -> [N,G,h,w] >= 0.

    Groups are of consecutive channels and differ in size by one at most; with G > K every channel is one.
    """
    parts = channels.tensor_split(min(groups, channels.shape[1]), dim=1)
    return torch.stack([part.sum(dim=1) for part in parts], dim=1).relu()


def denoise(maps: Tensor, theta: float) -> Tensor:
    """Zero each map's cells that are not greater than its theta-th percentile (Eq. 3): [N,G,h,w] -> [N,G,h,w].

    Between two ranks the percentile is interpolated linearly, as NumPy does.
    """
    cells = maps.flatten(2).sort(dim=2).values
    rank = theta * (cells.shape[2] - 1) / 100
    below, above = cells[..., math.floor(rank)], cells[..., math.ceil(rank)]
    percentile = torch.lerp(below, above, rank - math.floor(rank))
    return maps.where(maps > percentile[..., None, None], 0)


def without_flat(maps: Tensor) -> Tensor:
    """Leave out groups whose map is flat and masks nothing: [N,G,h,w] -> [N,G',h,w].

    G' is what the map with most groups left needs; others are filled up with zero maps, which contribute nothing.
    """
    alive = maps.amax(dim=(2, 3)) > maps.amin(dim=(2, 3))
    order = alive.int().argsort(dim=1, descending=True, stable=True)[:, : int(alive.sum(dim=1).max())]
    ordered = maps.where(alive[..., None, None], 0)
    return ordered.gather(1, order[..., None, None].expand(-1, -1, *maps.shape[2:]))


@dataclass(frozen=True)
class MaskedScores:
    """What the classifier says of images of which all but the regions of the group maps is blurred.

    Args:
        scores: probabilities of all classes, map by map [N,G,C].
        low: minimum of each enlarged map [N,G].
        span: its maximum less its minimum [N,G].
    """

    scores: Tensor
    low: Tensor
    span: Tensor


def masked_scores(
    probabilities: Classifier, image: Tensor, maps: Tensor, blurred: Tensor, chunk_size: ChunkSize
) -> MaskedScores:
    """Enlarge and normalise group maps [N,G,h,w], blur the images outside of them (Eq. 5), and ask the classifier.

    Args:
        probabilities: images -> probabilities of all classes.
        image: [N,3,H,W], normalised.
        maps: of each image.
        blurred: the images, blurred.
        chunk_size: masked images of one forward pass.
    """
    low, span = maps.new_empty(maps.shape[:2]), maps.new_empty(maps.shape[:2])

    def masks(start: int, stop: int) -> Tensor:
        enlarged = enlarge(maps[:, start:stop], image.shape[-2:])
        part = slice(start, stop)
        low[:, part] = enlarged.amin(dim=(2, 3))
        span[:, part] = enlarged.amax(dim=(2, 3)) - low[:, part]
        return normalised(enlarged, low[:, part], span[:, part])

    answers = masked_logits(probabilities, image, masks, maps.shape[1], blurred, chunk_size)
    return MaskedScores(torch.cat([scores for _, scores in answers], dim=1), low, span)


@dataclass(frozen=True)
class Contribution:
    """What the group masks did to the score.

    Args:
        alpha: gain in the target's probability over the blurred image (Eq. 6) [N,G].
        low: minimum of each enlarged map [N,G].
        span: its maximum less its minimum [N,G].
    """

    alpha: Tensor
    low: Tensor
    span: Tensor


class _Grouped(CAM):
    """Group maps, asked one by one; subclasses say how they are filtered and merged."""

    def __init__(
        self,
        explanandum: Explanandum,
        groups: int,
        kernel_size: int,
        sigma: float,
        target_layer: str | None,
        chunk_size: ChunkSize,
    ) -> None:
        super().__init__(explanandum, target_layer)
        whole("groups", groups)
        checked_blur(kernel_size, sigma)
        self.groups = groups
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.chunk_size = checked_chunk_size(chunk_size)

    @abstractmethod
    def _filtered(self, maps: Tensor) -> Tensor:
        """Group maps [N,G,h,w] -> those that become masks."""

    @abstractmethod
    def _merged(self, maps: Tensor, contribution: Contribution) -> Tensor:
        """Filtered group maps [N,G,h,w] -> maps [N,h,w]."""

    def _combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return group_maps(activation, gradient, self.groups)

    @torch.no_grad()
    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        maps = without_flat(self._filtered(self._cells(image, image_index, target)))
        if maps.shape[1] == 0:
            return torch.zeros(len(target), *image.shape[-2:], device=image.device)
        merged = self._merged(maps, self._contribution(image, image_index, target, maps))
        return enlarge(merged[:, None], image.shape[-2:])[:, 0].relu()

    def _contribution(self, image: Tensor, image_index: Tensor, target: Tensor, maps: Tensor) -> Contribution:
        blurred = gaussian_blur(image, self.kernel_size, self.sigma)
        before = self._probabilities(blurred)[image_index, target, None]
        masked = masked_scores(self._probabilities, image[image_index], maps, blurred[image_index], self.chunk_size)
        of_target = masked.scores[torch.arange(len(target), device=target.device), :, target]
        return Contribution(of_target - before, masked.low, masked.span)

    def _probabilities(self, image: Tensor) -> Tensor:
        return self.explanandum.probabilities(self.explanandum(image))


def normalised(maps: Tensor, low: Tensor, span: Tensor) -> Tensor:
    """(maps - low) / span, a flat map becoming zero: maps [N,G,h,w], low and span [N,G]."""
    smallest = torch.finfo(span.dtype).tiny
    return (maps - low[..., None, None]) / span.clamp(min=smallest)[..., None, None]


def summed(maps: Tensor, weight: Tensor) -> Tensor:
    """Maps [N,G,h,w] weighted by [N,G] -> [N,h,w]."""
    return (maps * weight[..., None, None]).sum(dim=1)


def merged(maps: Tensor, contribution: Contribution) -> Tensor:
    """Sum of the enlarged, normalised maps, weighted by what they contribute (Eq. 7): [N,G,h,w] -> [N,h,w]."""
    # Enlarging is linear and keeps constants: once, at the end, is the same.
    return summed(normalised(maps, contribution.low, contribution.span), contribution.alpha)


@torch.no_grad()
def light_group_cam(
    probabilities: Classifier,
    image: Tensor,
    activation: Tensor,
    blurred: Tensor,
    labels: Tensor,
    groups: int = 16,
    chunk_size: ChunkSize = "auto",
) -> tuple[Tensor, Tensor]:
    """Group-CAM without importance weights and de-noising (Sec. 5): Eq. 2 and 4-7 with w = 1, no backward pass.

    Without weights a group's mask is the same for all classes of an image: one round of masked images serves them all.

    Args:
        probabilities: images -> probabilities of all classes.
        image: [B,3,H,W], normalised.
        activation: of the target layer, at these images [B,K,h,w].
        blurred: the images [B,3,H,W], blurred.
        labels: multi-hot [B,C]; a map is made for each present class.
        groups: G (Sec. 5); of consecutive channels.
        chunk_size: masked images of one forward pass.

    Returns:
        Maps [N,H,W] >= 0, one per (image, present class), and for each the image's index [N].
    """
    image_index, target = labels.bool().nonzero(as_tuple=True)
    maps = without_flat(grouped(activation.float(), groups))
    if maps.shape[1] == 0 or len(target) == 0:
        return image.new_zeros(len(target), *image.shape[-2:]), image_index
    masked = masked_scores(probabilities, image, maps, blurred, chunk_size)
    alpha = masked.scores[image_index, :, target] - probabilities(blurred)[image_index, target][:, None]
    cells = merged(maps[image_index], Contribution(alpha, masked.low[image_index], masked.span[image_index]))
    return enlarge(cells[:, None], image.shape[-2:])[:, 0].relu(), image_index


class GroupCAM(_Grouped):
    """Group-CAM as in the paper (Algorithm 1, Eq. 1-7).

    The gradient is that of the target's logit; a group's contribution is measured in the target's probability: softmax
    as in the paper, or sigmoid where the classes of the explanandum are independent. Contributions may be negative.
    As in the authors' code, a map is filtered first, then enlarged, and normalised last, and flat maps are passed over.

    Args:
        explanandum: the classifier.
        groups: G (Sec. 4.1); of consecutive channels.
        theta: percentile up to which a group's cells are taken for noise (Sec. 4.1); None keeps them all, while 0 takes
            away the lowest, as Eq. 3 reads.
        kernel_size: of the blur that replaces what a mask hides (the authors' code).
        sigma: likewise.
        target_layer: name of the layer read; None takes the explanandum's own, its last spatial one.
        chunk_size: masked images of one forward pass.
    """

    paper = "Zhang, Rao and Yang: Group-CAM, 2021"
    needs = "activations and gradients"
    passes = "groups + 2 forward (34), 1 backward to the layer"

    def __init__(
        self,
        explanandum: Explanandum,
        groups: int = 32,
        theta: float | None = 70.0,
        kernel_size: int = 51,
        sigma: float = 50.0,
        target_layer: str | None = None,
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum, groups, kernel_size, sigma, target_layer, chunk_size)
        if theta is not None and not (isinstance(theta, int | float) and 0 <= theta < 100):
            raise ValueError(f"theta is {theta!r}; give a percentile from 0 to below 100, or null for none.")
        self.theta = theta

    def _filtered(self, maps: Tensor) -> Tensor:
        return maps if self.theta is None else denoise(maps, self.theta)

    def _merged(self, maps: Tensor, contribution: Contribution) -> Tensor:
        return merged(maps, contribution)


class GroupCAMHead(_Grouped):
    """Group-CAM as the authors' code became after the paper.

    It differs from the paper in three ways: no cell is filtered out, negative contributions count as zero, and the maps
    that are summed are not normalised (the masks are). Flat maps, which break the authors' code, are passed over.

    Args:
        explanandum: the classifier.
        groups: G (the paper's Sec. 4.1); of consecutive channels.
        kernel_size: of the blur that replaces what a mask hides (the authors' code).
        sigma: likewise.
        target_layer: name of the layer read; None takes the explanandum's own, its last spatial one.
        chunk_size: masked images of one forward pass.
    """

    paper = "Zhang, Rao and Yang: Group-CAM, the authors' later code"
    needs = "activations and gradients"
    passes = "groups + 2 forward (34), 1 backward to the layer"

    def __init__(
        self,
        explanandum: Explanandum,
        groups: int = 32,
        kernel_size: int = 51,
        sigma: float = 50.0,
        target_layer: str | None = None,
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum, groups, kernel_size, sigma, target_layer, chunk_size)

    def _filtered(self, maps: Tensor) -> Tensor:
        return maps

    def _merged(self, maps: Tensor, contribution: Contribution) -> Tensor:
        return summed(maps, contribution.alpha.relu())
