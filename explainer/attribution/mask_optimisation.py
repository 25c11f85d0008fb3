"""What the methods share that optimise a small mask: how it is applied, its regularisers, the descent of I-GOS.

B images, n of them in one call (`rows` says which), K masks an image, J ways in which they hide parts of it, S steps of
the integrated gradient, h×w cells of a mask, H×W pixels; masks lie in [0, 1]: 1 keeps a pixel, 0 replaces it by the
baseline image.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.attribution.base import AttributionMethod
from explainer.attribution.checks import whole
from explainer.attribution.perturb import ChunkSize, gaussian_blur, gradient_chunk, noise_draws
from explainer.explanandum import Explanandum

BLUR_KERNEL = 51
"""Taps of the baseline image's blur (SIGCAM, Experimental Setup)."""

BLUR_SIGMA = 50.0
"""Its standard deviation in pixels (SIGCAM, Experimental Setup)."""

Objective = Callable[[Tensor, Tensor], Tensor]
"""(masks [n,K,h,w], rows [n]) -> what is minimised, [n]; no value depends on another image's masks."""

BaselineOf = Callable[[int], Tensor]
"""Iteration, from 0 -> baseline images [B,3,H,W], normalised."""


def enlarge(mask: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Masks [n,h,w] -> [n,H,W], bilinearly; cells and pixels share the image's outline (`align_corners` off)."""
    return F.interpolate(mask[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def heatmap(mask: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """How much was deleted where, 1 - up(m): masks [B,h,w] -> [B,H,W] in [0, 1]."""
    return 1 - enlarge(mask, size).float().clamp(0, 1)


def total_variation(mask: Tensor, power: float = 2, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Mean of |difference|^power of vertical neighbours, plus that of horizontal ones: masks [n,h,w] -> [n].

    Args:
        mask: the small masks.
        power: the exponent, β in the papers.
        weights: of the vertical [n,h-1,w] and the horizontal differences [n,h,w-1]; all one if not given.
    """
    differences = [mask.diff(dim=axis).abs() ** power for axis in (1, 2)]
    if weights is not None:
        differences = [weight * difference for weight, difference in zip(weights, differences, strict=True)]
    vertical, horizontal = (difference.flatten(1).mean(dim=1) for difference in differences)
    return vertical + horizontal


@dataclass(frozen=True)
class Regulariser:
    """l1 · mean |1 - m| + tv · TV(m): little is deleted, in one piece (SIGCAM, Eq. 6; means, as in I-GOS's settings).

    Args:
        l1: weight of the deleted area, λ1.
        tv: weight of the total variation, λ2.
        power: its exponent β.
        weights: of the differences of all B images' masks. With them the total variation is the mean of the plain one
            and of one that spares the image's edges, as in iGOS++.
    """

    l1: float
    tv: float
    power: float = 2
    weights: tuple[Tensor, Tensor] | None = None

    def __call__(self, mask: Tensor, rows: Tensor) -> Tensor:
        """Masks [n,h,w] of the images `rows` [n] -> [n]."""
        deleted = (1 - mask).abs().flatten(1).mean(dim=1)
        variation = total_variation(mask, self.power)
        if self.weights is not None:
            chosen = (self.weights[0][rows], self.weights[1][rows])
            variation = (variation + total_variation(mask, self.power, chosen)) / 2
        return self.l1 * deleted + self.tv * variation


Score = Literal["logit", "probability"]
"""What of the target is lowered.

The probability is the papers' choice. But of a class that the classifier is sure of it is so close to 1 that no small
deletion lowers it by as much as it costs: the line search refuses every step. Hence the logit, in multiples of what
blurring the whole image takes away, so that the regulariser's weights mean what they meant.
"""


class DeletionGame:
    """What is minimised: the target's score where a mask hides parts of the image, plus the regulariser (Eq. 6).

    The score is the explanandum's probability (sigmoid if it is multi-label, else softmax), or its logit, scaled.

    Args:
        explanandum: the classifier.
        image: [B,3,H,W], normalised.
        target: [B].
        regulariser: of an image's combined mask.
        chunk_size: masked images of one pass; "auto" is a quarter of what fits without gradients.
        blurred: for the logit: images [B,3,H,W] without a trace of the target; the score is the logit's share of the
            way from theirs (0) to that of the image (1). None for the probability.
    """

    signs: ClassVar[tuple[float, ...]] = (1.0,)
    """Of the J scores in the sum that is minimised."""

    def __init__(
        self,
        explanandum: Explanandum,
        image: Tensor,
        target: Tensor,
        regulariser: Regulariser,
        chunk_size: ChunkSize = "auto",
        blurred: Tensor | None = None,
    ) -> None:
        self.explanandum = explanandum
        self.image = image.detach()
        self.target = target
        self.baseline = torch.zeros_like(self.image)
        self.regulariser = regulariser
        self.chunk = gradient_chunk(chunk_size, image)
        self.ends = None if blurred is None else self._ends(blurred)

    def _ends(self, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """The target's logit for the blurred images, and how much higher it is for the images, at least 1: [B] each."""
        with torch.no_grad():
            low, high = (
                torch.cat([self.explanandum(part).float() for part in images.split(self.chunk)]).gather(
                    1, self.target[:, None]
                )[:, 0]
                for images in (blurred, self.image)
            )
        return low, (high - low).clamp(min=1)

    def kept(self, masks: Tensor) -> Tensor:
        """The masks under which the classifier sees the image: [n,K,h,w] -> [n,J,h,w]."""
        return masks

    def objective(self, masks: Tensor, rows: Tensor) -> Tensor:
        """What is minimised, [n], of masks [n,K,h,w] of the images `rows` [n]; without noise, hence repeatable."""
        with torch.no_grad():
            kept = self.kept(masks)
            flat, image_index = kept.flatten(0, 1), rows.repeat_interleave(kept.shape[1])
            parts = torch.arange(len(flat), device=rows.device).split(self.chunk)
            score = torch.cat([self._score(flat[part], image_index[part]) for part in parts])
            signs = score.new_tensor(self.signs)
            # No matrix product, which autocast would round.
            total = (score.unflatten(0, kept.shape[:2]) * signs).sum(dim=1)
            return total + self.regulariser(masks.prod(dim=1), rows)

    def gradient(self, masks: Tensor, noise: Tensor) -> Tensor:
        """The objective's integrated gradient by all images' masks [B,K,h,w].

        The score's part is the mean over s = 1 … S of its gradient under s/S times the kept mask (or 1 - s/S times what
        is not kept, where the score is raised), with noise_s added to the masked image; S = 1 is the ordinary gradient.

        Args:
            masks: [B,K,h,w].
            noise: [S,3,H,W]; all images get the same, so that a batch gives what its images give one by one.
        """
        with torch.enable_grad():
            leaf = masks.detach().clone().requires_grad_()
            regulariser = self.regulariser(leaf.prod(dim=1), torch.arange(len(leaf), device=leaf.device))
            (gradient,) = torch.autograd.grad(regulariser.sum(), leaf)
            steps, ways = len(noise), len(self.signs)
            for part in torch.arange(steps * len(leaf) * ways, device=leaf.device).split(self.chunk):
                step, item = part // (len(leaf) * ways), part % (len(leaf) * ways)
                share = ((step + 1) / steps).to(leaf.dtype)[:, None, None]
                sign = leaf.new_tensor(self.signs)[item % ways]
                kept = self.kept(leaf).flatten(0, 1)[item]
                # What is lowered comes from the baseline image, what is raised from the whole one.
                kept = torch.where(sign[:, None, None] > 0, share * kept, 1 - share * (1 - kept))
                score = self._score(kept, item // ways, noise[step])
                total = (score * sign).sum() / steps
                gradient = gradient + torch.autograd.grad(total, leaf)[0]
        return gradient

    def _score(self, kept: Tensor, rows: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """Of the target, under one small mask each: [n,h,w], rows [n], noise [n,3,H,W] -> [n]."""
        weight = enlarge(kept, self.image.shape[-2:])[:, None]
        seen = weight * self.image[rows] + (1 - weight) * self.baseline[rows] + noise
        logits = self.explanandum(seen.to(self.image.dtype))
        target = self.target[rows, None]
        if self.ends is None:
            return self.explanandum.probabilities(logits).gather(1, target)[:, 0]
        low, span = self.ends
        # No reward below 0: to hide more than the blur does is to fool the classifier.
        return ((logits.float().gather(1, target)[:, 0] - low[rows]) / span[rows]).clamp(min=0)


def line_search(
    objective: Objective,
    masks: Tensor,
    gradient: Tensor,
    *,
    first_step: float = 200.0,
    shrink: float = 0.2,
    smallest_step: float = 1e-5,
    armijo: float = 1e-4,
) -> Tensor:
    """Each image's masks after the longest step along -gradient that its objective accepts, clamped to [0, 1].

    A step t is accepted where the objective falls by armijo · t · |gradient|² at least, and by more than its rounding.
    An image whose every step is refused keeps its masks: the objective never grows.

    Args:
        objective: what is minimised; asked about the images that still search only.
        masks: [B,K,h,w].
        gradient: likewise.
        first_step: tried first (I-GOS: 200).
        shrink: each next step in multiples of the last.
        smallest_step: below it the search ends.
        armijo: how much of the expected decrease is demanded.
    """
    rows, rounding = torch.arange(len(masks), device=masks.device), 8 * torch.finfo(masks.dtype).eps
    square = gradient.flatten(1).square().sum(dim=1)
    before, found, step = objective(masks, rows), masks.clone(), first_step
    while len(rows) and step >= smallest_step:
        moved = (masks[rows] - step * gradient[rows]).clamp(0, 1)
        # Steps within the rounding would be accepted by chance, and a batch would differ from its images.
        demanded = torch.maximum(armijo * step * square[rows], rounding * before[rows].abs())
        accepted = before[rows] - objective(moved, rows) >= demanded
        found[rows[accepted]] = moved[accepted]
        rows, step = rows[~accepted], step * shrink
    return found


@dataclass(frozen=True)
class IntegratedDescent:
    """I-GOS's descent: integrated gradients of a noisy image, each followed by a line search without noise.

    Args:
        iterations: line searches.
        steps: S, of the integrated gradient.
        noise: its standard deviation.
        seed: of the noise.
        first_step: of each line search.
    """

    iterations: int = 15
    steps: int = 20
    noise: float = 0.2
    seed: int = 0
    first_step: float = 200.0

    def __post_init__(self) -> None:
        whole("seed", self.seed, least=0)

    def __call__(self, game: DeletionGame, masks: Tensor, baseline: BaselineOf) -> Iterator[Tensor]:
        """The masks [B,K,h,w] after each iteration."""
        draws = noise_draws(game.image, self.iterations, self.steps, self.noise, self.seed)
        for iteration, noise in enumerate(draws):
            game.baseline = baseline(iteration)
            gradient = game.gradient(masks, noise)
            masks = line_search(game.objective, masks, gradient, first_step=self.first_step)
            yield masks


def constant_blur(image: Tensor, sigma: float = BLUR_SIGMA) -> BaselineOf:
    """The same blurred images in every iteration."""
    blurred = gaussian_blur(image.detach(), BLUR_KERNEL, sigma)
    return lambda _: blurred


def checked_descent(iterations: int, steps: int = 1) -> None:
    """Refuse what is no number of iterations or steps; without any iteration the start is the result.

    Raises:
        ValueError: if one is not a whole number, or too small.
    """
    whole("iterations", iterations, least=0)
    whole("steps", steps)


def checked_mask_size(mask_size: int) -> int:
    """The size itself, if a mask of so many cells a side has neighbours to compare."""
    if mask_size < 2:
        raise ValueError(f"mask_size is {mask_size}; a mask has a total variation from 2 cells a side on.")
    return mask_size


def last(iterates: Iterator[Tensor], start: Tensor) -> Tensor:
    """The last of some iterates, or where they would have started if there is none."""
    found = start
    for masks in iterates:
        found = masks
    return found


class MaskOptimiser(AttributionMethod):
    """A method that improves one small deletion mask an image, from any start; its map is what the mask deletes.

    Args:
        explanandum: the classifier.
        mask_size: h = w.
    """

    def __init__(self, explanandum: Explanandum, mask_size: int) -> None:
        super().__init__(explanandum)
        self.mask_size = checked_mask_size(mask_size)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] in [0, 1]: 1 - up(m*), from a start that deletes nothing."""
        start = torch.ones(len(image), self.mask_size, self.mask_size, device=image.device)
        return heatmap(self.optimise(image, target, start), image.shape[-2:])

    @abstractmethod
    def optimise(self, image: Tensor, target: Tensor, start: Tensor) -> Tensor:
        """The best masks found, [B,h,w], from the start masks [B,h,w], which are left alone."""
