"""The learned Explainer as one attribution method among the others (NN-Explainer, Sec. 3)."""

import torch
from torch import Tensor, nn

from explainer.attribution.base import AttributionMethod
from explainer.explanandum import Explanandum
from explainer.masking import probability
from explainer.network import Explainer


class LearnedExplainer(AttributionMethod):
    """The class mask of the target, from one forward pass of a trained Explainer.

    Args:
        explanandum: the classifier that the network was trained against.
        network: the trained Explainer, in eval mode.
    """

    unit_range = True

    def __init__(self, explanandum: Explanandum, network: Explainer) -> None:
        super().__init__(explanandum)
        if network.num_classes != explanandum.num_classes:
            raise ValueError(
                f"The Explainer has {network.num_classes} classes, the explanandum {explanandum.num_classes}."
            )
        self.network = network.eval()

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The trained Explainer."""
        return (self.network,)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Class masks [B,H,W] in [0, 1]."""
        with torch.no_grad():
            logits = self.network(image)
        return probability(logits[torch.arange(len(image), device=image.device), target])

    def present_class_maps(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All present classes from the same pass."""
        image_index, target = labels.bool().nonzero(as_tuple=True)
        with torch.no_grad():
            logits = self.network(image)
        return probability(logits[image_index, target]), image_index, target
