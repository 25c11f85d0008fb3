"""What the explanandum still recognises in masked images (NN-Explainer, Table 4).

B images, C classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import Measure, Sums, differences, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, Table
from explainer.masking import apply_mask
from explainer.metrics.recognition import MASKED_THRESHOLD, PLAIN_THRESHOLD, recognition_counts, scores_from_counts
from explainer.resampling import Array

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

    Micro-averaged, as Table 4 is: each decision counts alike; and macro-averaged: each class counts alike. Of an image
    without a class no map is asked: its mask is zero everywhere, and what is recognised in it is a false alarm.

    Files: `recognition`, `recognition_differences`.
    """

    name = "recognition"
    version = 2
    own_rows = (PLAIN,)
    options: RecognitionOptions

    def asks(self, images: Images) -> Tensor:
        """The present classes."""
        return images.labels

    def left_out(self, images: Images) -> list[str]:
        """No image."""
        return [""] * len(images)

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
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
    sums = counts_of(names)
    return [measure(average, score, len(names), sums) for average in ("micro", "macro") for score in SCORES]


def counts_of(names: Sequence[str]) -> Sums:
    """An image's hits, false alarms and misses of each class, by their place among 3·C sums."""
    places = {(count, name): place for place, (count, name) in enumerate(product(COUNTS, names))}

    def sums(rows: list[Row]) -> Mapping[int, float]:
        return Counter(places[row["outcome"], row["class"]] for row in rows)

    return sums


def measure(average: str, score: str, classes: int, sums: Sums) -> Measure:
    """One of the scores of `scores_from_counts`, in percent; a micro-averaged one is named as the score."""

    def statistic(totals: Array) -> Array:
        tp, fp, fn = torch.from_numpy(totals).unflatten(1, (len(COUNTS), classes)).unbind(dim=1)
        values: Array = 100 * scores_from_counts(tp, fp, fn)[f"{average}_{score}"].numpy()
        return values

    return Measure(score if average == "micro" else f"{average}_{score}", len(COUNTS) * classes, sums, statistic)
