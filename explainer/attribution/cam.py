"""What the CAM methods share: a layer's activation and each target's gradient, from one forward pass.

B images, N maps, K channels of the target layer of h×w cells, G maps a target at that size, H×W pixels.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.attribution.backward import target_gradients
from explainer.attribution.base import SharingMethod, differentiating
from explainer.capture import captured_activation
from explainer.explanandum import Explanandum


def enlarge(cells: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Maps [N,G,h,w] -> [N,G,H,W], bilinearly."""
    return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)


class CAM(SharingMethod):
    """A method that reads one layer; subclasses say what they make of its activation and gradient.

    Maps are >= 0, resized bilinearly from the layer's h×w cells. All present classes of a batch take one forward pass,
    and as many backward passes as an image has classes at most. Of a transformer the tokens of the image are the cells.
    A layer whose output is no map, or on which the logits do not depend, raises CannotExplain when maps are asked for.

    Args:
        explanandum: the classifier.
        target_layer: name of the layer read; None takes the explanandum's own, its last spatial one.
    """

    version = 2  # since transformers' own layer is another one

    def __init__(self, explanandum: Explanandum, target_layer: str | None = None) -> None:
        super().__init__(explanandum)
        self.target_layer = explanandum.layer_or_own(target_layer)

    def cells(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,h,w] before they are resized, one target an image, where G = 1; for methods that go on from them."""
        return self._cells(image, torch.arange(len(image), device=target.device), target)[:, 0]

    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        return enlarge(self._cells(image, image_index, target), image.shape[-2:])[:, 0]

    @abstractmethod
    def _combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Activation and gradient [N,K,h,w], float32 -> maps [N,G,h,w]; G = 1 unless `_maps` is overridden."""

    def _cells(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """What `_combine` makes of each target, [N,G,h,w]."""
        with differentiating(), captured_activation(self.explanandum.model, self.target_layer) as captured:
            logits = self.explanandum(image.detach())
            activation = captured.as_maps(captured.value.detach(), image)
            unrelated = f"The logits do not depend on layer '{self.target_layer}'; name another target layer."
            turns, cells = [], []
            for chosen, gradient in target_gradients(logits, captured.value, image_index, target, unrelated):
                turns.append(chosen)
                with torch.no_grad():
                    maps = captured.as_maps(gradient, image)
                    cells.append(self._combine(activation[image_index[chosen]].float(), maps.float()))
        return torch.cat(cells)[torch.cat(turns).argsort()]
