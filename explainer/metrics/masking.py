"""Class-specific masking: does a class's mask leave this class recognisable, and no other? (NN-Explainer, Table 1).

B images, C classes, M masks of an image, R records, T rows of the table, H×W pixels; masks lie in [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from explainer.attribution.perturb import ChunkSize, Classifier, masked_logits, resolved_chunk_size
from explainer.masking import at_least_float32

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""NN-Explainer, Sec. 4.2."""
UNMASKED = -1
"""Stands for the class of the mask where the image was not masked."""


def masked_probabilities(
    classifier: Classifier,
    image: Tensor,
    masks: Tensor,
    thresholds: Sequence[float] = THRESHOLDS,
    chunk_size: ChunkSize = "auto",
) -> Tensor:
    """What the classifier sees in images of which only the pixels above a threshold are left, averaged over thresholds.

    One call serves all classes of an image, which differ in the column that they read.

    Args:
        classifier: images -> logits.
        image: [B,3,H,W], normalised, so that deleted pixels take the data set's mean colour.
        masks: [B,M,H,W] in [0, 1].
        thresholds: a pixel stays where its mask is strictly greater.
        chunk_size: masked images of one forward pass; the scores don't depend on it.

    Returns:
        Softmax probabilities [B,M,C], also for a multi-label classifier (Sec. 4.2).

    Raises:
        ValueError: for masks outside [0, 1] and for masks without the axis M.
    """
    if masks.ndim != 4:
        raise ValueError(f"The masks are {tuple(masks.shape)}; give [B,M,H,W].")
    if not ((masks >= 0) & (masks <= 1)).all():  # also if NaN
        raise ValueError("The masks to be thresholded lie outside [0, 1]; scale them, e.g. by to_unit_range.")
    masks = at_least_float32(masks)
    levels = masks.new_tensor(thresholds)

    def binarised(start: int, stop: int) -> Tensor:
        number = torch.arange(start, stop, device=masks.device)
        return masks[:, number // len(levels)] > levels[number % len(levels), None, None]

    count = masks.shape[1] * len(levels)
    chunks = [logits for _, logits in masked_logits(classifier, image, binarised, count, chunk_size=chunk_size)]
    return _softmax(torch.cat(chunks, dim=1)).unflatten(1, (-1, len(levels))).mean(dim=2)


def class_masking_scores(
    classifier: Classifier,
    image: Tensor,
    masks: Tensor,
    target: Tensor,
    thresholds: Sequence[float] = THRESHOLDS,
    chunk_size: ChunkSize = "auto",
) -> Tensor:
    """The target's share of `masked_probabilities`: [B,M] in [0, 1] for targets [B]; the other arguments as there."""
    probabilities = masked_probabilities(classifier, image, masks, thresholds, chunk_size)
    return probabilities.gather(2, target[:, None, None].expand(-1, probabilities.shape[1], 1))[:, :, 0]


@torch.no_grad()
def unmasked_scores(classifier: Classifier, image: Tensor, target: Tensor, chunk_size: ChunkSize = "auto") -> Tensor:
    """Table 1's column "none": softmax probability [B] of targets [B] in images [B,3,H,W] as they are."""
    parts = image.split(resolved_chunk_size(chunk_size, image))
    probabilities = _softmax(torch.cat([classifier(part) for part in parts]))
    return probabilities.gather(1, target[:, None])[:, 0]


def _softmax(logits: Tensor) -> Tensor:
    return at_least_float32(logits).softmax(dim=-1)


def masking_matrix(
    target: Tensor, mask: Tensor, probability: Tensor, targets: Sequence[int], masks: Sequence[int]
) -> Tensor:
    """Table 1: mean probability by target class (row) and class of the mask (column).

    Args:
        target: class index of each record, [R].
        mask: class index of the mask, [R], or `UNMASKED`.
        probability: of the target, [R].
        targets: class indices of the rows.
        masks: class indices, or `UNMASKED`, of the M columns.

    Returns:
        [T,M] float64; NaN for a cell without a record.

    Raises:
        ValueError: for a record that belongs to no cell.
    """
    total, count = _cells(target, mask, probability, targets, masks)
    return total / count


def class_specificity(matrix: Tensor) -> Tensor:
    """Figure of merit of Table 1: mean of the diagonal minus mean off it, in [-1, 1]; 1 is best, a mask of ones gets 0.

    Args:
        matrix: [T,T], rows and columns in the same order, without the column "none"; NaN cells are left out.

    Returns:
        A scalar; NaN if there is nothing on or off the diagonal.

    Examples:
        >>> class_specificity(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
        tensor(0.5000)
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"The matrix is {tuple(matrix.shape)}; give as many columns as rows, without `UNMASKED`.")
    diagonal = torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
    return matrix[diagonal].nanmean() - matrix[~diagonal].nanmean()


def _cells(
    target: Tensor, mask: Tensor, probability: Tensor, targets: Sequence[int], masks: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Sum and number of the records of each cell, [T,M] float64 each."""
    cell = _position(target, targets, "target"), _position(mask, masks, "mask")
    empty = torch.zeros(len(targets), len(masks), dtype=torch.float64, device=probability.device)
    total = empty.index_put(cell, probability.double(), accumulate=True)
    return total, empty.index_put(cell, empty.new_ones(len(probability)), accumulate=True)


def _position(classes: Tensor, listed: Sequence[int], name: str) -> Tensor:
    """Where each class stands in the list, [R]."""
    found = classes[:, None] == torch.tensor(listed, device=classes.device)
    if not found.any(dim=1).all():
        raise ValueError(f"A record's {name} class is not among those of the table: {', '.join(map(str, listed))}.")
    return found.int().argmax(dim=1)


class ClassMasking(Metric):
    """Table 1 with as many columns as rows and the column "none"; additive over devices.

    Args:
        classes: indices of the T classes in the table, rows and columns alike.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        shape = len(self.classes), 1 + len(self.classes)
        for name in ("total", "count"):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, target: Tensor, scores: Tensor, unmasked: Tensor) -> None:
        """Add images [B] with their targets' probability without a mask [B] and under the mask of each class [B,T].

        An image with several of the classes comes once for each of them.
        """
        columns = UNMASKED, *self.classes
        mask = torch.tensor(columns, device=target.device).repeat(len(target))
        probability = torch.cat([unmasked[:, None], scores], dim=1).flatten()
        total, count = _cells(target.repeat_interleave(len(columns)), mask, probability, self.classes, columns)
        self.total, self.count = self.total + total, self.count + count

    def compute(self) -> dict[str, Any]:
        """The table.

        Returns:
            `unmasked`: [T], `matrix`: [T,T], both in [0, 1] and NaN for a class without an image. `class_specificity`:
            the figure of merit. `images`: long [T], those with each class.
        """
        table = self.total / self.count
        return {
            "unmasked": table[:, 0],
            "matrix": table[:, 1:],
            "class_specificity": class_specificity(table[:, 1:]).item(),
            "images": self.count[:, 0].long(),
        }
