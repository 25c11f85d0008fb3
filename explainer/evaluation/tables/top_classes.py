"""The classes to which the trained Explainer gives the largest masks (NN-Explainer, Sup. Mat. Sec. C, Fig. 4 and 5).

B images, C classes, H×W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import mean_of, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, Table, at_least
from explainer.evaluation.tiles import PHOTOGRAPH, photographs, tile

PERCENT = ("cls", "ama")
"""In percent in the files, in [0, 1] in the records."""


@dataclass(frozen=True)
class TopClassesOptions:
    """How much is shown.

    Args:
        images: So many, evenly spaced over the split; 8 in Fig. 4.
        classes: So many of the largest masks; 5 in Fig. 4.
    """

    images: int = 8
    classes: int = 5

    def __post_init__(self) -> None:
        """Refuse a picture without images or masks."""
        at_least("top_classes.images", self.images, 1)
        at_least("top_classes.classes", self.classes, 1)


class TopClassesTable(Table):
    """For each of a few images the classes with the largest masks, present or not, as small pictures.

    Rank 0 is the mask of the classes that are in the image (without a label, of the predicted one): their pixelwise
    maximum. From rank 1 on stand the classes by their mean mask (`ama`, the paper's average mask activation), each with
    the classifier's probability for it in the photograph as it is (`cls`), and whether it is in the image.

    Only masks of a trained Explainer can be ranked so. Other maps are scaled each by itself, so that their means say
    nothing; and they would have to be made for every class.

    Files: `top_classes`, `top_classes_tiles` (the same with the pictures, and the photographs).
    """

    name = "top_classes"
    own_rows = (PHOTOGRAPH,)
    wants_maps = False  # of 1000 classes they would fill disks, and one pass makes them anew
    calls_methods = True
    options: TopClassesOptions

    @property
    def limit(self) -> int | None:
        """As many as fit on a page."""
        return self.options.images

    def refuses(self, *, is_trained: bool) -> str:
        """All but the trained."""
        return "" if is_trained else "only masks of a trained Explainer can be compared over classes"

    def asks(self, images: Images) -> Tensor:
        """Every class."""
        return torch.ones_like(images.labels)

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """A row for each rank."""
        return [self._ranked(images.subset([index]), named) for index in range(len(images))]

    def _ranked(self, image: Images, named: NamedMethod) -> list[Row]:
        """All ranks of one image."""
        masks = named.method.present_class_maps(image.image, self.asks(image))[0].float()
        present = image.labels if bool(image.labels.any()) else image.one_hot(image.predicted)
        merged = masks[present[0]].amax(dim=0)
        names = [self.class_name(index) for index in present[0].nonzero()[:, 0].tolist()]
        means = masks.mean(dim=(1, 2))
        probability = self.explanandum.probabilities(image.logits)[0]
        rows = [_row(0, "; ".join(names), merged, ama=float(merged.mean()))]
        for rank, index in enumerate(means.argsort(descending=True)[: self.options.classes].tolist(), start=1):
            facts = int(image.labels[0, index]), float(probability[index]), float(means[index])
            rows.append(_row(rank, self.class_name(index), masks[index], *facts))
        return rows

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """The photographs as the classifier gets them, with the names of what is in them."""
        named = zip(photographs(images), images.labels, strict=True)
        return [
            [_row(0, "; ".join(self.class_name(index) for index in present.nonzero()[:, 0].tolist()), picture)]
            for picture, present in named
        ]

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """A row for each method, image and rank, without and with the pictures."""
        tiles = [
            {"method": one.method, **row} | {name: _percent(row[name]) for name in PERCENT}
            for one in scores
            for row in one.flat
        ]
        shown = [row for row in tiles if row["method"] not in self.own_rows]
        return {
            self.name: [{name: value for name, value in row.items() if name != "tile"} for row in shown],
            f"{self.name}_tiles": tiles,
        }

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """The mean activation of the classes shown, in percent."""
        return summary(scores, (mean_of("ama", 100, of=lambda row: row["rank"] > 0),))


def _row(
    rank: int,
    name: str,
    picture: Tensor,
    present: int | None = None,
    cls: float | None = None,
    ama: float | None = None,
) -> Row:
    """A mask [H,W] or a photograph [3,H,W] with its facts."""
    picture = picture if picture.ndim == 3 else picture[None]
    return {"rank": rank, "class": name, "present": present, "cls": cls, "ama": ama, "tile": tile(picture)}


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
