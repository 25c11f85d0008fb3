"""Our methods as captum has them.

B images, H×W pixels.
"""

import warnings

import torch
from adapter import Attribute
from torch import Tensor, nn

from explainer.attribution import AttributionMethod
from explainer.attribution.perturb import gradient_chunk, plain_images, resolved_chunk_size


def strongest(attributions: Tensor) -> Tensor:
    """[B,3,H,W] -> [B,H,W]: the largest magnitude of a pixel's three colours, as our gradient family has it."""
    return attributions.detach().abs().amax(dim=1)


def asking(image: Tensor) -> Tensor:
    """The image, of which a gradient is wanted; captum warns where it has to say so itself."""
    return image.detach().requires_grad_()


def grad_cam(method: AttributionMethod, model: nn.Module) -> Attribute:
    """Grad-CAM of captum, whose maps keep the layer's size."""
    from captum.attr import LayerGradCam

    cam = LayerGradCam(model, model.get_submodule(method.target_layer))
    return lambda image, target: cam.attribute(image, target, relu_attributions=True)[:, 0].detach()


def occlusion(method: AttributionMethod, model: nn.Module) -> Attribute:
    """Occlusion of captum, of the target's probability; all colours of a window are hidden at once."""
    from captum.attr import Occlusion

    window, step = method.window, method.step
    covering = Occlusion(lambda image: method.explanandum.probabilities(model(image)))

    def attribute(image: Tensor, target: Tensor) -> Tensor:
        at_once = max(1, resolved_chunk_size(method.chunk_size, image) // len(image))
        maps = covering.attribute(
            image, (3, window, window), (3, step, step), baselines=0, target=target, perturbations_per_eval=at_once
        )
        return maps[:, 0]

    return attribute


def gradient(_method: AttributionMethod, model: nn.Module) -> Attribute:
    """The gradient, which captum calls saliency."""
    from captum.attr import Saliency

    saliency = Saliency(model)
    return lambda image, target: strongest(saliency.attribute(asking(image), target, abs=False))


def guided_backprop(_method: AttributionMethod, model: nn.Module) -> Attribute:
    """Guided backpropagation of captum, which sees no ReLU but those that are modules."""
    from captum.attr import GuidedBackprop

    guided = GuidedBackprop(model)

    def attribute(image: Tensor, target: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")
            return strongest(guided.attribute(asking(image), target))

    return attribute


def smooth_grad(method: AttributionMethod, model: nn.Module) -> Attribute:
    """SmoothGrad of captum, image by image, as a call has noise of one strength; draws of torch's global generator."""
    from captum.attr import NoiseTunnel, Saliency

    tunnel = NoiseTunnel(Saliency(model))

    def one(image: Tensor, target: Tensor) -> Tensor:
        return tunnel.attribute(
            asking(image),
            nt_type="smoothgrad",
            nt_samples=method.samples,
            nt_samples_batch_size=gradient_chunk(method.chunk_size, image),
            stdevs=method.noise * float(image.max() - image.min()),
            target=target,
            abs=False,
        )

    return lambda image, target: strongest(torch.cat(list(map(one, image.split(1), target.split(1)))))


def integrated_gradients(method: AttributionMethod, model: nn.Module) -> Attribute:
    """Integrated gradients of captum, at the middles of the steps as ours are; by default it has others."""
    from captum.attr import IntegratedGradients

    integrated = IntegratedGradients(model)

    def attribute(image: Tensor, target: Tensor) -> Tensor:
        black = plain_images(image, method.explanandum.card, brightness=0)
        return strongest(
            integrated.attribute(
                image,
                black if method.baseline == "black" else torch.zeros_like(image),
                target,
                n_steps=method.steps,
                method="riemann_middle",
                internal_batch_size=max(len(image), gradient_chunk(method.chunk_size, image)),
            )
        )

    return attribute
