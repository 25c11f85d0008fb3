"""Pointing game (PAMI, Table 2; Group-CAM, Table 4; SIGCAM, Table 3).

B images, N maps, C classes, H×W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from explainer.explanandum import Explanandum
from explainer.metrics.pointing import boxes_to_region, pointing_hit
from explainer.resampling import mean_ratio

ONLY_DIFFICULT = "with difficult objects only"
WITHOUT_SCORE = "without a class that the classifier scores high enough"
WITHOUT_REGION = "without a region of such a class"


Region = Literal["auto", "boxes", "masks"]


@dataclass(frozen=True)
class PointingRules:
    """What counts as a hit, and which classes are asked; the fields are those of `PointingOptions`, none left open."""

    region: Region
    tolerance: int
    least_score: float
    skip_difficult: bool = True


PROTOCOLS = {
    "torchray": PointingRules("auto", 15, 0.0),
    "group_cam": PointingRules("boxes", 0, 0.0),
    "sigcam": PointingRules("masks", 0, 0.5),
}


@dataclass(frozen=True)
class PointingOptions:
    """Whose rules hold, and exceptions to them.

    Args:
        protocol: Whose rules hold where the options below don't say otherwise. torchray (PAMI, Table 2, VOC and COCO):
            boxes if the split has them, else masks, 15 pixels, all classes; BEWARE that on COCO TorchRay takes masks,
            which no split can tell by itself: add --pointing.region masks there. group_cam (Group-CAM, Table 4; PAMI,
            Table 2, ImageNet): boxes, 0 pixels, all classes. sigcam (SIGCAM, Table 3): masks, 0 pixels, classes with a
            score above .5.
        region: Where a maximum hits: in the class's boxes, in its segmentation masks, or auto: boxes if any image of
            the split has them, else masks. The protocol's if not given.
        tolerance: A maximum also hits beside the region, closer than so many pixels of the original photograph. The
            protocol's if not given.
        least_score: Classes are asked only where the classifier gives them more than this probability; 0 asks all. The
            protocol's if not given.
        skip_difficult: Don't ask for a class all of whose boxes in an image are marked as difficult (PASCAL VOC), as
            TorchRay's benchmark; where one is not, all of them are the region.
    """

    protocol: Literal["torchray", "group_cam", "sigcam"] = "torchray"
    region: Region | None = None
    tolerance: int | None = None
    least_score: float | None = None
    skip_difficult: bool = True

    def __post_init__(self) -> None:
        """Refuse what would only fail after the first images, or leave none."""
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"Unknown pointing.protocol '{self.protocol}'; choose one of: {', '.join(PROTOCOLS)}.")
        at_least("pointing.tolerance", self.rules.tolerance, 0)
        if not 0 <= self.rules.least_score < 1:
            raise ValueError(f"pointing.least_score is {self.least_score}; give a probability in [0, 1).")

    @property
    def rules(self) -> PointingRules:
        """The protocol's, with the exceptions."""
        given = {name: value for name, value in vars(self).items() if name != "protocol" and value is not None}
        return replace(PROTOCOLS[self.protocol], **given)


class PointingTable(Table):
    """How often a class map's maximum lies on an object of the class: per class, then the mean over classes.

    A map is enlarged to the photograph's own size first (where the batch knows it). An object so small or thin that it
    holds no pixel's centre there is no region: nothing could hit it.

    Where masks are the region, they are those of the batch: squashed to the input's size, then enlarged to the
    photograph's, so that outlines are exact to a pixel of the input, not of the photograph. A pixel has one class at
    most, and void ones have none: of COCO's crowds, which TorchRay counts, nothing is a hit.

    Files: `pointing`, `pointing_per_class`, `pointing_differences`.

    Args:
        explanandum: the classifier.
        options: whose rules hold; tables of equal rules have equal keys, whichever options lead to these.
    """

    name = "pointing"
    version = 2
    extra_methods = ("random", "center")
    options: PointingRules

    def __init__(self, explanandum: Explanandum, options: PointingOptions | None = None) -> None:
        super().__init__(explanandum, (options or PointingOptions()).rules)

    def unsuited(self, split: SplitFacts) -> str:
        """It needs boxes or masks."""
        region = self.options.region
        if region == "boxes" and not split.has_boxes:
            return "no image of the split has boxes"
        if region == "masks" and not split.has_masks:
            return "no image of the split has a segmentation mask"
        return "" if split.has_boxes or split.has_masks else "the split has neither boxes nor segmentation masks"

    def asks(self, images: Images) -> Tensor:
        """The present classes that are not difficult, that the classifier sees and of which there is a region."""
        asked = self._seen(images)
        for index, target in asked.nonzero().tolist():
            asked[index, target] = self._region(images, index, target).any()
        return asked

    def _seen(self, images: Images) -> Tensor:
        """Those of `_easy` that the classifier scores high enough, a new bool [B,C]."""
        easy = self._easy(images)
        if self.options.least_score == 0:  # a float may well round a probability to 0
            return easy
        return easy & (self.explanandum.probabilities(images.logits) > self.options.least_score)

    def _easy(self, images: Images) -> Tensor:
        """The present classes, without those that are only difficult to tell, a new bool [B,C]."""
        easy = images.labels.clone()
        if self.options.skip_difficult:
            for index, boxes in enumerate(images.batch.boxes or ()):
                only_difficult = {box.label for box in boxes} - {box.label for box in boxes if not box.difficult}
                easy[index, list(only_difficult)] = False
        return easy

    def left_out(self, images: Images) -> list[str]:
        """Images of which no class can be asked; the first reason that holds counts."""
        stages = {
            WITHOUT_CLASS: images.labels,
            ONLY_DIFFICULT: self._easy(images),
            WITHOUT_SCORE: self._seen(images),
            WITHOUT_REGION: self.asks(images),
        }
        passed = torch.stack([classes.any(dim=1) for classes in stages.values()], dim=1).tolist()
        return [
            next((reason for reason, ok in zip(stages, of_image, strict=True) if not ok), "") for of_image in passed
        ]

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
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
            edges = [(box.left, box.top, box.right, box.bottom) for box in boxes[index] if box.label == target]
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
