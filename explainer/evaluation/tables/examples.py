"""Maps to look at: all methods on the same few images.

After NN-Explainer, Fig. 3-8; Group-CAM, Fig. 2 and 3; SIGCAM, Fig. 3 and 5; PAMI, Fig. 2-5.
B images, C classes, K channels, H×W pixels.
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
from explainer.evaluation.tiles import PHOTOGRAPH, photographs, tile
from explainer.report.tiles import GROUND_TRUTH

FACTS = ("class", "probability")
"""What an image's rows have in common."""
SHARES = ("on_target", "target_area")
"""Of a map; in percent in the table, in [0, 1] in the records."""


@dataclass(frozen=True)
class ExamplesOptions:
    """How much is shown.

    Args:
        images: So many, evenly spaced over the split, not chosen for their looks.
    """

    images: int = 6

    def __post_init__(self) -> None:
        """Refuse a picture without images."""
        at_least("examples.images", self.images, 1)


class ExamplesTable(Table):
    """Each method's map of one class of a few images, as small pictures.

    The class is the present one that the classifier gives the largest probability; of an image without a label, the
    predicted one. Beside the pictures stand, where the ground truth shows that class, the share of the map's mass on it
    and the share of the pixels that it covers, which is what a map that is the same everywhere has; void pixels don't
    count, and a map that is zero everywhere has no share.

    The photographs themselves, made small, are in the records and in `examples_tiles.csv`: mind it before you pass
    these on.

    Files: `examples`, `examples_tiles` (the same with the pictures, and those of the photograph and the ground truth).
    """

    name = "examples"
    own_rows = (PHOTOGRAPH, GROUND_TRUTH)
    options: ExamplesOptions

    @property
    def limit(self) -> int | None:
        """As many as fit beside each other."""
        return self.options.images

    def asks(self, images: Images) -> Tensor:
        """One class of every image."""
        return images.one_hot(_target(images))

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """One row an image, with the scaled map as a picture."""
        scaled = maps.scaled.clamp(0, 1)
        rows = self._rows(images, scaled[:, None])
        mask, target = images.batch.mask, _target(images)
        shares, areas = (shares_on_target(part, mask, target) for part in (scaled, torch.ones_like(scaled)))
        for one, share, area in zip(rows, shares, areas, strict=True):
            one |= {"on_target": share, "target_area": area}
        return grouped(rows, maps.image_index, len(images))

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """The photographs as the classifier gets them, or the ground truth, of which some images have none."""
        if name == PHOTOGRAPH:
            return [[row] for row in self._rows(images, photographs(images))]
        mask = images.batch.mask
        if mask is None:
            return [[] for _ in images.names]
        rows = self._rows(images, truth_pictures(mask, _target(images)))
        return [[row] if has_mask else [] for row, has_mask in zip(rows, images.has_mask, strict=True)]

    def _rows(self, images: Images, pictures: Tensor) -> list[Row]:
        """A row an image; pictures [B,K,H,W] in [0, 1]."""
        target = _target(images)
        probability = self.explanandum.probabilities(images.logits).gather(1, target[:, None])[:, 0]
        return [
            {"class": self.class_name(index), "probability": value, "on_target": None, "target_area": None}
            | {"tile": tile(picture)}
            for index, value, picture in zip(target.tolist(), probability.tolist(), pictures, strict=True)
        ]

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """A row for each method and image, without and with the pictures; empty cells where a method has no map."""
        # The photographs first: of every image there is one, in order.
        ordered = sorted(scores, key=lambda one: one.method != PHOTOGRAPH)
        facts = {row["image"]: {name: row[name] for name in FACTS} for one in ordered for row in one.flat}
        shown, tiles = [], []
        for one in scores:
            for image, of_image in facts.items():
                row = {"method": one.method, "image": image, **of_image}
                found = one.rows.get(image) or [dict.fromkeys((*SHARES, "tile"))]
                tiles.append({**row, "tile": found[0]["tile"]})
                if one.method not in self.own_rows:
                    shares = {name: found[0][name] for name in SHARES}
                    percent = {name: None if share is None else 100 * share for name, share in shares.items()}
                    shown.append(row | percent)
        return {self.name: shown, "examples_tiles": tiles}

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """The mean share on the target."""
        return summary(scores, (mean_of("on_target", 100),))


def _target(images: Images) -> Tensor:
    """The class that is asked for in each image, long [B]."""
    present = images.logits.masked_fill(~images.labels, -torch.inf).argmax(dim=1)
    return present.where(images.labels.any(dim=1), images.predicted)
