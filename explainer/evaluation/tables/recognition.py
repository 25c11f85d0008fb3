"""What the explanandum still recognises in masked images (NN-Explainer, Table 4).

B images, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import Measure, differences, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, Table
from explainer.masking import apply_mask
from explainer.metrics.bootstrap import Array
from explainer.metrics.recognition import MASKED_THRESHOLD, PLAIN_THRESHOLD, recognition_counts

PLAIN = "plain"
COUNTS = ("tp", "fp", "fn")
SCORES = ("precision", "recall", "f_score")


@dataclass(frozen=True)
class RecognitionOptions:
    """From which logit on a class counts as recognised; a single-label classifier recognises its largest logit.

    Args:
        plain_threshold: In images as they are; 0 stands for a probability of one half.
        masked_threshold: In masked images, whose logits are lower; -1 as in the authors' code.
    """

    plain_threshold: float = PLAIN_THRESHOLD
    masked_threshold: float = MASKED_THRESHOLD


class RecognitionTable(Table):
    """Precision, recall and F-score, in percent, on plain images and on images masked by each method's merged mask.

    Micro-averaged, as Table 4 is: each decision counts alike; and macro-averaged: each class counts alike.

    Files: `recognition`, `recognition_differences`.
    """

    name = "recognition"
    own_rows = (PLAIN,)
    options: RecognitionOptions

    def asks(self, images: Images) -> Tensor:
        """The present classes."""
        return images.labels

    def score(self, images: Images, maps: ClassMaps, row: NamedMethod) -> list[list[Row]]:
        """A row for each class that is present or recognised: whether it is a hit, a false alarm or a miss."""
        with torch.no_grad():
            logits = self.explanandum(apply_mask(images.image, maps.merged(len(images)))).float()
        return self._rows(images, logits, self.options.masked_threshold)

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """The same without a mask."""
        return self._rows(images, images.logits, self.options.plain_threshold)

    def _rows(self, images: Images, logits: Tensor, threshold: float) -> list[list[Row]]:
        found = []
        for single, labels in zip(logits, images.labels, strict=True):
            counts = recognition_counts(single[None], labels[None], threshold, self.explanandum.card.output)
            told = [(target, name) for name in COUNTS for target in counts[name].nonzero()[:, 0].tolist()]
            found.append([{"class": self.class_name(target), "outcome": name} for target, name in told])
        return found

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Scores with their thresholds, and how methods differ."""
        return {self.name: self.main_rows(scores), "recognition_differences": differences(scores, measures_of(scores))}

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """Scores with their thresholds."""
        rows = summary(scores, measures_of(scores))
        for row in rows:
            plain = row["method"] == PLAIN
            row["threshold"] = self.options.plain_threshold if plain else self.options.masked_threshold
            if self.explanandum.card.output == "single_label":
                row["threshold"] = None
        return rows


def measures_of(scores: Sequence[MethodScores]) -> list[Measure]:
    """All scores, micro- and macro-averaged, over the classes that occur or are recognised by any method."""
    names = sorted({row["class"] for one in scores for row in one.flat})
    return [micro(score) for score in SCORES] + [macro(score, names) for score in SCORES]


def score_of(name: str) -> Callable[[Array, Array, Array], Array]:
    """Precision, recall or F-score, in percent, from true positives, false positives and false negatives."""

    def score(tp: Array, fp: Array, fn: Array) -> Array:
        above = 2 * tp if name == "f_score" else tp
        below = {"precision": tp + fp, "recall": tp + fn, "f_score": 2 * tp + fp + fn}[name]
        nothing = tp + fp + fn == 0  # neither there nor found: says nothing of the classifier
        found: Array = 100 * np.divide(above, below, out=np.zeros_like(above), where=below != 0)
        return np.where(nothing, np.nan, found)

    return score


def micro(name: str) -> Measure:
    """Over all decisions."""

    def sums(rows: list[Row]) -> list[float]:
        return [sum(row["outcome"] == count for row in rows) for count in COUNTS]

    score = score_of(name)
    return Measure(name, len(COUNTS), sums, lambda totals: score(*totals.T))


def macro(name: str, classes: Sequence[str]) -> Measure:
    """Of each class, then their mean; classes that neither occur nor are recognised don't count."""
    place = {one: index for index, one in enumerate(classes)}
    score = score_of(name)

    def sums(rows: list[Row]) -> list[float]:
        found = np.zeros((len(COUNTS), len(place)))
        for row in rows:
            found[COUNTS.index(row["outcome"]), place[row["class"]]] += 1
        return list(found.ravel())

    def statistic(totals: Array) -> Array:
        per_class = score(*np.split(totals, len(COUNTS), axis=1))
        known = ~np.isnan(per_class)
        count = known.sum(axis=1)
        total = np.where(known, per_class, 0).sum(axis=1)
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)

    return Measure(f"macro_{name}", len(COUNTS) * len(place), sums, statistic)
