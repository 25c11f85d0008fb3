"""What the Explainer is trained for: the terms of a loss, how they weigh, and the masked images that they look at.

B images, C classes, H×W pixels.
"""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.batch import Batch
from explainer import losses
from explainer.explanandum import Explanandum
from explainer.losses import LossWeights
from explainer.masking import MaskLogits, apply_mask, merge_masks

ObjectiveName = Literal["explain", "rtis", "distill"]


class Judgement(NamedTuple):
    """What an objective finds in a batch.

    Attributes:
        terms: the unweighted terms of the loss by name, scalars, each a mean over images.
        masked_logits: what the classifier says of the images masked with the target mask, [B,C].
        target: target mask m [B,H,W].
    """

    terms: dict[str, Tensor]
    masked_logits: Tensor
    target: Tensor


class Objective(ABC):
    """A loss of class masks that asks the classifier.

    Attributes:
        weights: of the terms, by name.
    """

    weights: dict[str, float]

    @abstractmethod
    def judge(self, explanandum: Explanandum, batch: Batch, mask_logits: MaskLogits, *, fresh: bool) -> Judgement:
        """The terms of a batch.

        Args:
            explanandum: the classifier.
            batch: images [B,3,H,W], normalised, and labels.
            mask_logits: of the class masks, [B,C,H,W].
            fresh: draw what is random anew, by torch's global generator. Otherwise it depends on the images' names
                alone, so that losses can be compared between epochs, whatever the batches.
        """

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The loss: the weighted sum of the terms."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


class Explain(Objective):
    """NN-Explainer's loss (Eq. 1).

    Args:
        weights: of the terms; the classification loss's is 1.
    """

    def __init__(self, weights: LossWeights | None = None) -> None:
        chosen = weights or LossWeights()
        self.bounds = (chosen.min_area, chosen.max_area)
        self.weights = {
            "classification": 1.0,
            "entropy": chosen.entropy,
            "area_target": chosen.area_target,
            "area_nontarget": chosen.area_nontarget,
            "bound": chosen.bound,
            "tv": chosen.tv,
        }

    def judge(self, explanandum: Explanandum, batch: Batch, mask_logits: MaskLogits, *, fresh: bool) -> Judgement:
        """See the base class; nothing here is random."""
        image, labels = batch.image, batch.labels
        target, nontarget = merge_masks(mask_logits, labels)
        # One pass for both: the classifier's weights are read once, and it has no batch statistics to mix up.
        both = torch.cat([apply_mask(image, target), apply_mask(image, 1 - target)])
        masked, complement = explanandum(both).chunk(2)
        terms = {
            "classification": losses.classification_loss(masked, labels, explanandum.card.output),
            "entropy": losses.negative_entropy(complement),
            "area_target": losses.mask_area(target).mean(),
            "area_nontarget": losses.mask_area(nontarget).mean(),
            "bound": losses.bound_loss(mask_logits, labels, *self.bounds),
            "tv": (losses.total_variation(target) + losses.total_variation(nontarget)).mean(),
        }
        return Judgement(terms, masked, target)
