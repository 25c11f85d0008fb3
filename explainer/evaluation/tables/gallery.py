"""Maps to pick from: all methods on some images, for each class that is in them, and the predicted one.

B images, C classes, N maps.
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
from explainer.evaluation.tables.base import Files, Table, at_least, grouped
from explainer.evaluation.tables.on_target import shares_on_target, truth_pictures
from explainer.evaluation.tiles import PHOTOGRAPH, photographs, thumbnail
from explainer.report.tiles import GROUND_TRUTH

COLUMNS = ("method", "image", "class", "present", "probability", "tile")


@dataclass(frozen=True)
class GalleryOptions:
    """How much is shown.

    Args:
        images: So many, evenly spaced over the split; some 3 kB for each map of a class.
    """

    images: int = 24

    def __post_init__(self) -> None:
        """Refuse a gallery without images."""
        at_least("gallery.images", self.images, 1)


class GalleryTable(Table):
    """Each method's maps of some images as small pictures, for the report page.

    Beside the pictures stand the classifier's probability of the class, whether it is in the image, and, where the
    ground truth shows it, the share of the map's mass on it.

    The photographs themselves, made small, are in the records, in `gallery_tiles.csv` and in the page: mind it before
    you pass these on.

    Files: `gallery` (mean share of each method), `gallery_tiles` (the pictures, those of the photograph and of the
    ground truth among them).
    """

    name = "gallery"
    own_rows = (PHOTOGRAPH, GROUND_TRUTH)
    options: GalleryOptions

    @property
    def limit(self) -> int | None:
        """As many as are wished for."""
        return self.options.images

    def asks(self, images: Images) -> Tensor:
        """The present classes and the predicted one."""
        return images.labels | images.one_hot(images.predicted)

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """A row for each class, with the scaled map as a picture."""
        scaled, mask = maps.scaled.clamp(0, 1), images.batch.mask
        of_maps = None if mask is None else mask[maps.image_index]
        shares = shares_on_target(scaled, of_maps, maps.target)
        rows = self._rows(images, maps.image_index, maps.target, scaled[:, None])
        for row, share in zip(rows, shares, strict=True):
            row["on_target"] = share
        return grouped(rows, maps.image_index, len(images))

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """The photograph of each image once, without a class; or the ground truth, of which some images have none."""
        if name == PHOTOGRAPH:
            facts: Row = dict.fromkeys(("class", "present", "probability", "on_target"))
            return [[facts | {"tile": thumbnail(picture)}] for picture in photographs(images)]
        mask = images.batch.mask
        if mask is None:
            return [[] for _ in images.names]
        known = torch.tensor(images.has_mask, device=mask.device)
        image_index, target = (self.asks(images) & known[:, None]).nonzero(as_tuple=True)
        pictures = truth_pictures(mask[image_index], target)
        return grouped(self._rows(images, image_index, target, pictures), image_index, len(images))

    def _rows(self, images: Images, image_index: Tensor, target: Tensor, pictures: Tensor) -> list[Row]:
        """A row a picture [N,K,H,W] in [0, 1]."""
        probability = self.explanandum.probabilities(images.logits)[image_index, target].tolist()
        present = images.labels[image_index, target].int().tolist()
        return [
            {"class": self.class_name(index), "present": is_in, "probability": value, "on_target": None}
            | {"tile": thumbnail(picture)}
            for index, is_in, value, picture in zip(target.tolist(), present, probability, pictures, strict=True)
        ]

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """A row for each method, and all pictures."""
        tiles = [{"method": one.method, **row} for one in scores for row in one.flat]
        return {
            self.name: self.main_rows([one for one in scores if one.method not in self.own_rows]),
            f"{self.name}_tiles": [{name: row[name] for name in COLUMNS} for row in tiles],
        }

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """The mean share on the class, in percent."""
        return summary(scores, (mean_of("on_target", 100),))
