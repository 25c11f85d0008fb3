"""Metrics of attribution maps: pure functions and thin torchmetrics classes over them.

The intervals are those of `explainer.bootstrap`, whose `bootstrap` is the general form behind them.
"""

from explainer.bootstrap import (
    Interval,
    bootstrap_interval,
    bootstrap_mean,
    interval_of,
    paired_difference,
    tail_probability,
)
from explainer.metrics.curves import (
    CurveOptions,
    DeletionAUC,
    InsertionAUC,
    auc,
    baseline_image,
    changed_pixels,
    curve_fractions,
    deletion_curve,
    insertion_curve,
    insertion_deletion_curves,
    over_all,
)
from explainer.metrics.masking import (
    THRESHOLDS,
    UNMASKED,
    ClassMasking,
    class_masking_scores,
    class_specificity,
    masked_probabilities,
    masking_matrix,
    unmasked_scores,
)
from explainer.metrics.mean import ImageMean
from explainer.metrics.pointing import PointingGame, boxes_to_region, pointing_hit
from explainer.metrics.ranks import importance_ranks
from explainer.metrics.recognition import (
    MASKED_THRESHOLD,
    PLAIN_THRESHOLD,
    Recognition,
    per_class_scores,
    recognition_counts,
    scores_from_counts,
)
from explainer.metrics.scaling import merged_saliency, to_unit_range
from explainer.metrics.segmentation import SegmentationAgreement, agreement, saliency
from explainer.metrics.shortcut import ShortcutShares, mass_shares
from explainer.metrics.similarity import rank_correlation, structural_similarity
from explainer.resampling import mean_ratio, ratios, resampled, sums_per_image

__all__ = [
    "MASKED_THRESHOLD",
    "PLAIN_THRESHOLD",
    "THRESHOLDS",
    "UNMASKED",
    "ClassMasking",
    "CurveOptions",
    "DeletionAUC",
    "ImageMean",
    "InsertionAUC",
    "Interval",
    "PointingGame",
    "Recognition",
    "SegmentationAgreement",
    "ShortcutShares",
    "agreement",
    "auc",
    "baseline_image",
    "bootstrap_interval",
    "bootstrap_mean",
    "boxes_to_region",
    "changed_pixels",
    "class_masking_scores",
    "class_specificity",
    "curve_fractions",
    "deletion_curve",
    "importance_ranks",
    "insertion_curve",
    "insertion_deletion_curves",
    "interval_of",
    "mass_shares",
    "masked_probabilities",
    "masking_matrix",
    "mean_ratio",
    "merged_saliency",
    "over_all",
    "paired_difference",
    "per_class_scores",
    "pointing_hit",
    "rank_correlation",
    "ratios",
    "recognition_counts",
    "resampled",
    "saliency",
    "scores_from_counts",
    "structural_similarity",
    "sums_per_image",
    "tail_probability",
    "to_unit_range",
    "unmasked_scores",
]
