"""Attribution methods behind one contract: `METHODS[name](explanandum, **options)(image, target) -> map`."""

from collections.abc import Mapping

from explainer.attribution.base import AttributionMethod
from explainer.attribution.extremal import ExtremalPerturbations
from explainer.attribution.full_grad import FullGrad
from explainer.attribution.grad_cam import GradCAM, GradCAMpp, WGradCAM
from explainer.attribution.gradient import Gradient, GuidedBackprop, IntegratedGradients, SmoothGrad
from explainer.attribution.group_cam import GroupCAM, GroupCAMHead
from explainer.attribution.igos import IGOS, IGOSpp
from explainer.attribution.learned import LearnedExplainer
from explainer.attribution.lrp import LRP
from explainer.attribution.meaningful import EMP
from explainer.attribution.occlusion import Occlusion
from explainer.attribution.pami import PAMI, PAMIWindow
from explainer.attribution.rise import RISE
from explainer.attribution.score_cam import ScoreCAM
from explainer.attribution.sigcam import AOP, SIGCAM
from explainer.attribution.trivial import Center, Random
from explainer.attribution.xrai import XRAI
from explainer.capture import CannotExplain

METHODS: dict[str, type[AttributionMethod]] = {
    "explainer": LearnedExplainer,
    "grad_cam": GradCAM,
    "grad_cam_pp": GradCAMpp,
    "wgrad_cam": WGradCAM,
    "group_cam": GroupCAM,
    "group_cam_head": GroupCAMHead,
    "score_cam": ScoreCAM,
    "full_grad": FullGrad,
    "gradient": Gradient,
    "guided_backprop": GuidedBackprop,
    "smooth_grad": SmoothGrad,
    "integrated_gradients": IntegratedGradients,
    "lrp": LRP,
    "xrai": XRAI,
    "pami_window": PAMIWindow,
    "pami": PAMI,
    "i_gos": IGOS,
    "igos_pp": IGOSpp,
    "mask": EMP,
    "sigcam": SIGCAM,
    "aop": AOP,
    "extremal": ExtremalPerturbations,
    "rise": RISE,
    "occlusion": Occlusion,
    "random": Random,
    "center": Center,
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
