"""I-GOS (Qi, Khorram, Li, AAAI 2020) and iGOS++ (Khorram, Lawson, Li, CHIL 2021): masks by integrated gradients.

B images, n of them in one call, h×w cells of a mask, H×W pixels; masks lie in [0, 1]: 1 keeps a pixel.
"""

from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.attribution.base import AttributionMethod
from explainer.attribution.checks import number, one_of
from explainer.attribution.mask_optimisation import (
    DeletionGame,
    IntegratedDescent,
    MaskOptimiser,
    Regulariser,
    Score,
    checked_descent,
    checked_mask_size,
    constant_blur,
    heatmap,
    last,
)
from explainer.attribution.perturb import ChunkSize
from explainer.explanandum import Explanandum


class IGOS(MaskOptimiser):
    """I-GOS: the smallest smooth mask whose deletion lowers the target's score, found by integrated gradients.

    Each iteration costs `steps` forward and backward passes, and up to twelve forward passes of the line search.

    Args:
        explanandum: the classifier.
        iterations: line searches (authors' code).
        steps: of the integrated gradient (authors' code).
        l1: weight of the deleted area's mean (authors' code).
        tv: weight of the total variation's mean, β = 2 (authors' code).
        noise: standard deviation of the noise added to each step's normalised image (authors' code).
        mask_size: cells a side.
        score: what is lowered: the logit, scaled, or the probability (paper), which stalls where it is near 1.
        seed: of the noise.
        chunk_size: masked images of one pass.
    """

    paper = "Qi, Khorram and Li, AAAI 2020"
    needs = "gradients"
    passes = "iterations · steps forward and backward (300), 30 to 195 forward to search"

    def __init__(
        self,
        explanandum: Explanandum,
        iterations: int = 15,
        steps: int = 20,
        l1: float = 1.0,
        tv: float = 20.0,
        noise: float = 0.2,
        mask_size: int = 28,
        score: Score = "logit",
        seed: int = 0,
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum, mask_size)
        one_of("score", score, get_args(Score))
        checked_descent(iterations, steps)
        self.score = score
        self.descent = IntegratedDescent(iterations, steps, noise, seed)
        self.regulariser = Regulariser(l1, tv)
        self.chunk_size = chunk_size

    def optimise(self, image: Tensor, target: Tensor, start: Tensor) -> Tensor:
        """The masks [B,h,w] after the last iteration."""
        blurred = constant_blur(image)
        ends = blurred(0) if self.score == "logit" else None
        game = DeletionGame(self.explanandum, image, target, self.regulariser, self.chunk_size, ends)
        masks = start[:, None]
        return last(self.descent(game, masks, blurred), masks)[:, 0]


class BilateralGame(DeletionGame):
    """iGOS++'s objective of a deletion mask d and an insertion mask i, that is f(d) - f(1-i) + f(di) - f(1-di).

    f is the target's probability under a mask: d hides what matters, 1-i shows nothing but that, and their product does
    both. The regulariser is the product's.
    """

    signs: ClassVar[tuple[float, ...]] = (1.0, -1.0, 1.0, -1.0)

    def kept(self, masks: Tensor) -> Tensor:
        """Deletion and insertion masks [n,2,h,w] -> the four masks under which the image is seen, [n,4,h,w]."""
        deletion, insertion = masks.unbind(dim=1)
        both = deletion * insertion
        return torch.stack([deletion, 1 - insertion, both, 1 - both], dim=1)


class IGOSpp(AttributionMethod):
    """iGOS++: a deletion mask and an insertion mask, optimised together by integrated gradients; the map of both.

    The probability is the explanandum's: sigmoid if it is multi-label, else softmax. Each iteration costs 4 · `steps`
    forward and backward passes, and up to 52 forward passes of the line search.

    Args:
        explanandum: the classifier.
        iterations: line searches (authors' code).
        steps: of the integrated gradient (authors' code).
        l1: weight of the deleted area's mean (authors' code).
        tv: weight of the total variation, half of it plain, half bilateral; means, β = 2 (authors' code, which takes
            the bilateral half of the enlarged mask).
        noise: standard deviation of the noise added to each step's normalised image (authors' code).
        edge_sigma: difference of normalised colours beyond which neighbours count as two things (authors' code: its
            square is .01).
        mask_size: cells a side.
        seed: of the noise.
        chunk_size: masked images of one pass.
    """

    paper = "Khorram, Lawson and Li, CHIL 2021"
    needs = "gradients"
    passes = "4 · iterations · steps forward and backward (1200), 160 to 1120 forward to search"

    FIRST_STEP = 1000.0
    """Of each line search (authors' code)."""

    def __init__(
        self,
        explanandum: Explanandum,
        iterations: int = 20,
        steps: int = 15,
        l1: float = 1.0,
        tv: float = 20.0,
        noise: float = 0.2,
        edge_sigma: float = 0.1,
        mask_size: int = 28,
        seed: int = 0,
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum)
        checked_descent(iterations, steps)
        number("edge_sigma", edge_sigma)
        self.descent = IntegratedDescent(iterations, steps, noise, seed, self.FIRST_STEP)
        self.l1 = l1
        self.tv = tv
        self.edge_sigma = edge_sigma
        self.mask_size = checked_mask_size(mask_size)
        self.chunk_size = chunk_size

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] in [0, 1]: 1 - up(d · i)."""
        size = (self.mask_size, self.mask_size)
        weights = edge_weights(image.detach().float(), size, self.edge_sigma)
        regulariser = Regulariser(self.l1, self.tv, weights=weights)
        game = BilateralGame(self.explanandum, image, target, regulariser, self.chunk_size)
        start = torch.ones(len(image), 2, *size, device=image.device)
        masks = last(self.descent(game, start, constant_blur(image)), start)
        return heatmap(masks.prod(dim=1), image.shape[-2:])


def edge_weights(image: Tensor, size: tuple[int, int], sigma: float) -> tuple[Tensor, Tensor]:
    """The weights of bilateral total variation: exp(-difference² / sigma²) of neighbouring pixels, averaged over cells.

    The squared difference of two pixels is the mean over their channels. A flat image gives ones.

    Args:
        image: [B,3,H,W].
        size: h, w of the mask.
        sigma: in the image's units.

    Returns:
        Weights [B,h-1,w] of the mask's vertical differences and [B,h,w-1] of its horizontal ones.
    """
    height, width = size
    vertical, horizontal = (
        torch.exp(-image.diff(dim=axis).square().mean(dim=1, keepdim=True) / sigma**2) for axis in (2, 3)
    )
    return (
        F.adaptive_avg_pool2d(vertical, (height - 1, width))[:, 0],
        F.adaptive_avg_pool2d(horizontal, (height, width - 1))[:, 0],
    )
