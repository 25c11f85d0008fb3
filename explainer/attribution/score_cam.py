"""Score-CAM (Wang et al., CVPR Workshops 2020).

B images, T targets of one image, K channels of the target layer of h×w cells, n channels of one chunk, H×W pixels.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.attribution.base import AttributionMethod, no_maps, present_classes
from explainer.attribution.checks import one_of
from explainer.attribution.perturb import (
    ChunkSize,
    checked_chunk_size,
    class_scores,
    masked_logits,
    min_max,
    weighted_sum,
)
from explainer.capture import captured_activation
from explainer.explanandum import Explanandum

Weighting = Literal["softmax", "increase"]
"""How a channel's weight comes from what the classifier says about the image under it."""


class ScoreCAM(AttributionMethod):
    """ReLU of the target layer's channels, weighted by the target's score for what each channel shows.

    Channels that are the same everywhere show nothing: they are left out, and cost no pass.

    Args:
        explanandum: the classifier.
        target_layer: name of the layer read; None takes the explanandum's own (its last spatial one, as in the paper).
        weighting: a channel's weight. `softmax` over the channels, as in Algorithm 1, of the increase of the target's
            logit; the logit of an empty image, which is subtracted there, makes no difference to it and is not asked
            for. Of probabilities, which differ by 1 at most, it would leave nearly equal weights, whatever the class.
            `increase` takes the probability's increase over an empty image itself, as Eq. 7 reads without that
            algorithm.
        chunk_size: masked images of one forward pass; auto fits the device.
    """

    paper = "Wang et al., CVPR Workshops 2020"
    needs = "activations"
    version = 2  # since transformers' own layer is another one
    passes = "channels + 1 forward (VGG-16: 513), for all classes"

    def __init__(
        self,
        explanandum: Explanandum,
        target_layer: str | None = None,
        weighting: Weighting = "softmax",
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum)
        one_of("weighting", weighting, get_args(Weighting))
        self.target_layer = explanandum.layer_or_own(target_layer)
        self.weighting = weighting
        self.chunk_size = checked_chunk_size(chunk_size)

    @torch.no_grad()
    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] >= 0, resized bilinearly from the layer's h×w cells.

        Raises:
            CannotExplain: if the layer's output is no map.
        """
        return self._maps(image, target.split(1)) if len(image) else no_maps(image)

    @torch.no_grad()
    def present_class_maps(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All present classes of an image from the same passes."""
        image_index, target = present_classes(image, labels)
        used, counts = image_index.unique(return_counts=True)
        if len(used) == 0:
            return no_maps(image), image_index, target
        return self._maps(image[used], target.split(counts.tolist())), image_index, target

    def _maps(self, image: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """The maps of all images' targets, one after the other."""
        activation = self._activation(image)
        cams = [
            self._cam(single, channels, target)
            for single, channels, target in zip(image.split(1), activation, targets, strict=True)
        ]
        return F.interpolate(torch.cat(cams)[:, None], image.shape[-2:], mode="bilinear", align_corners=False)[:, 0]

    def _activation(self, image: Tensor) -> Tensor:
        """The layer's output, float32 [B,K,h,w]."""
        with captured_activation(self.explanandum.model, self.target_layer) as captured:
            self.explanandum(image)
        return captured.as_maps(captured.value.detach(), image).float()

    def _cam(self, image: Tensor, channels: Tensor, target: Tensor) -> Tensor:
        """Maps [T,h,w] of targets [T] in one image [1,3,H,W] with its channels [K,h,w]."""
        shown = channels[channels.amax(dim=(1, 2)) > channels.amin(dim=(1, 2))]
        if len(shown) == 0:
            return channels.new_zeros(len(target), *channels.shape[1:])

        def masks(start: int, stop: int) -> Tensor:
            """Channels, enlarged and scaled to [0, 1], [n,H,W]."""
            large = F.interpolate(shown[None, start:stop], image.shape[-2:], mode="bilinear", align_corners=False)[0]
            return min_max(large)

        answers = masked_logits(self.explanandum, image, masks, len(shown), chunk_size=self.chunk_size)
        logits = torch.cat([logits[0].float() for _, logits in answers])
        return weighted_sum(self._weights(logits, image, target).T, shown).relu()

    def _weights(self, logits: Tensor, image: Tensor, target: Tensor) -> Tensor:
        """From logits [K,C] to weights [K,T] of the channels."""
        if self.weighting == "softmax":
            return logits[:, target].softmax(dim=0)
        empty = class_scores(self.explanandum, self.explanandum(torch.zeros_like(image)))
        return (class_scores(self.explanandum, logits) - empty)[:, target]
