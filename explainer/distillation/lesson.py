"""What a training step learns from teacher maps, and how alike student and teachers are.

N pairs of an image and a class present in it, T teachers, H×W pixels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import Batch
from explainer.distillation.losses import distillation_losses
from explainer.distillation.options import DistillOptions
from explainer.masking import MaskLogits, probability
from explainer.metrics import agreement, rank_correlation

COMPARED_AT = 56
"""Pixels: at most so large are masks and maps when their order is compared; ranks of more cost time and say no more."""


class Likeness(NamedTuple):
    """Of student and one teacher, mean over the pairs that the teacher has maps of.

    Attributes:
        rank_correlation: in [-1, 1].
        iou: soft intersection over union (sum of minima over sum of maxima), in [0, 1].
        pairs: how many.
    """

    rank_correlation: Tensor
    iou: Tensor
    pairs: int


class Lesson:
    """Distillation as the training step sees it.

    Args:
        options: how the Explainer learns, and from whom: the T teachers in the order of the maps.
        alone: whether there is nothing else to learn from; then the weight is 1 for good.
    """

    def __init__(self, options: DistillOptions, *, alone: bool = False) -> None:
        self.options = options
        self.teachers = options.teachers
        self.alone = alone

    def weight_at(self, epochs: float) -> float:
        """Of the distillation loss in training, after so many epochs (with fractions)."""
        return 1.0 if self.alone else self.options.weight_at(epochs)

    def losses(self, mask_logits: MaskLogits, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `distillation_losses`."""
        maps, weights = _maps(batch)
        return distillation_losses(mask_logits, batch.labels, maps, weights, self.options.loss)

    @torch.no_grad()
    def likeness(self, mask_logits: MaskLogits, batch: Batch) -> list[Likeness]:
        """How alike the masks of the present classes and each teacher's maps are."""
        maps, weights = _maps(batch)
        image_index, target = batch.labels.bool().nonzero(as_tuple=True)
        masks = probability(mask_logits[image_index, target])
        answers = []
        for teacher in range(len(self.teachers)):
            there = weights[:, teacher] > 0
            answers.append(_likeness(masks[there], maps[there, teacher]))
        return answers


def _maps(batch: Batch) -> tuple[Tensor, Tensor]:
    if batch.teacher_maps is None or batch.teacher_weights is None:
        raise ValueError("The batch has no teacher maps; the data set must be told to `teach` the split.")
    return batch.teacher_maps.float() / 255, batch.teacher_weights


def _likeness(masks: Tensor, maps: Tensor) -> Likeness:
    if len(masks) == 0:
        nothing = masks.new_zeros(())
        return Likeness(nothing, nothing, 0)
    iou = agreement(masks, maps)["iou"]
    size = (min(COMPARED_AT, masks.shape[1]), min(COMPARED_AT, masks.shape[2]))
    small, others = (F.adaptive_avg_pool2d(values, size) for values in (masks, maps))
    return Likeness(rank_correlation(small, others).mean(), iou.mean(), len(masks))
