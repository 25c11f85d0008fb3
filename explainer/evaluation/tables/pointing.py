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

from datamodules.batch import Box
from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import Measure, differences, mean_of, measured, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import WITHOUT_CLASS, Files, SplitFacts, Table, grouped
from explainer.metrics.bootstrap import mean_ratio
from explainer.metrics.pointing import boxes_to_region, pointing_hit

WITHOUT_REGION = "without a region of a class that is asked"


@dataclass(frozen=True)
class PointingOptions:
    """What counts as a hit.

    Args:
        region: Where a maximum hits: in the class's boxes (TorchRay for VOC; Group-CAM), in its segmentation masks
            (TorchRay for COCO), or auto: boxes where the data set has them, else masks.
        tolerance: Pixels of the original photograph that a maximum may lie beside the region; 15 in TorchRay, which
            PAMI follows, 0 in Group-CAM and SIGCAM.
        least_score: Classes are asked only where the classifier gives them more than this; .5 in SIGCAM.
    """

    region: Literal["auto", "boxes", "masks"] = "auto"
    tolerance: int = 15
    least_score: float = 0.0


class PointingTable(Table):
    """How often a class map's maximum lies on an object of the class: per class, then the mean over classes.

    A map is enlarged to the photograph's own size first.

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
        """The present classes of which there is a region, and that the classifier sees."""
        seen = self.explanandum.probabilities(images.logits) > self.options.least_score
        regions = [
            [self._has_region(images, index, target) for target in range(seen.shape[1])] for index in range(len(images))
        ]
        return images.labels & seen & torch.tensor(regions, device=seen.device).reshape(seen.shape)

    def left_out(self, images: Images) -> list[str]:
        """Images of which no class can be asked."""
        reasons = zip(super().left_out(images), images.labels.any(dim=1).tolist(), strict=True)
        return [reason and (WITHOUT_REGION if has_class else WITHOUT_CLASS) for reason, has_class in reasons]

    def score(self, images: Images, maps: ClassMaps, row: NamedMethod) -> list[list[Row]]:
        """A row for each class: 1 for a hit; if several pixels share the maximum, the share of them that hit."""
        rows = []
        for single, index, target in zip(maps.maps, maps.image_index.tolist(), maps.target.tolist(), strict=True):
            size = self._size(images, index)
            large = F.interpolate(single[None, None], size=size, mode="bilinear", align_corners=False)[0]
            region = self._region(images, index, target, size)
            hit = pointing_hit(large, region[None], self.options.tolerance).item()
            rows.append({"class": self.class_name(target), "hit": hit})
        return grouped(rows, maps.image_index, len(images))

    def _boxes(self, images: Images, index: int, target: int) -> list[Box]:
        boxes = images.batch.boxes
        if boxes is None or self.options.region == "masks":
            return []
        return [box for box in boxes[index] if box.label == target]

    def _object(self, images: Images, index: int, target: int) -> Tensor | None:
        """The class's pixels [H,W] in the mask; None where there is no mask, or boxes are what counts."""
        mask = images.batch.mask
        if mask is None or self.options.region == "boxes":
            return None
        return mask[index] == target + 1

    def _has_region(self, images: Images, index: int, target: int) -> bool:
        if self._boxes(images, index, target):
            return True
        pixels = self._object(images, index, target)
        return pixels is not None and bool(pixels.any())

    def _region(self, images: Images, index: int, target: int, size: tuple[int, int]) -> Tensor:
        """Bool [H,W] of the photograph's size."""
        boxes = self._boxes(images, index, target)
        if boxes:
            edges = torch.tensor([box[1:] for box in boxes], device=images.image.device)
            return boxes_to_region(edges * edges.new_tensor([size[1], size[0], size[1], size[0]]), *size)
        pixels = self._object(images, index, target)
        assert pixels is not None  # or the class would not have been asked
        return F.interpolate(pixels[None, None].float(), size=size, mode="nearest-exact")[0, 0] > 0

    def _size(self, images: Images, index: int) -> tuple[int, int]:
        sizes = images.batch.original_size
        height, width = images.image.shape[-2:] if sizes is None else sizes[index]
        return int(height), int(width)

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Hit rates in percent: mean over classes, over all maps, and per class."""
        names = sorted({row["class"] for one in scores for row in one.flat})
        measures = [class_mean(names), mean_of("hit", 100, name="over_maps")]
        per_class = [
            {"method": one.method, "class": name}
            | measured(one, [mean_of("hit", 100, _is_class(name))])
            | {"maps": sum(row["class"] == name for row in one.flat)}
            for one in scores
            if one.rows
            for name in names
        ]
        rows = summary(scores, measures)
        for row, one in zip(rows, scores, strict=True):
            row["maps"] = len(list(one.flat))
        return {
            self.name: rows,
            "pointing_per_class": per_class,
            "pointing_differences": differences(scores, measures),
        }


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
