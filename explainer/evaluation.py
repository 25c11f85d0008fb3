"""Running methods over a data set and accumulating their metrics, on one device or several.

B images, C classes, N maps, H×W pixels.
"""

from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from datamodules.batch import VOID, Batch
from explainer.attribution import AttributionMethod
from explainer.explanandum import Explanandum
from explainer.masking import apply_mask
from explainer.metrics import SegmentationAgreement, merged_saliency

VoidRule = Literal["ignore", "foreground"]
CONSTANT_ROWS = {"zero": 0.0, "half": 0.5, "one": 1.0}
"""Table 2's sanity masks."""
LEFT_OUT = ("unreadable", "without a class", "without a mask")
"""Why an image is not in a table; the first reason that holds is counted."""


class SegmentationTable(LightningModule):
    """NN-Explainer, Table 2: every method's merged mask against the ground-truth segmentation.

    Run it with `Trainer.test` (and `inference_mode=False`: CAM methods take gradients).

    Args:
        explanandum: the classifier, also for the saliency score.
        methods: by the names of their rows.
        void: leave pixels of the ground truth marked as void out, or count them as object (as the authors' code does).

    Attributes:
        rows: of the finished table.
        left_out: number of images that are not in it, by reason (`LEFT_OUT`).
    """

    left_out_counts: Tensor

    def __init__(
        self, explanandum: Explanandum, methods: dict[str, AttributionMethod], void: VoidRule = "ignore"
    ) -> None:
        super().__init__()
        self.explanandum: Explanandum = explanandum
        self.rows: list[dict[str, Any]] = []
        self.left_out = dict.fromkeys(LEFT_OUT, 0)
        self.methods = methods
        # Registered, so that a learned method's network moves to the device too.
        self.networks = nn.ModuleList([part for method in methods.values() for part in method.modules])
        self.void = void
        self.row_names = [*methods, *CONSTANT_ROWS, "ground_truth"]
        self.scores = [SegmentationAgreement() for _ in self.row_names]
        self.registered_scores = nn.ModuleList(self.scores)
        self.register_buffer("left_out_counts", torch.zeros(len(LEFT_OUT), dtype=torch.long), persistent=False)

    def test_step(self, batch: Batch, _batch_index: int) -> None:
        """Add a batch; images without a class, or without a valid pixel in their mask, can't be scored."""
        if batch.mask is None:
            raise ValueError(
                "This split has no segmentation masks, which the segmentation table needs; choose another."
            )
        valid = batch.mask != VOID if self.void == "ignore" else torch.ones_like(batch.mask, dtype=torch.bool)
        # Void everywhere stands for "no mask", whatever the rule.
        has_class, has_mask = batch.labels.any(dim=1), (batch.mask != VOID).flatten(1).any(dim=1)
        usable = has_class & has_mask
        unreadable = has_class.new_tensor(len(batch.skipped), dtype=torch.long)
        self.left_out_counts += torch.stack([unreadable, (~has_class).sum(), (has_class & ~has_mask).sum()])
        if usable.any():
            image = batch.image[usable].contiguous(memory_format=torch.channels_last)
            self._add(image, batch.labels[usable], (batch.mask > 0)[usable] & valid[usable], valid[usable])

    def _add(self, image: Tensor, labels: Tensor, truth: Tensor, valid: Tensor) -> None:
        for name, method in self.methods.items():
            maps, image_index, _ = method.present_class_maps(image, labels)
            mask = merged_saliency(maps, image_index, len(image), method.unit_range)
            self._score(name, mask, image, labels, truth, valid)
        for name, value in CONSTANT_ROWS.items():
            self._score(name, torch.full(truth.shape, value, device=image.device), image, labels, truth, valid)
        self._score("ground_truth", truth.float(), image, labels, truth, valid)

    def _score(self, name: str, mask: Tensor, image: Tensor, labels: Tensor, truth: Tensor, valid: Tensor) -> None:
        with torch.no_grad():
            # Softmax also for a multi-label classifier, as in the authors' code for Eq. 9.
            log_probabilities = self.explanandum(apply_mask(image, mask)).float().log_softmax(dim=1)
        self.scores[self.row_names.index(name)].update(mask, truth, valid, log_probabilities, labels)

    def on_test_epoch_end(self) -> None:
        """Sum up over devices."""
        self.rows = [
            {"method": name, **metric.compute()} for name, metric in zip(self.row_names, self.scores, strict=True)
        ]
        counts = self.trainer.strategy.reduce(self.left_out_counts, reduce_op="sum")
        self.left_out = dict(zip(LEFT_OUT, counts.tolist(), strict=True))

    @property
    def total_skipped(self) -> int:
        """Number of images that are not in the table."""
        return sum(self.left_out.values())
