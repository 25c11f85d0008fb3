"""Meaningful perturbation (Fong and Vedaldi, ICCV 2017): MASK in PAMI, EMP in SIGCAM.

B images, h×w cells of a mask; masks lie in [0, 1]: 1 keeps a pixel.
"""

from typing import get_args

import torch
from torch import Tensor

from explainer.attribution.checks import number, one_of, whole
from explainer.attribution.mask_optimisation import (
    DeletionGame,
    MaskOptimiser,
    Regulariser,
    Score,
    checked_descent,
    constant_blur,
)
from explainer.attribution.perturb import ChunkSize, noise_draws
from explainer.explanandum import Explanandum


class EMP(MaskOptimiser):
    """The smallest smooth mask whose deletion lowers the target's score, found by Adam.

    Each iteration costs one forward and backward pass.

    Args:
        explanandum: the classifier.
        iterations: steps of Adam (PAMI, App. B).
        learning_rate: of Adam (PAMI, App. B).
        l1: weight of the deleted area's mean (PAMI, App. B).
        tv: weight of the total variation's mean, β = 3 (PAMI, App. B).
        noise: standard deviation of the noise added to each normalised masked image (the code that PAMI ran).
        mask_size: cells a side (the code that PAMI ran).
        score: what is lowered: the logit, scaled, or the probability (paper), which stalls where it is near 1.
        seed: of the noise.
        chunk_size: masked images of one pass.
    """

    paper = "Fong and Vedaldi, ICCV 2017"
    needs = "gradients"
    passes = "iterations forward and backward (500)"

    TV_POWER = 3
    """β of the total variation (PAMI, App. B)."""

    BLUR = 10.0
    """Standard deviation of the baseline image's blur in pixels (Fong and Vedaldi, Sec. 4)."""

    def __init__(
        self,
        explanandum: Explanandum,
        iterations: int = 500,
        learning_rate: float = 0.1,
        l1: float = 0.01,
        tv: float = 0.2,
        noise: float = 0.2,
        mask_size: int = 28,
        score: Score = "logit",
        seed: int = 0,
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum, mask_size)
        checked_descent(iterations)
        number("learning_rate", learning_rate)
        one_of("score", score, get_args(Score))
        whole("seed", seed, least=0)
        self.score = score
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.regulariser = Regulariser(l1, tv, self.TV_POWER)
        self.noise = noise
        self.seed = seed
        self.chunk_size = chunk_size

    def optimise(self, image: Tensor, target: Tensor, start: Tensor) -> Tensor:
        """The masks [B,h,w] after the last iteration."""
        blurred = constant_blur(image, self.BLUR)(0)
        ends = blurred if self.score == "logit" else None
        game = DeletionGame(self.explanandum, image, target, self.regulariser, self.chunk_size, ends)
        game.baseline = blurred
        masks = start[:, None].clone()
        adam = torch.optim.Adam([masks], self.learning_rate)
        for noise in noise_draws(image, self.iterations, 1, self.noise, self.seed):
            masks.grad = game.gradient(masks, noise)
            adam.step()
            masks.clamp_(0, 1)
        return masks[:, 0]
