"""Insertion and deletion (RISE; Group-CAM, Table 1; SIGCAM, Tables 1 and 2; PAMI, Table 2).

N maps, S steps.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from explainer.attribution.perturb import checked_blur
from explainer.bootstrap import bootstrap_mean
from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import columns_of, differences, mean_of, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import WRONGLY_CLASSIFIED, Files, Table, grouped
from explainer.explanandum import Explanandum
from explainer.metrics.curves import (
    Baseline,
    CurveOptions,
    Score,
    auc,
    curve_fractions,
    insertion_deletion_curves,
    over_all,
)

MEASURES = (mean_of("insertion", 100), mean_of("deletion", 100), mean_of("over_all", 100))
"""In percent."""


@dataclass(frozen=True)
class InsertionDeletionOptions:
    """How the curves are drawn.

    Args:
        step: Below 1 the share of the pixels that changes at a time (.01 in Group-CAM), from 1 on their number (224 in
            RISE and PAMI).
        insertion_from: Image that insertion starts from: blur, zero (the data set's mean colour) or black.
        deletion_to: Image that deletion ends with; blur in the papers, zero in the code of RISE and Group-CAM.
        kernel_size: Of the blur, in pixels, odd; 51 in SIGCAM, 49 in PAMI.
        sigma: Of the blur, in pixels; 50 in SIGCAM, 100 in PAMI.
        score: own: sigmoid of a multi-label classifier, else softmax; softmax for either.
        target: The class of the largest logit, or each class of the ground truth.
        only_correct: Leave out images whose predicted class is not in them (PAMI).
    """

    step: float = 0.01
    insertion_from: Baseline = "blur"
    deletion_to: Baseline = "blur"
    kernel_size: int = 51
    sigma: float = 50.0
    score: Score = "own"
    target: Literal["predicted", "ground_truth"] = "predicted"
    only_correct: bool = False

    def curve(self, baseline: Baseline) -> CurveOptions:
        """The options of one curve."""
        return CurveOptions(self.step, baseline, self.kernel_size, self.sigma, self.score)

    def __post_init__(self) -> None:
        """Refuse what would only fail after the first images."""
        self.curve(self.insertion_from)
        self.curve(self.deletion_to)
        checked_blur(self.kernel_size, self.sigma)


class InsertionDeletionTable(Table):
    """Area under both curves, and their difference, the over-all score (Group-CAM, Sec. 4.3).

    Files: `insertion_deletion`, `insertion_deletion_curves`, `insertion_deletion_differences`.
    """

    name = "insertion_deletion"
    options: InsertionDeletionOptions

    def __init__(self, explanandum: Explanandum, options: InsertionDeletionOptions) -> None:
        super().__init__(explanandum, options)
        size = explanandum.card.image_size
        self.fractions = curve_fractions(options.step, size, size)

    def asks(self, images: Images) -> Tensor:
        """The predicted class, or the present ones."""
        return images.one_hot(images.predicted) if self.options.target == "predicted" else images.labels

    def left_out(self, images: Images) -> list[str]:
        """With `only_correct`, images that are classified wrongly."""
        reasons = super().left_out(images)
        if not self.options.only_correct:
            return reasons
        correct = (images.one_hot(images.predicted) & images.labels).any(dim=1).tolist()
        return [reason or ("" if right else WRONGLY_CLASSIFIED) for reason, right in zip(reasons, correct, strict=True)]

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """A row for each class, with both curves."""
        image, curve = images.image[maps.image_index], self.options.curve
        both = curve(self.options.insertion_from), curve(self.options.deletion_to)
        inserted, deleted = insertion_deletion_curves(self.explanandum, image, maps.maps, maps.target, *both)
        insertion, deletion = auc(inserted, self.fractions), auc(deleted, self.fractions)
        values = zip(
            maps.target.tolist(),
            *(value.tolist() for value in (inserted[:, -1], insertion, deletion, over_all(insertion, deletion))),
            strict=True,
        )
        names = ("probability", "insertion", "deletion", "over_all")
        rows = [{"class": self.class_name(target), **dict(zip(names, row, strict=True))} for target, *row in values]
        for one, curves in zip(rows, zip(inserted, deleted, strict=True), strict=True):
            one |= {"insertion_curve": packed(curves[0]), "deletion_curve": packed(curves[1])}
        return grouped(rows, maps.image_index, len(images))

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """The areas, and the number of maps that they are means of: of several classes an image each counts."""
        rows = summary(scores, MEASURES)
        return [row | {"maps": len(list(one.flat))} for row, one in zip(rows, scores, strict=True)]

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Areas, mean curves, and how methods differ."""
        return {
            self.name: self.main_rows(scores),
            "insertion_deletion_curves": [row for one in scores if one.rows for row in self._curves(one)],
            "insertion_deletion_differences": differences(scores, MEASURES),
        }

    def _curves(self, scores: MethodScores) -> list[Row]:
        """A row for each point of the mean curves, probabilities in [0, 1]."""
        images = [row["image"] for row in scores.flat]
        points: list[Row] = [{"method": scores.method, "fraction": value} for value in self.fractions.tolist()]
        for name in ("insertion", "deletion"):
            curves = np.stack([unpacked(row[f"{name}_curve"]) for row in scores.flat])
            value, low, high, *_ = bootstrap_mean(curves, images)
            for index, point in enumerate(points):
                point |= dict(zip(columns_of(name), (value[index], low[index], high[index]), strict=True))
        return points


def packed(curve: Tensor) -> str:
    """A curve as text: float16, whose rounding (.0005) no picture shows, in base64."""
    return base64.b64encode(curve.cpu().numpy().astype("<f2").tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """The curve again, float64 [S+1]."""
    return np.frombuffer(base64.b64decode(text), "<f2").astype(float)
