"""Precision, recall and F-score of multi-label predictions (NN-Explainer, Table 4), as plain loops.

N images, C classes; logits and labels (0 or 1) are nested lists [N][C]. A class is predicted where its logit reaches
the threshold, which the authors set to 0 for whole and -1 for masked images.
"""

from typing import NamedTuple


class Counts(NamedTuple):
    """Pairs of image and class: predicted and there, predicted only, there only."""

    hits: int
    false_alarms: int
    misses: int


class Scores(NamedTuple):
    """All as fractions, not per cent."""

    precision: float
    recall: float
    f_score: float


def counts(logits: list[list[float]], labels: list[list[int]], threshold: float) -> list[Counts]:
    """For each class, over all images."""
    per_class = []
    for c in range(len(logits[0])):
        pairs = [(rows[0][c] >= threshold, rows[1][c] == 1) for rows in zip(logits, labels, strict=True)]
        per_class.append(Counts(pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))))
    return per_class


def scores(of: Counts) -> Scores:
    """Precision TP / (TP + FP), recall TP / (TP + FN), F-score 2 TP / (2 TP + FP + FN); 0/0 counts as 0."""
    return Scores(
        precision=_ratio(of.hits, of.hits + of.false_alarms),
        recall=_ratio(of.hits, of.hits + of.misses),
        f_score=_ratio(2 * of.hits, 2 * of.hits + of.false_alarms + of.misses),
    )


def macro(logits: list[list[float]], labels: list[list[int]], threshold: float) -> Scores:
    """Mean over all C classes, each with equal weight, of the class's scores; so F isn't that of the mean P and R."""
    per_class = [scores(one) for one in counts(logits, labels, threshold)]
    return Scores(*(sum(column) / len(per_class) for column in zip(*per_class, strict=True)))


def pooled(logits: list[list[float]], labels: list[list[int]], threshold: float) -> Scores:
    """Scores of the counts of all classes together ("micro"), each pair of image and class with equal weight.

    Table 4 is of this kind: all its rows have F = 2 P R / (P + R), which pooled counts always have and macro means
    rarely, and the authors' code pools.
    """
    return scores(Counts(*(sum(column) for column in zip(*counts(logits, labels, threshold), strict=True))))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
