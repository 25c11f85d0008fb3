"""How well the explanandum still classifies masked images, compared with plain ones (NN-Explainer, Table 4).

N images, C classes.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from explainer.explanandum import OutputKind

PLAIN_THRESHOLD = 0.0
"""For the logits of plain images: a probability of one half, as in the authors' code."""
MASKED_THRESHOLD = -1.0
"""For the logits of masked images, which are lower, as in the authors' code; Table 4 only says "slightly different"."""


def recognition_counts(
    logits: Tensor, labels: Tensor, threshold: float = PLAIN_THRESHOLD, output: OutputKind = "multi_label"
) -> dict[str, Tensor]:
    """True positives, false positives and false negatives of each class; those of several batches add up.

    Args:
        logits: [N,C].
        labels: multi-hot [N,C].
        threshold: a class is recognised where its logit is at least this, as in the authors' code.
        output: a single-label classifier recognises just the class of its largest logit, whatever the threshold.

    Returns:
        `tp`, `fp` and `fn`, long [C] each.

    Raises:
        ValueError: for NaN among the logits, and for shapes that differ.
    """
    if logits.ndim != 2 or logits.shape != labels.shape:
        raise ValueError(f"Logits {tuple(logits.shape)} and labels {tuple(labels.shape)} don't match; give [N,C] both.")
    if logits.isnan().any():
        raise ValueError("Some logits are NaN, so that nothing can be said of their classes.")
    present = labels.bool()
    if output == "single_label":
        recognised = torch.zeros_like(present).scatter(1, logits.argmax(dim=1, keepdim=True), True)
    else:
        recognised = logits >= threshold
    return {
        "tp": (recognised & present).sum(dim=0),
        "fp": (recognised & ~present).sum(dim=0),
        "fn": (~recognised & present).sum(dim=0),
    }


def per_class_scores(tp: Tensor, fp: Tensor, fn: Tensor) -> dict[str, Tensor]:
    """Precision, recall and F-score of each class, or of whatever the counts [...] stand for.

    Returns:
        `precision`, `recall` and `f_score`, float64 [...] in [0, 1]. 0 where nothing was there to be found, or nothing
        was found, but not both; NaN where both, which says nothing of the classifier.
    """
    unknown = tp + fp + fn == 0
    parts = {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f_score": (2 * tp, 2 * tp + fp + fn)}
    return {
        name: (part.double() / whole.clamp(min=1)).masked_fill(unknown, torch.nan)
        for name, (part, whole) in parts.items()
    }


def scores_from_counts(tp: Tensor, fp: Tensor, fn: Tensor) -> dict[str, Tensor]:
    """Precision, recall and F-score over all classes, from the counts [...,C] of `recognition_counts`.

    Returns:
        float64 [...] in [0, 1]. `micro_precision`, `micro_recall`, `micro_f_score`: each decision counts alike, as in
        the authors' code for Table 4, in which indeed F is the harmonic mean of the other two. `macro_…`: each class
        counts alike, but for those that neither occur nor are ever recognised. NaN if there is no such decision or
        class.

    Examples:
        >>> hits, false_alarms, misses = torch.tensor([3, 1]), torch.tensor([1, 0]), torch.tensor([0, 3])
        >>> scores = scores_from_counts(hits, false_alarms, misses)
        >>> [scores[name].item() for name in ("micro_precision", "micro_recall", "macro_recall")]
        [0.8, 0.5714285714285714, 0.625]
    """
    micro = per_class_scores(*(counts.sum(dim=-1) for counts in (tp, fp, fn)))
    macro = per_class_scores(tp, fp, fn)
    return {f"micro_{name}": value for name, value in micro.items()} | {
        f"macro_{name}": value.nanmean(dim=-1) for name, value in macro.items()
    }


class Recognition(Metric):
    """Precision, recall and F-score of the explanandum, one row of Table 4; additive over devices.

    Args:
        classes: C.
        threshold: `PLAIN_THRESHOLD` or `MASKED_THRESHOLD`, or another.
        output: what the explanandum's logits mean.
    """

    full_state_update = False
    tp: Tensor
    fp: Tensor
    fn: Tensor
    images: Tensor

    def __init__(self, classes: int, threshold: float = PLAIN_THRESHOLD, output: OutputKind = "multi_label") -> None:
        super().__init__()
        self.threshold, self.output = threshold, output
        for name in ("tp", "fp", "fn"):
            self.add_state(name, torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add images by the explanandum's logits [N,C], masked or not, and their labels [N,C]."""
        for name, count in recognition_counts(logits, labels, self.threshold, self.output).items():
            setattr(self, name, getattr(self, name) + count)
        self.images = self.images + len(logits)

    def compute(self) -> dict[str, float]:
        """What `scores_from_counts` returns, and `images` (their number)."""
        scores = scores_from_counts(self.tp, self.fp, self.fn)
        return {name: value.item() for name, value in scores.items()} | {"images": int(self.images.item())}
