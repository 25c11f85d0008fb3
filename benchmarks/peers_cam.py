"""Our methods as the two libraries of activation maps have them: pytorch-grad-cam and torchcam.

B images, H×W pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any

import torch
from adapter import Attribute, NoPeer
from torch import Tensor, nn

from explainer.attribution import AttributionMethod
from explainer.attribution.perturb import resolved_chunk_size


@contextmanager
def released(cam: Any) -> Iterator[Any]:
    """A method of pytorch-grad-cam that lives no longer than a call.

    One that is kept collects the activations of all passes that are made later (of FullGrad 42 MB an image with
    ResNet-50), and the graph of its last one. Its own `with` hides an IndexError.
    """
    try:
        yield cam
    finally:
        cam.activations_and_grads.release()


def pytorch_cam(kind: str, method: AttributionMethod, model: nn.Module) -> Attribute:
    """GradCAM, which computes the gradients of all parameters too, or ScoreCAM, as pytorch-grad-cam has them.

    Its ScoreCAM enlarges channels so that the middles of their outermost cells lie on the border.
    """
    from pytorch_grad_cam import GradCAM, ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    make = {"GradCAM": GradCAM, "ScoreCAM": ScoreCAM}[kind]
    require_softmax(method)

    def attribute(image: Tensor, target: Tensor) -> Tensor:
        with released(make(model, [model.get_submodule(method.target_layer)])) as cam:
            cam.batch_size = resolved_chunk_size(getattr(method, "chunk_size", "auto"), image)  # of ScoreCAM
            with redirect_stderr(StringIO()):  # its progress bars
                return torch.from_numpy(cam(image, [ClassifierOutputTarget(index) for index in target.tolist()]))

    return attribute


def require_softmax(method: AttributionMethod) -> None:
    """Score-CAM's weights are a softmax in all libraries; other methods have no such option."""
    if getattr(method, "weighting", "softmax") != "softmax":
        raise NoPeer("its weights are softmax only")


def torchcam_grad_cam(method: AttributionMethod, model: nn.Module) -> Attribute:
    """Grad-CAM of torchcam, whose maps keep the layer's size."""
    from torchcam.methods import GradCAM

    cam = GradCAM(model, method.target_layer)
    return lambda image, target: cam(target.tolist(), model(image))[0]


def torchcam_score_cam(method: AttributionMethod, model: nn.Module) -> Attribute:
    """Score-CAM of torchcam, likewise; it scales a channel before it enlarges it."""
    from torchcam.methods import ScoreCAM

    require_softmax(method)
    cam = ScoreCAM(model, method.target_layer)

    @torch.no_grad()
    def attribute(image: Tensor, target: Tensor) -> Tensor:
        cam.bs = resolved_chunk_size(method.chunk_size, image)
        model(image)
        return cam(target.tolist())[0]

    return attribute


def pytorch_full_grad(method: AttributionMethod, model: nn.Module) -> Attribute:
    """FullGrad of pytorch-grad-cam: biases of convolutions and BatchNorms; scales channels and, in the end, the map."""
    from pytorch_grad_cam import FullGrad
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if method.rescale != "channel":
        raise NoPeer("it scales each channel by itself; compare it with full_grad:rescale=channel")

    def attribute(image: Tensor, target: Tensor) -> Tensor:
        with released(FullGrad(model, [])) as cam:
            return torch.from_numpy(cam(image, [ClassifierOutputTarget(index) for index in target.tolist()]))

    return attribute
