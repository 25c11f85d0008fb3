"""Insertion and deletion of a few images, to look at: photograph, maps and both curves (Group-CAM, Fig. 4).

B images, S steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, Table, at_least
from explainer.evaluation.tables.insertion_deletion import (
    MEASURES,
    InsertionDeletionOptions,
    InsertionDeletionTable,
    unpacked,
)
from explainer.evaluation.tiles import PHOTOGRAPH, photographs, tile
from explainer.explanandum import Explanandum
from explainer.keys import digest

AREAS = tuple(measure.name for measure in MEASURES)
"""In percent in the files, in [0, 1] in the records."""
CURVES = ("insertion_curve", "deletion_curve")


@dataclass(frozen=True)
class CurveExamplesOptions:
    """How much is shown.

    Args:
        images: Two curves and a strip for each of so many, evenly spaced over the split.
    """

    images: int = 3

    def __post_init__(self) -> None:
        """Refuse a picture without images."""
        at_least("curve_examples.images", self.images, 1)


class CurveExamplesTable(Table):
    """The curves of the table `insertion_deletion` for a few single images, beside the maps that they follow.

    The class is the predicted one; all else is as the options of `insertion_deletion` say.

    Files: `curve_examples` (areas), `curve_examples_curves`, `curve_examples_tiles` (maps and photographs).

    Args:
        explanandum: the classifier.
        options: how much is shown.
        curves: how the curves are drawn.
    """

    name = "curve_examples"
    own_rows = (PHOTOGRAPH,)
    options: CurveExamplesOptions

    def __init__(
        self, explanandum: Explanandum, options: CurveExamplesOptions, curves: InsertionDeletionOptions
    ) -> None:
        super().__init__(explanandum, options)
        self.curves = InsertionDeletionTable(explanandum, curves)

    @property
    def key(self) -> str:
        """Of the curves."""
        return digest(super().key, self.curves.key)

    @property
    def limit(self) -> int | None:
        """As many as fit on a page."""
        return self.options.images

    def asks(self, images: Images) -> Tensor:
        """The predicted class."""
        return images.one_hot(images.predicted)

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """One row an image, with both curves and the scaled map as a picture."""
        rows = [of_image[0] for of_image in self.curves.score(images, maps, named)]
        pictures = maps.scaled.clamp(0, 1)[:, None]
        return [[row | {"tile": tile(picture)}] for row, picture in zip(rows, pictures, strict=True)]

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """The photographs, with the predicted class and its probability."""
        predicted = images.predicted
        probability = self.explanandum.probabilities(images.logits).gather(1, predicted[:, None])[:, 0]
        found = zip(predicted.tolist(), probability.tolist(), photographs(images), strict=True)
        return [
            [
                {"class": self.class_name(index), "probability": value, **dict.fromkeys((*AREAS, *CURVES))}
                | {"tile": tile(picture)}
            ]
            for index, value, picture in found
        ]

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Areas, points of the curves, and pictures."""
        return {
            self.name: [_areas(one.method, row) for one in self._of_methods(scores) for row in one.flat],
            f"{self.name}_curves": [row for one in self._of_methods(scores) for row in self._points(one)],
            f"{self.name}_tiles": [
                {"method": one.method, **{name: row[name] for name in ("image", "class", "probability", "tile")}}
                for one in scores
                for row in one.flat
            ],
        }

    def _of_methods(self, scores: Sequence[MethodScores]) -> list[MethodScores]:
        return [one for one in scores if one.method not in self.own_rows]

    def _points(self, scores: MethodScores) -> list[Row]:
        """A row for each image and step, probabilities in [0, 1]."""
        return [
            {"method": scores.method, "image": row["image"], "fraction": fraction, "insertion": up, "deletion": down}
            for row in scores.flat
            for fraction, up, down in zip(
                self.curves.fractions.tolist(), *(unpacked(row[name]).tolist() for name in CURVES), strict=True
            )
        ]

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """The mean areas."""
        return summary(scores, MEASURES)


def _areas(method: str, row: Row) -> Row:
    facts = {name: row[name] for name in ("image", "class", "probability")}
    return {"method": method, **facts, **{name: 100 * row[name] for name in AREAS}}
