"""Our attribution methods as other libraries have them, beside which benchmarks/methods.py times ours.

B images, H×W pixels.
"""

from functools import partial
from typing import Any

import peers_cam as cams
import peers_captum as captum
import torch
import torch.nn.functional as F
from adapter import Adapter, Attribute, NoPeer
from torch import Tensor, nn

from explainer.attribution import AttributionMethod
from explainer.attribution.perturb import card_statistics, gradient_chunk
from explainer.attribution.xrai import to_picture

LIBRARIES = ("grad-cam", "torchcam", "captum", "saliency", "zennit")


def zennit_lrp(method: AttributionMethod, model: nn.Module) -> Attribute:
    """LRP of zennit, summed over colours as ours is."""
    from torchvision.models import VGG, ResNet
    from zennit.attribution import Gradient
    from zennit.composites import COMPOSITES
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    if not isinstance(model, VGG | ResNet):
        raise NoPeer("it merges BatchNorm in torchvision's VGGs and ResNets only")
    if method.composite not in COMPOSITES:
        raise NoPeer(f"it has no composite '{method.composite}'")
    canonizer = VGGCanonizer() if isinstance(model, VGG) else ResNetCanonizer()
    make = partial(COMPOSITES[method.composite], epsilon=method.epsilon, canonizers=[canonizer])

    def attribute(image: Tensor, target: Tensor) -> Tensor:
        with Gradient(model, make()) as gradient:
            _, relevance = gradient(image, lambda logits: logits * F.one_hot(target, logits.shape[1]))
        return relevance.sum(dim=1)

    return attribute


def saliency_xrai(method: AttributionMethod, model: nn.Module, *, as_it_comes: bool = False) -> Attribute:
    """XRAI of its authors, with our baselines and as many steps, which it takes at both ends of the way too.

    As it comes, it takes 100 steps from each of two greys, those of the image's lowest and highest value.
    """
    import saliency.core as saliency

    if method.segments != "felzenszwalb":
        raise NoPeer("its segments are Felzenszwalb's only")
    card = method.explanandum.card
    steps = saliency.XRAIParameters() if as_it_comes else saliency.XRAIParameters(steps=method.steps)

    def gradients(pictures: Any, call_model_args: int, expected_keys: object = None) -> dict[str, Any]:
        return {saliency.INPUT_OUTPUT_GRADIENTS: picture_gradients(model, card, pictures, call_model_args)}

    def one(image: Tensor, target: int) -> Tensor:
        picture = to_picture(image, card)
        greys = None if as_it_comes else [0 * picture + grey for grey in method.baselines]
        chunk = gradient_chunk(method.chunk_size, image[None])
        found = saliency.XRAI().GetMask(
            picture, gradients, target, baselines=greys, batch_size=chunk, extra_parameters=steps
        )
        return torch.from_numpy(found).float()

    return lambda image, target: torch.stack(list(map(one, image, target.tolist())))


def picture_gradients(model: nn.Module, card: Any, pictures: Any, target: int) -> Any:
    """Gradients of a logit by pictures that are not normalised yet, both NumPy [B,H,W,3]."""
    device = next(model.parameters()).device
    leaf = torch.as_tensor(pictures, dtype=torch.float32, device=device).requires_grad_()
    image = leaf.permute(0, 3, 1, 2).contiguous()
    mean, std = card_statistics(card, image)
    (gradient,) = torch.autograd.grad(model((image - mean) / std)[:, target].sum(), leaf)
    return gradient.cpu().numpy()


PEERS: dict[str, dict[str, Adapter]] = {
    "grad_cam": {
        "pytorch-grad-cam GradCAM": partial(cams.pytorch_cam, "GradCAM"),
        "torchcam GradCAM": cams.torchcam_grad_cam,
        "captum LayerGradCam": captum.grad_cam,
    },
    "score_cam": {
        "pytorch-grad-cam ScoreCAM": partial(cams.pytorch_cam, "ScoreCAM"),
        "torchcam ScoreCAM": cams.torchcam_score_cam,
    },
    "occlusion": {"captum Occlusion": captum.occlusion},
    "gradient": {"captum Saliency": captum.gradient},
    "guided_backprop": {"captum GuidedBackprop": captum.guided_backprop},
    "smooth_grad": {"captum NoiseTunnel": captum.smooth_grad},
    "integrated_gradients": {"captum IntegratedGradients": captum.integrated_gradients},
    "full_grad": {"pytorch-grad-cam FullGrad": cams.pytorch_full_grad},
    "lrp": {"zennit LRP": zennit_lrp},
    "xrai": {
        "saliency XRAI": saliency_xrai,
        "saliency XRAI, as it comes": partial(saliency_xrai, as_it_comes=True),
    },
}
"""By our method's name: what other libraries call theirs -> the adapter."""
