"""Class-specific masking (NN-Explainer, Table 1).

B images, T classes of the table, C classes, H×W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from explainer.attribution.perturb import ChunkSize
from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import Measure, differences, mean_of, measured, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, Table
from explainer.explanandum import Explanandum
from explainer.metrics.masking import THRESHOLDS, class_specificity, masked_probabilities
from explainer.resampling import Array, ratios

TAKEN = ("none", "method", "target", "images", "image", "classifier")
"""Names of other columns."""
NONE = "none"
"""Table 1's column for images that are not masked."""
WITHOUT_CHOSEN_CLASS = "without a class of the table"


@dataclass(frozen=True)
class MaskingOptions:
    """Which classes are masked, and how.

    Args:
        classes: Names of the table's classes; if none is given, the papers' bottle, car, cat, dog and person where the
            data set has them all, else its five most frequent.
        thresholds: A pixel stays where its mask is strictly greater; the probabilities are averaged over thresholds.
    """

    classes: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = THRESHOLDS

    def __post_init__(self) -> None:
        """Refuse thresholds that no mask, or every mask, would pass."""
        if not self.thresholds or not all(0 <= threshold < 1 for threshold in self.thresholds):
            given = ", ".join(map(str, self.thresholds)) or "none"
            raise ValueError(f"The masking table's thresholds are: {given}; give some in [0, 1).")


class MaskingTable(Table):
    """What the classifier gives a class whose image is masked by the mask of this class, or of another.

    In percent, as in Table 1. Files: `masking` (a matrix for each method), `masking_specificity` (mean of its diagonal
    minus mean off it), `masking_differences`.

    Args:
        explanandum: the classifier.
        options: with the names of T ≥ 2 classes.
        chunk_size: masked images of one pass.

    Raises:
        ValueError: for a class that the classifier does not have, one that is named twice, one that is called as a
            column of the table is (`TAKEN`), and fewer than two.
    """

    name = "masking"
    options: MaskingOptions

    def __init__(self, explanandum: Explanandum, options: MaskingOptions, chunk_size: ChunkSize = "auto") -> None:
        super().__init__(explanandum, options)
        names, known = options.classes, explanandum.card.classes
        unknown = [name for name in names if name not in known]
        if unknown or len(set(names)) != len(names) or len(names) < 2:
            raise ValueError(
                f"The masking table can't be made of the classes {', '.join(names) or '(none)'}: give at least two "
                f"different ones of: {', '.join(known)}."
            )
        taken = [name for name in names if name in TAKEN]
        if taken:
            raise ValueError(
                f"The masking table has columns of its own called {', '.join(taken)}; leave these classes out."
            )
        self.classes = [known.index(name) for name in names]
        self.chunk_size = chunk_size

    def asks(self, images: Images) -> Tensor:
        """All classes of the table, of images in which one of them is present."""
        chosen = torch.zeros_like(images.labels)
        chosen[:, self.classes] = images.labels[:, self.classes].any(dim=1, keepdim=True)
        return chosen

    def left_out(self, images: Images) -> list[str]:
        """Images with no class of the table."""
        return [WITHOUT_CHOSEN_CLASS if reason else "" for reason in super().left_out(images)]

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """For each present class of the table its probability without a mask and under each mask."""
        # The maps come sorted by class, which need not be the table's order.
        order = torch.tensor(self.classes).argsort().argsort()
        masks = maps.scaled.unflatten(0, (len(images), len(self.classes)))[:, order]
        probability = masked_probabilities(
            self.explanandum, images.image, masks, self.options.thresholds, self.chunk_size
        )
        unmasked = images.logits.softmax(dim=1)
        return [
            [
                {"target": self.class_name(target), NONE: unmasked[index, target].item()}
                | dict(zip(self.options.classes, probability[index, :, target].tolist(), strict=True))
                for target in self.classes
                if images.labels[index, target]
            ]
            for index in range(len(images))
        ]

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Matrices, the figure of merit, and how methods differ in it."""
        names = self.options.classes
        matrix = []
        for one in scores:
            for target in names:
                part = [row for rows in one.rows.values() for row in rows if row["target"] == target]
                cells = [mean_of(column, 100, of=_is_target(target)) for column in (NONE, *names)]
                matrix.append({"method": one.method, "target": target, "images": len(part), **measured(one, cells)})
        return {
            self.name: matrix,
            "masking_specificity": self.main_rows(scores),
            "masking_differences": differences(scores, [specificity(names)]),
        }

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """The figure of merit."""
        return summary(scores, [specificity(self.options.classes)])


def _is_target(name: str) -> Callable[[Row], bool]:
    return lambda row: bool(row["target"] == name)


def specificity(names: Sequence[str]) -> Measure:
    """Mean of Table 1's diagonal minus mean off it, in percent, at most 100."""
    size = len(names)

    def sums(rows: list[Row]) -> list[float]:
        total, count = np.zeros((size, size)), np.zeros((size, size))
        for row in rows:
            line = names.index(row["target"])
            total[line] += [row[name] for name in names]
            count[line] += 1
        return [*total.ravel(), *count.ravel()]

    def statistic(totals: Array) -> Array:
        matrices = torch.from_numpy(ratios(totals)).unflatten(1, (size, size))
        return np.array([100 * class_specificity(matrix).item() for matrix in matrices])

    return Measure("specificity", 2 * size**2, sums, statistic)
