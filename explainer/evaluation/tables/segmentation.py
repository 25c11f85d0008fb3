"""Agreement with the ground-truth segmentation (NN-Explainer, Table 2).

B images, N maps (one for each image and present class), C classes, H×W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from datamodules.batch import VOID
from explainer.attribution.perturb import resolved_chunk_size
from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import differences, mean_of, measured, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import WITHOUT_MASK, Files, SplitFacts, Table, columns
from explainer.masking import apply_mask
from explainer.metrics.segmentation import agreement, saliency

VoidRule = Literal["ignore", "foreground"]
CONSTANT_ROWS = {"zero": 0.0, "half": 0.5, "one": 1.0}
"""Table 2's sanity masks."""
MEASURES = (mean_of("acc", 100), mean_of("iou", 100), mean_of("sal"), mean_of("mae", 100))
"""Accuracy, IoU and error in percent, as in Table 2; the saliency score of Eq. 9 in nats."""


@dataclass(frozen=True)
class SegmentationOptions:
    """How masks are compared with the ground truth.

    Args:
        void: Leave the ground truth's void pixels out, or count them as object (as the authors' code does).
    """

    void: VoidRule = "ignore"


class SegmentationTable(Table):
    """Every method's merged mask against all objects, and each class's own mask against the objects of that class.

    Files: `segmentation`, `segmentation_per_class`, `segmentation_differences`.
    """

    name = "segmentation"
    own_rows = (*CONSTANT_ROWS, "ground_truth")
    options: SegmentationOptions

    def unsuited(self, split: SplitFacts) -> str:
        """It compares with masks."""
        return "" if split.has_masks else "no image of the split has a segmentation mask"

    def asks(self, images: Images) -> Tensor:
        """The present classes."""
        return images.labels

    def left_out(self, images: Images) -> list[str]:
        """Images without a class or without a mask; the first reason that holds counts."""
        masked = zip(super().left_out(images), images.has_mask, strict=True)
        return [reason or ("" if has_mask else WITHOUT_MASK) for reason, has_mask in masked]

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """A row with class None for the merged mask, and one for each class of which objects are visible."""
        found = self._merged(images, maps.merged(len(images)))
        mask, truth, valid = maps.scaled, self._truth(images)[0], self._valid(images)
        owns = truth[maps.image_index] == maps.target[:, None, None] + 1
        one_class = torch.zeros_like(images.labels)[maps.image_index].scatter_(1, maps.target[:, None], True)
        scores = self._scores(images.image[maps.image_index], mask, owns, valid[maps.image_index], one_class)
        for values, index, target, visible in zip(
            scores, maps.image_index.tolist(), maps.target.tolist(), owns.flatten(1).any(dim=1).tolist(), strict=True
        ):
            if visible:  # else the data set's label has no pixel to agree with
                found[index].append({"class": self.class_name(target), **values})
        return found

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """Constant masks, and the ground truth itself."""
        _, objects = self._truth(images)
        if name == "ground_truth":
            return self._merged(images, objects.float())
        return self._merged(images, torch.full(objects.shape, CONSTANT_ROWS[name], device=objects.device))

    def _merged(self, images: Images, mask: Tensor) -> list[list[Row]]:
        _, objects = self._truth(images)
        scores = self._scores(images.image, mask, objects, self._valid(images), images.labels)
        return [[{"class": None, **values}] for values in scores]

    def _truth(self, images: Images) -> tuple[Tensor, Tensor]:
        """The mask of class indices, and the objects of all classes, [B,H,W] each."""
        mask = images.batch.mask
        assert mask is not None  # or all images would have been left out
        return mask, (mask > 0) & self._valid(images)

    def _valid(self, images: Images) -> Tensor:
        assert images.batch.mask is not None
        void = images.batch.mask == VOID
        return ~void if self.options.void == "ignore" else torch.ones_like(void)

    def _scores(self, image: Tensor, mask: Tensor, truth: Tensor, valid: Tensor, labels: Tensor) -> list[Row]:
        """Rows of masks [N,H,W] on images [N,3,H,W] against truths [N,H,W], with the classes [N,C] they stand for."""
        if len(image) == 0:
            return []
        with torch.no_grad():
            # There may be many classes to an image, hence many more masks than the batch has images.
            limit = resolved_chunk_size("auto", image)
            parts = zip(image.split(limit), mask.split(limit), strict=True)
            logits = torch.cat([self.explanandum(apply_mask(*part)).float() for part in parts])
        # Softmax also for a multi-label classifier, as in the authors' code for Eq. 9.
        return columns(**agreement(mask, truth, valid), sal=saliency(mask, logits.log_softmax(dim=1), labels))

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Merged masks, their differences, and classes."""
        merged = [_only(one, None) for one in scores]
        names = sorted({row["class"] for one in scores for row in one.flat if row["class"] is not None})
        per_class = [
            {"method": one.method, "class": name, **measured(part, MEASURES), "images": len(part.rows)}
            for one in scores
            for name in names
            if (part := _only(one, name)).rows
        ]
        return {
            self.name: self.main_rows(scores),
            "segmentation_per_class": per_class,
            "segmentation_differences": differences(merged, MEASURES),
        }

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """Merged masks."""
        return summary([_only(one, None) for one in scores], MEASURES)


def _only(scores: MethodScores, name: str | None) -> MethodScores:
    """The rows of one class (None: of the merged masks)."""
    rows = {image: [row for row in rows if row["class"] == name] for image, rows in scores.rows.items()}
    return MethodScores(scores.method, {image: kept for image, kept in rows.items() if kept}, scores.failed)
