"""The learned Explainer as one attribution method among the others (NN-Explainer, Sec. 3)."""

import torch
from torch import Tensor, nn

from explainer.attribution.base import AttributionMethod, evaluating, present_classes
from explainer.explanandum import Explanandum
from explainer.masking import MaskLogits, probability
from explainer.network import Explainer, mask_logits


class LearnedExplainer(AttributionMethod):
    """The class mask of the target, from one forward pass of a trained Explainer.

    Args:
        explanandum: the classifier that the network was trained against.
        network: the trained Explainer; it runs in eval mode whatever mode it is in.
    """

    paper = "Stalder et al., NeurIPS 2022"
    needs = "training"
    passes = "1 forward of the Explainer, for all classes; none of the classifier"
    unit_range = True

    def __init__(self, explanandum: Explanandum, network: Explainer) -> None:
        super().__init__(explanandum)
        if network.num_classes != explanandum.num_classes:
            raise ValueError(
                f"The Explainer has {network.num_classes} classes, the explanandum {explanandum.num_classes}."
            )
        self.network = network

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The trained Explainer."""
        return (self.network,)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Class masks [B,H,W] in [0, 1]."""
        logits = self._logits(image)
        return probability(logits[torch.arange(len(image), device=image.device), target])

    def present_class_maps(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All present classes from the same pass."""
        image_index, target = present_classes(image, labels)
        return probability(self._logits(image)[image_index, target]), image_index, target

    def _logits(self, image: Tensor) -> MaskLogits:
        with torch.no_grad(), evaluating(self.network):
            return mask_logits(self.network, image)
