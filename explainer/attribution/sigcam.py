"""Activation maps that a perturbation method improves: AOP, and its instance SIGCAM (Zhang, Rao, Yang).

B images, h×w cells of a mask, H×W pixels; masks lie in [0, 1]: 1 keeps a pixel. Activation maps M are large where the
class is; the start mask is 1 - M.
"""

from typing import Any, cast, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from explainer.attribution.base import AttributionMethod, no_maps
from explainer.attribution.cam import CAM
from explainer.attribution.checks import one_of
from explainer.attribution.mask_optimisation import (
    BLUR_KERNEL,
    BLUR_SIGMA,
    BaselineOf,
    DeletionGame,
    IntegratedDescent,
    MaskOptimiser,
    Regulariser,
    Score,
    checked_descent,
    enlarge,
    heatmap,
    last,
)
from explainer.attribution.perturb import ChunkSize, gaussian_blur, min_max
from explainer.explanandum import Explanandum


def filtered(maps: Tensor, theta: float, factor: float) -> Tensor:
    """Maps in [0, 1] with what is below θ set to zero, times λ (Eq. 5)."""
    return factor * maps.where(maps >= theta, 0.0)


def named_method(text: str, explanandum: Explanandum, **more: object) -> AttributionMethod:
    """The method that `text` names, as on the command line; of `more` it gets what it takes."""
    from explainer.attribution.spec import parse_method  # it knows all methods, this one among them

    return parse_method(text).build(explanandum, **more)


class AOP(AttributionMethod):
    """Any method's map, improved by any mask optimiser: 1 - M is where the optimiser starts.

    M is the base map, scaled to [0, 1] and shrunk to the mask's size. A flat base map is the optimiser's usual start.

    Args:
        explanandum: the classifier.
        base: the method of the base map, as NAME or NAME:option=value.
        optimiser: the method that optimises the mask, likewise.
        theta: what of M lies below is set to zero (Eq. 5, which the paper uses for SIGCAM only).
        factor: λ of Eq. 5.
        network: a trained Explainer, for a base that needs one.
    """

    paper = "Zhang, Rao and Yang: AOP"
    needs = "what base and optimiser need"
    passes = "those of base and optimiser"

    def __init__(
        self,
        explanandum: Explanandum,
        base: str = "grad_cam",
        optimiser: str = "i_gos",
        theta: float = 0.0,
        factor: float = 1.0,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__(explanandum)
        self.base = named_method(base, explanandum, **({} if network is None else {"network": network}))
        improver = named_method(optimiser, explanandum)
        if not isinstance(improver, MaskOptimiser):
            raise ValueError(f"'{optimiser}' can't start from a base map; choose an optimiser of: i_gos, mask.")
        self.optimiser = improver
        self.theta = theta
        self.factor = factor

    @property
    def versions(self) -> list[Any]:
        """Its own, and those of the base method and of the optimiser."""
        return [self.version, self.base.versions, self.optimiser.versions]

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Those of the base method and of the optimiser."""
        return (*self.base.modules, *self.optimiser.modules)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] in [0, 1]: 1 - up(m*)."""
        start = self.start(self.base(image, target))
        return heatmap(self.optimiser.optimise(image, target, start), image.shape[-2:])

    def start(self, base: Tensor) -> Tensor:
        """Base maps [B,H,W] -> the masks [B,h,w] that the optimiser starts from."""
        size = (self.optimiser.mask_size, self.optimiser.mask_size)
        shrunk = F.interpolate(base[:, None], size=size, mode="area")[:, 0]
        return 1 - filtered(min_max(shrunk), self.theta, self.factor)


class SIGCAM(AttributionMethod):
    """WGradCAM's map, improved by I-GOS: the start mask is 1 - up(λ · M where M >= θ), the first blurs are weaker.

    Args:
        explanandum: the classifier.
        target_layer: that WGradCAM reads; None takes the explanandum's own.
        theta: what of WGradCAM's map lies below is set to zero (Sec. 4: .7 for ImageNet; .6 for COCO).
        factor: λ (Sec. 4: .15 for ImageNet; .25 for COCO).
        warm_up: first iterations with a smaller blur (Sec. 4).
        iterations: line searches, the warm-up's among them (as I-GOS).
        l1: weight of the deleted area's mean (as I-GOS).
        tv: weight of the total variation's mean (as I-GOS).
        score: what is lowered: the logit, scaled, or the probability (paper), which stalls where it is near 1.
        chunk_size: masked images of one pass.
    """

    paper = "Zhang, Rao and Yang: SIGCAM"
    needs = "activations and gradients"
    passes = "as i_gos and wgrad_cam"

    MASK_SIZE = 28
    """Cells a side (Sec. 4)."""

    WARM_UP_SIGMA = 10.0
    """Of the first iteration's blur; the paper says "smaller" than the later 50."""

    def __init__(
        self,
        explanandum: Explanandum,
        target_layer: str | None = None,
        theta: float = 0.7,
        factor: float = 0.15,
        warm_up: int = 5,
        iterations: int = 15,
        l1: float = 1.0,
        tv: float = 20.0,
        score: Score = "logit",
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum)
        one_of("score", score, get_args(Score))
        checked_descent(iterations)
        self.score = score
        self.base = cast(CAM, named_method("wgrad_cam", explanandum, target_layer=target_layer))
        self.theta = theta
        self.factor = factor
        self.warm_up = warm_up
        self.descent = IntegratedDescent(iterations)
        self.regulariser = Regulariser(l1, tv)
        self.chunk_size = chunk_size

    @property
    def versions(self) -> list[Any]:
        """Its own, and that of the base method."""
        return [self.version, self.base.versions]

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] in [0, 1]: 1 - up(M*).

        Raises:
            CannotExplain: if the target layer's output is no map.
        """
        if len(image) == 0:
            return no_maps(image)
        blurred = warming_blur(image, self.warm_up, self.WARM_UP_SIGMA)
        ends = blurred(self.warm_up) if self.score == "logit" else None
        game = DeletionGame(self.explanandum, image, target, self.regulariser, self.chunk_size, ends)
        start = self.start(image, target)[:, None]
        masks = last(self.descent(game, start, blurred), start)
        return heatmap(masks[:, 0], image.shape[-2:])

    def start(self, image: Tensor, target: Tensor) -> Tensor:
        """The base mask [B,h,w] (Eq. 5 and below): filtered at the layer's own size, then enlarged."""
        cells = filtered(min_max(self.base.cells(image, target)), self.theta, self.factor)
        return 1 - enlarge(cells, (self.MASK_SIZE, self.MASK_SIZE))


def warming_blur(image: Tensor, warm_up: int, first_sigma: float) -> BaselineOf:
    """Blurred images whose σ grows linearly during the warm-up, from `first_sigma` to the full blur's."""
    image = image.detach()
    full = gaussian_blur(image, BLUR_KERNEL, BLUR_SIGMA)

    def blurred(iteration: int) -> Tensor:
        if iteration >= warm_up:
            return full
        sigma = first_sigma + (BLUR_SIGMA - first_sigma) * iteration / warm_up
        return gaussian_blur(image, BLUR_KERNEL, sigma)

    return blurred
