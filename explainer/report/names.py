"""How methods and measures are called in print."""

from collections.abc import Iterable, Mapping
from typing import Any

NAMES = {
    "explainer": "Explainer",
    "pami": "PAMI",
    "pami_window": "PAMI (windows)",
    "group_cam": "Group-CAM",
    "group_cam_head": "Group-CAM (code)",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "wgrad_cam": "WGradCAM",
    "score_cam": "Score-CAM",
    "lrp": "LRP",
    "xrai": "XRAI",
    "sigcam": "SIGCAM",
    "aop": "AOP",
    "i_gos": "I-GOS",
    "igos_pp": "iGOS++",
    "mask": "MASK",
    "extremal": "Extremal",
    "gradient": "Gradient",
    "guided_backprop": "Guided Backprop",
    "smooth_grad": "SmoothGrad",
    "integrated_gradients": "Integrated Gradients",
    "full_grad": "FullGrad",
    "rise": "RISE",
    "occlusion": "Occlusion",
    "random": "Random",
    "center": "Center",
}
"""As the papers write them; a method that is not here keeps its own name."""

METHOD_COLUMNS = ("method", "other")

MEASURES = {
    "insertion": "insertion AUC (%) ↑",
    "deletion": "deletion AUC (%) ↓",
    "over_all": "over-all score (%) ↑",
    "iou": "IoU (%) ↑",
    "acc": "accuracy (%) ↑",
    "mae": "mean abs. error (%) ↓",
    "sal": "saliency score ↓",
    "seconds": "seconds an image ↓",
    "rank_correlation": "rank correlation",
    "ssim": "SSIM",
}
"""With their unit, and the direction that is better."""


def method_names(methods: list[str]) -> dict[str, str]:
    """What methods are called in a figure or a table: without their options, unless two would be called alike.

    Args:
        methods: as `--methods` has them, each once.
    """
    short = {text: NAMES.get(text.partition(":")[0], text.partition(":")[0]) for text in methods}
    twice = {name for name in short.values() if list(short.values()).count(name) > 1}
    return {text: _with_options(text, name) if name in twice else name for text, name in short.items()}


def _with_options(text: str, name: str) -> str:
    options = text.partition(":")[2]
    return f"{name} ({options.replace(',', ', ')})" if options else name


def names_in(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What the methods of a table are called, those in its column `other` among them; numbers there are no methods."""
    texts = (row.get(column) for row in rows for column in METHOD_COLUMNS)
    return method_names(list(dict.fromkeys(text for text in texts if isinstance(text, str))))


def measure_name(column: str) -> str:
    """What a column is called on an axis."""
    return MEASURES.get(column, column.replace("_", " "))
