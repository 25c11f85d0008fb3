"""Pointing game (PAMI, Table 2; Group-CAM, Table 4; SIGCAM, Table 3).

B images, N maps, C classes, H×W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import Measure, differences, mean_of, measured, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import WITHOUT_CLASS, Files, SplitFacts, Table, at_least, grouped
from explainer.metrics.bootstrap import mean_ratio
from explainer.metrics.pointing import boxes_to_region, pointing_hit

WITHOUT_SCORE = "without a class that the classifier scores high enough"
WITHOUT_REGION = "without a region of such a class"


@dataclass(frozen=True)
class PointingOptions:
    """What counts as a hit.

    Args:
        region: Where a maximum hits: in the class's boxes (TorchRay for VOC; Group-CAM), in its segmentation masks
            (TorchRay for COCO; SIGCAM), or auto: boxes if any image of the split has them, else masks.
        tolerance: Pixels of the original photograph that a maximum may lie beside the region; 15 in TorchRay, which
            PAMI follows, 0 in Group-CAM and SIGCAM.
        least_score: Classes are asked only where the classifier gives them more than this; .5 in SIGCAM. 0 asks all.
    """

    region: Literal["auto", "boxes", "masks"] = "auto"
    tolerance: int = 15
    least_score: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would only fail after the first images, or leave none."""
        at_least("pointing.tolerance", self.tolerance, 0)
        if not 0 <= self.least_score < 1:
            raise ValueError(f"pointing.least_score is {self.least_score}; give a probability in [0, 1).")


class PointingTable(Table):
    """How often a class map's maximum lies on an object of the class: per class, then the mean over classes.

    A map is enlarged to the photograph's own size first (where the batch knows it). An object so small or thin that it
    holds no pixel's centre there is no region: nothing could hit it.

    Files: `pointing`, `pointing_per_class`, `pointing_differences`.
    """

    name = "pointing"
    extra_methods = ("random", "center")
    options: PointingOptions

    def unsuited(self, split: SplitFacts) -> str:
        """It needs boxes or masks."""
        region = self.options.region
        if region == "boxes" and not split.has_boxes:
            return "no image of the split has boxes"
        if region == "masks" and not split.has_masks:
            return "no image of the split has a segmentation mask"
        return "" if split.has_boxes or split.has_masks else "the split has neither boxes nor segmentation masks"

    def asks(self, images: Images) -> Tensor:
        """The present classes that the classifier sees and of which there is a region."""
        asked = self._seen(images).clone()
        for index, target in asked.nonzero().tolist():
            asked[index, target] = self._region(images, index, target).any()
        return asked

    def _seen(self, images: Images) -> Tensor:
        """The present classes that the classifier scores high enough, bool [B,C]."""
        if self.options.least_score == 0:  # a float may well round a probability to 0
            return images.labels
        return images.labels & (self.explanandum.probabilities(images.logits) > self.options.least_score)

    def left_out(self, images: Images) -> list[str]:
        """Images of which no class can be asked; the first reason that holds counts."""
        stages = {WITHOUT_CLASS: images.labels, WITHOUT_SCORE: self._seen(images), WITHOUT_REGION: self.asks(images)}
        passed = torch.stack([classes.any(dim=1) for classes in stages.values()], dim=1).tolist()
        return [
            next((reason for reason, ok in zip(stages, of_image, strict=True) if not ok), "") for of_image in passed
        ]

    def score(self, images: Images, maps: ClassMaps, row: NamedMethod) -> list[list[Row]]:
        """A row for each class: 1 for a hit; if several pixels share the maximum, the share of them that hit."""
        rows = []
        for single, index, target in zip(maps.maps, maps.image_index.tolist(), maps.target.tolist(), strict=True):
            region = self._region(images, index, target)
            large = F.interpolate(single[None, None], size=region.shape, mode="bilinear", align_corners=False)[0]
            hit = pointing_hit(large, region[None], self.options.tolerance).item()
            rows.append({"class": self.class_name(target), "hit": hit})
        return grouped(rows, maps.image_index, len(images))

    def _region(self, images: Images, index: int, target: int) -> Tensor:
        """Where a map of this class hits, bool [H,W] of the photograph's size; empty if the class is nowhere."""
        boxes, mask = images.batch.boxes, images.batch.mask
        sizes = images.batch.original_size
        height, width = images.image.shape[-2:] if sizes is None else sizes[index]
        if boxes is not None and self.options.region != "masks":
            edges = [box[1:] for box in boxes[index] if box.label == target]
            pixels = torch.tensor(edges, device=images.image.device).reshape(-1, 4)
            return boxes_to_region(pixels * pixels.new_tensor([width, height, width, height]), height, width)
        assert mask is not None  # or the split would be unsuited
        of_class = (mask[index] == target + 1)[None, None].float()
        return F.interpolate(of_class, size=(height, width), mode="nearest-exact")[0, 0] > 0

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """Hit rates in percent: mean over classes, and over all maps."""
        rows = summary(scores, measures_of(scores))
        for row, one in zip(rows, scores, strict=True):
            row["maps"] = len(list(one.flat))
        return rows

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Hit rates, of classes too, and how methods differ."""
        names = classes_of(scores)
        per_class = [
            {"method": one.method, "class": name}
            | measured(one, [mean_of("hit", 100, _is_class(name))])
            | {"maps": sum(row["class"] == name for row in one.flat)}
            for one in scores
            if one.rows
            for name in names
        ]
        return {
            self.name: self.main_rows(scores),
            "pointing_per_class": per_class,
            "pointing_differences": differences(scores, measures_of(scores)),
        }


def classes_of(scores: Sequence[MethodScores]) -> list[str]:
    """Those of which there is a map."""
    return sorted({row["class"] for one in scores for row in one.flat})


def measures_of(scores: Sequence[MethodScores]) -> list[Measure]:
    """Both means of the hit rate."""
    return [class_mean(classes_of(scores)), mean_of("hit", 100, name="over_maps")]


def _is_class(name: str) -> Callable[[Row], bool]:
    return lambda row: bool(row["class"] == name)


def class_mean(names: Sequence[str]) -> Measure:
    """Hit rate of each class, then their mean, in percent; classes without a map don't count."""
    place = {name: index for index, name in enumerate(names)}

    def sums(rows: list[Row]) -> list[float]:
        found = np.zeros((2, len(place)))
        for row in rows:
            found[:, place[row["class"]]] += (100 * row["hit"], 1)
        return list(found.ravel())

    return Measure("hit_rate", 2 * len(place), sums, mean_ratio)
