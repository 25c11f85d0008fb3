"""Extremal perturbations (Fong, Patrick, Vedaldi, ICCV 2019): of each area, the smooth mask that keeps the most score.

B images, A areas, n masks of one chunk of all N = B·A, h×w cells of a mask, s×s pixels a cell, L levels of blur,
H×W = Z pixels; masks lie in [0, 1]: 1 keeps a pixel.
"""

from collections.abc import Sequence
from math import ceil
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.attribution.base import AttributionMethod, no_maps
from explainer.attribution.checks import number, one_of
from explainer.attribution.mask_optimisation import checked_descent
from explainer.attribution.perturb import ChunkSize, gaussian_blur, gradient_chunk
from explainer.explanandum import Explanandum

Score = Literal["logit", "probability"]


class ExtremalPerturbations(AttributionMethod):
    """For each area the mask that preserves the target's score best; the map is the sum over the areas, smoothed.

    The score is the logit: the weight of the area constraint is made for numbers of that size, and a probability near 1
    tells good masks from better ones no more. All areas of all images are optimised at once. Each iteration costs one
    forward and backward pass an area.

    Args:
        explanandum: the classifier.
        areas: shares of the mask with its margin, numbers or text such as "0.05 0.1" (authors' code for VOC).
        iterations: of gradient descent with momentum (paper).
        smooth: standard deviation of the map's final blur, in multiples of the shorter side (authors' benchmark).
        sigma: width of what one cell of the mask keeps, in pixels of an image of 224 (authors' code); of other images
            the same share. Cells are a third as wide.
        learning_rate: of the descent (paper).
        score: what is preserved: the logit, or the explanandum's probability.
        chunk_size: masked images of one pass.
    """

    paper = "Fong, Patrick and Vedaldi, ICCV 2019"
    needs = "gradients"
    passes = "areas · iterations forward and backward (3200)"

    MOMENTUM = 0.9
    DAMPENING = 0.9
    AREA_WEIGHT = 300.0
    """Of the area constraint in the first iteration (paper)."""
    SIDE = 224
    """Pixels of the images that the authors' numbers are for."""
    BLUR = 20.0
    """Standard deviation of the strongest blur, in pixels of such an image (authors' code)."""
    AREA_GROWTH = 1.0035
    """Its factor from each iteration to the next (authors' code)."""

    def __init__(
        self,
        explanandum: Explanandum,
        areas: Sequence[float] | float | str = (0.025, 0.05, 0.1, 0.2),
        iterations: int = 800,
        smooth: float = 0.09,
        sigma: float = 21.0,
        learning_rate: float = 0.01,
        score: Score = "logit",
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum)
        one_of("score", score, get_args(Score))
        checked_descent(iterations)
        number("sigma", sigma)
        number("smooth", smooth, or_least=True)
        number("learning_rate", learning_rate)
        self.areas = read_areas(areas)
        self.iterations = iterations
        self.smooth = smooth
        self.sigma = sigma
        self.learning_rate = learning_rate
        self.score: Score = score
        self.chunk_size = chunk_size

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] in [0, A]: the sum of the areas' masks."""
        if len(image) == 0:
            return no_maps(image)
        total = self.masks(image, target).sum(dim=1)
        sigma = self.smooth * min(image.shape[-2:])
        return smoothed(total, sigma) if sigma else total

    def masks(self, image: Tensor, target: Tensor) -> Tensor:
        """The masks [B,A,H,W], an area each."""
        image = image.detach()
        scale = min(image.shape[-2:]) / self.SIDE
        family = SmoothMasks(image.shape[-2:], self.sigma * scale, image.device)
        pyramid = blur_pyramid(image, sigma=self.BLUR * scale)
        count = len(image) * len(self.areas)
        rows = torch.arange(len(image), device=image.device).repeat_interleave(len(self.areas))
        area = torch.tensor(self.areas, device=image.device).repeat(len(image))
        cells = torch.ones(count, *family.grid, device=image.device)
        descent = torch.optim.SGD([cells], self.learning_rate, self.MOMENTUM, self.DAMPENING)
        parts = torch.arange(count, device=image.device).split(gradient_chunk(self.chunk_size, image))
        for iteration in range(self.iterations):
            weight = self.AREA_WEIGHT * self.AREA_GROWTH**iteration
            gradients = []
            for part in parts:
                with torch.enable_grad():
                    leaf = cells[part].requires_grad_()
                    mask = family.with_margin(leaf)
                    seen = perturbed(pyramid, rows[part], family.within(mask))
                    kept = self._score(seen, target[rows[part]])
                    loss = weight * area_distance(mask, area[part]) - kept
                    gradients.append(torch.autograd.grad(loss.sum(), leaf)[0])
            cells.grad = torch.cat(gradients)
            descent.step()
            cells.clamp_(0, 1)
        with torch.no_grad():
            masks = torch.cat([family(cells[part]) for part in parts])
        return masks.unflatten(0, (len(image), len(self.areas)))

    def _score(self, image: Tensor, target: Tensor) -> Tensor:
        """Of images [n,3,H,W] and targets [n] -> [n]."""
        logits = self.explanandum(image)
        values = logits.float() if self.score == "logit" else self.explanandum.probabilities(logits)
        return values.gather(1, target[:, None])[:, 0]


