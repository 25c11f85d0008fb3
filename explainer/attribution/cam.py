"""What the CAM methods share: a layer's activation and each target's gradient, from one forward pass.

B images, N maps, K channels of the target layer of h×w cells, G maps a target at that size, H×W pixels.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.attribution.base import AttributionMethod, no_maps
from explainer.capture import CannotExplain, captured_activation
from explainer.explanandum import Explanandum


def enlarge(cells: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Maps [N,G,h,w] -> [N,G,H,W], bilinearly."""
    return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)


def turn_of_each(image_index: Tensor) -> Tensor:
    """Number each map within its image: `image_index` [N], sorted, e.g. [0, 0, 2, 2, 2] -> [0, 1, 0, 1, 2]."""
    count = image_index.bincount()
    first = count.cumsum(0) - count
    return torch.arange(len(image_index), device=image_index.device) - first[image_index]


class CAM(AttributionMethod):
    """A method that reads one layer; subclasses say what they make of its activation and gradient.

    Args:
        explanandum: the classifier.
        target_layer: name of the layer read; None takes the explanandum's own, its last spatial one.
    """

    def __init__(self, explanandum: Explanandum, target_layer: str | None = None) -> None:
        super().__init__(explanandum)
        self.target_layer = explanandum.layer_or_own(target_layer)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] >= 0, resized bilinearly from the layer's h×w cells.

        Raises:
            CannotExplain: if the layer's output is no map, or the logits do not depend on it.
        """
        return self._all_maps(image, torch.arange(len(image), device=target.device), target)

    def present_class_maps(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All present classes from one forward pass, and as many backward passes as an image has classes at most."""
        image_index, target = labels.bool().nonzero(as_tuple=True)
        used, position = image_index.unique(return_inverse=True)
        return self._all_maps(image[used], position, target), image_index, target

    def cells(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,h,w] before they are resized, one target an image, where G = 1; for methods that go on from them."""
        return self._cells(image, torch.arange(len(image), device=target.device), target)[:, 0]

    def _all_maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        if len(target) == 0:
            return no_maps(image)
        return self._maps(image, image_index, target)

    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """Maps [N,H,W] of targets [N] in the images [N] of the batch, which are sorted."""
        return enlarge(self._cells(image, image_index, target), image.shape[-2:])[:, 0]

    @abstractmethod
    def _combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Activation and gradient [N,K,h,w], float32 -> maps [N,G,h,w]; G = 1 unless `_maps` is overridden."""

    def _cells(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """What `_combine` makes of each target, [N,G,h,w]."""
        if torch.is_inference_mode_enabled():
            raise CannotExplain(
                "A CAM method takes gradients, which torch.inference_mode() forbids; use torch.no_grad()."
            )
        with torch.enable_grad(), captured_activation(self.explanandum.model, self.target_layer) as captured:
            logits = self.explanandum(image.detach())
            self._check(captured.value)
            turn = turn_of_each(image_index)
            turns = [(turn == index).nonzero()[:, 0] for index in range(int(turn.max()) + 1)]
            cells = []
            for left, rows in enumerate(turns, start=1 - len(turns)):
                images = image_index[rows]
                # Summing over images is safe: no image's logit depends on another image's activation.
                score = logits[images, target[rows]].sum()
                gradient = self._gradient(score, captured.value, more_to_come=left < 0)
                with torch.no_grad():
                    cells.append(self._combine(captured.value.detach()[images].float(), gradient[images].float()))
        return torch.cat(cells)[torch.cat(turns).argsort()]

    def _check(self, activation: Tensor) -> None:
        if activation.ndim != 4:
            raise CannotExplain(
                f"A CAM method needs a layer that gives maps [B,K,h,w]; '{self.target_layer}' gives "
                f"{list(activation.shape)}. Name another target layer."
            )

    def _gradient(self, score: Tensor, activation: Tensor, *, more_to_come: bool) -> Tensor:
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score, activation, retain_graph=more_to_come, allow_unused=True)
        if gradient is None:
            raise CannotExplain(f"The logits do not depend on layer '{self.target_layer}'; name another target layer.")
        return gradient
