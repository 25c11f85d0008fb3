"""How well a classifier recognises images, by what its logits mean.

B images, C classes.
"""

from collections.abc import Callable

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAveragePrecision,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)

from explainer.explanandum import OutputKind


class MultiLabelScores(MetricCollection):
    """F-score, precision and recall at probability .5, and mAP, macro over classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            {
                "f_score": MultilabelF1Score(num_classes),
                "precision": MultilabelPrecision(num_classes),
                "recall": MultilabelRecall(num_classes),
                "mAP": MultilabelAveragePrecision(num_classes),
            }
        )

    def update(self, logits: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        """Add images by their logits and multi-hot labels, [B,C] both."""
        super().update(logits.sigmoid(), labels.int())  # logits within [0, 1] would be taken for probabilities


class SingleLabelScores(MetricCollection):
    """Top-1 accuracy over images; F-score, precision and recall, macro over the classes that occur or are predicted."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "f_score": MulticlassF1Score(num_classes),
                "precision": MulticlassPrecision(num_classes),
                "recall": MulticlassRecall(num_classes),
            }
        )

    def update(self, logits: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        """Add images by their logits and labels with exactly one 1, [B,C] both."""
        super().update(logits, labels.argmax(dim=1))


SCORES: dict[OutputKind, Callable[[int], MetricCollection]] = {
    "multi_label": MultiLabelScores,
    "single_label": SingleLabelScores,
}