def read_areas(areas: Sequence[float] | float | str) -> tuple[float, ...]:
    """Shares of the image as numbers.

    Raises:
        ValueError: if there is none, or one is not between 0 and 1.
    """
    listed = areas.split() if isinstance(areas, str) else [areas] if isinstance(areas, int | float) else areas
    numbers = tuple(float(area) for area in listed)
    if not numbers or not all(0 < area < 1 for area in numbers):
        raise ValueError(f"areas are {areas!r}; give shares of the image between 0 and 1, such as 0.05 0.1.")
    return numbers


class SmoothMasks:
    """Masks of a minimal smoothness: at each pixel the smooth maximum of the cells around, weighted by distance.

    With k(d) = exp(-2 · max(0, d / sigma - 1/2)²) of the distance d between pixel and cell centre, a cell keeps about
    the disc of radius sigma / 2 around it. The smooth maximum of values f is their mean, weighted by exp(f / T) with
    T = 1/20. It is taken at POINTS² points of a cell at most and enlarged bilinearly, which is several times as fast as
    at every pixel and differs by .003 on average (cells of 7 pixels).

    Args:
        size: H, W.
        sigma: in pixels.
        device: of the masks.
    """

    TEMPERATURE = 1 / 20
    POINTS = 3

    def __init__(self, size: tuple[int, int] | torch.Size, sigma: float, device: torch.device) -> None:
        self.height, self.width = size
        self.step = max(1, round(sigma / 3))
        self.grid = (ceil(self.height / self.step), ceil(self.width / self.step))
        self.radius = 1 + ceil(sigma / self.step)
        self.points = min(self.step, self.POINTS)
        point = (torch.arange(self.points, device=device) + 0.5) * self.step / self.points
        cell = (torch.arange(-self.radius, self.radius + 1, device=device) + 0.5) * self.step
        along = (point[:, None] - cell).square()  # [points, 2·radius+1]
        distance = (along[:, None, :, None] + along[None, :, None, :]).sqrt() / sigma
        kernel = torch.exp(-2 * (distance - 0.5).clamp(min=0) ** 2)
        self.kernel = kernel.flatten(2).flatten(0, 1).T  # neighbouring cells × points of one cell
        self.margin = ceil(sigma / self.step)  # cells

    def __call__(self, cells: Tensor) -> Tensor:
        """Cells [n,h,w] -> masks [n,H,W]."""
        return self.within(self.with_margin(cells))

    def within(self, masks: Tensor) -> Tensor:
        """Masks without their margin, [n,H,W]."""
        first = self.margin * self.step
        return masks[:, first : first + self.height, first : first + self.width]

    def with_margin(self, cells: Tensor) -> Tensor:
        """Cells [n,h,w], zero beyond the border -> masks with a margin of sigma pixels at least on each side.

        What a cell at the border keeps counts there, though nobody sees it: else a mask of small area would best lie in
        a corner, where most of its soft rim is cut off.
        """
        padded = F.pad(cells[:, None], (self.radius + self.margin,) * 4)
        neighbours = F.unfold(padded, 2 * self.radius + 1)  # [n, neighbours, h·w]
        values = neighbours[:, :, None] * self.kernel[:, :, None]
        smooth = ((values / self.TEMPERATURE).softmax(dim=1) * values).sum(dim=1)  # [n, points², h·w]
        cells_high, cells_wide = (side + 2 * self.margin for side in self.grid)
        points = F.fold(smooth, (self.points * cells_high, self.points * cells_wide), self.points, stride=self.points)
        size = (self.step * cells_high, self.step * cells_wide)
        return F.interpolate(points, size, mode="bilinear", align_corners=False)[:, 0]


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps [B,H,W], zero beyond the border, blurred: mirrored ones would be larger at the border than elsewhere."""
    size = odd_kernel(sigma)
    reach = size // 2
    return gaussian_blur(F.pad(maps[:, None], (reach,) * 4), size, sigma)[:, 0, reach:-reach, reach:-reach]


def odd_kernel(sigma: float) -> int:
    """Taps of a Gaussian blur that reach three standard deviations."""
    return 2 * ceil(3 * sigma) + 1


def blur_pyramid(image: Tensor, levels: int = 8, *, sigma: float) -> Tensor:
    """Images [B,3,H,W] -> [B,L,3,H,W], from a blur of `sigma` pixels to none in equal steps (authors' code)."""
    sigmas = [sigma * (1 - level / (levels - 1)) for level in range(levels - 1)]
    return torch.stack([*(gaussian_blur(image, odd_kernel(each), each) for each in sigmas), image], dim=1)


def perturbed(pyramid: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Images blurred pixel by pixel, the more the smaller the mask; between two levels linearly.

    Args:
        pyramid: [B,L,3,H,W], from the strongest blur to none.
        rows: image of each mask, [n].
        mask: [n,H,W].

    Returns:
        [n,3,H,W].
    """
    _, levels, channels, height, width = pyramid.shape
    position = mask * (levels - 1)
    low = position.detach().floor().clamp(max=levels - 2)
    share = (position - low)[:, None].to(pyramid.dtype)
    channel = torch.arange(channels, device=mask.device)[:, None, None]
    row = torch.arange(height, device=mask.device)[:, None]
    column = torch.arange(width, device=mask.device)
    image, level = rows[:, None, None, None], low.long()[:, None]
    weaker, stronger = (pyramid[image, level + more, channel, row, column] for more in (1, 0))
    return torch.lerp(stronger, weaker, share)  # exact at both ends


def area_distance(mask: Tensor, area: Tensor) -> Tensor:
    """How far the mask's values, sorted, are from a share `area` of ones above zeros: mean square, [n,H,W], [n] -> [n].

    Only the ⌊Z·area⌉-th largest value has to be known: those above it shall be ones, those below zeros. Of equal values
    there it is not asked which shall be ones; each shall have the same share.
    """
    values = mask.flatten(1)
    count = (area * values.shape[1]).round().long().clamp(min=1)[:, None]
    with torch.no_grad():
        threshold = values.topk(int(count.max()), dim=1).values.gather(1, count - 1)
        above, equal = values > threshold, values == threshold
        share = (count - above.sum(dim=1, keepdim=True)) / equal.sum(dim=1, keepdim=True)
        wanted = above + equal * share
    return (values - wanted).square().mean(dim=1)
