"""Attribution methods behind one contract: `METHODS[name](explanandum, **options)(image, target) -> map`."""

from collections.abc import Mapping

from explainer.attribution.base import AttributionMethod
from explainer.attribution.grad_cam import GradCAM
from explainer.attribution.learned import LearnedExplainer
from explainer.capture import CannotExplain

METHODS: dict[str, type[AttributionMethod]] = {
    "explainer": LearnedExplainer,
    "grad_cam": GradCAM,
}


def method_class(name: str, methods: Mapping[str, type[AttributionMethod]] = METHODS) -> type[AttributionMethod]:
    """The class of a method.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    if name not in methods:
        raise ValueError(f"Unknown method '{name}'; choose one of: {', '.join(methods)}.")
    return methods[name]


__all__ = ["METHODS", "AttributionMethod", "CannotExplain", "GradCAM", "LearnedExplainer", "method_class"]
