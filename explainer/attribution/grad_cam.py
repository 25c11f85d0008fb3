"""Grad-CAM (Selvaraju et al., ICCV 2017).

B images, K channels of the target layer of h×w cells, H×W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.attribution.base import AttributionMethod
from explainer.capture import CannotExplain, captured_activation
from explainer.explanandum import Explanandum


class GradCAM(AttributionMethod):
    """ReLU of the target layer's channels, weighted by the spatial mean of the target logit's gradient.

    Args:
        explanandum: the classifier.
        target_layer: name of the layer read; None takes the explanandum's own (its last spatial one, as in the paper).
    """

    def __init__(self, explanandum: Explanandum, target_layer: str | None = None) -> None:
        super().__init__(explanandum)
        self.target_layer = target_layer or explanandum.target_layer

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] >= 0, resized bilinearly from the layer's h×w cells.

        Raises:
            CannotExplain: if the layer's output is no map.
        """
        with torch.enable_grad(), captured_activation(self.explanandum.model, self.target_layer) as captured:
            logits = self.explanandum(image)
            if captured.value.ndim != 4:
                raise CannotExplain(
                    f"Grad-CAM needs a layer that gives maps [B,K,h,w]; '{self.target_layer}' gives "
                    f"{list(captured.value.shape)}. Name another target layer."
                )
            # Summing over images is safe: no image's logit depends on another image's activation.
            (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), captured.value)
        weight = gradient.float().mean(dim=(2, 3), keepdim=True)
        cam = (weight * captured.value.detach().float()).sum(dim=1, keepdim=True).relu()
        return F.interpolate(cam, size=image.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
