"""Metrics of attribution maps: pure functions and thin torchmetrics classes over them."""

from explainer.metrics.mean import ImageMean
from explainer.metrics.scaling import merged_saliency, to_unit_range
from explainer.metrics.segmentation import SegmentationAgreement, agreement, saliency

__all__ = ["ImageMean", "SegmentationAgreement", "agreement", "merged_saliency", "saliency", "to_unit_range"]
