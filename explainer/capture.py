"""A layer's activation and its gradient, taken by hooks that live no longer than one call.

B images, K channels, h×w cells of the layer's output.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class CannotExplain(ValueError):
    """The method can't explain this classifier; the message says why and what would help."""


class LayerActivation:
    """What `captured_activation` fills while the model runs: `value` [B,K,h,w], the start of an autograd graph."""

    value: Tensor


@contextmanager
def captured_activation(model: nn.Module, layer: str) -> Iterator[LayerActivation]:
    """Capture the output of a layer during the forward pass inside the `with` block.

    The captured value is cut from what lies before it and requires a gradient, so that `torch.autograd.grad` with
    respect to it never walks through the layers below, and no parameter's gradient is touched. The model goes on with
    a copy: later in-place operations leave the captured value alone.

    Raises:
        CannotExplain: if there is no layer of that name.
    """
    layers = dict(model.named_modules())
    if layer not in layers:
        known = ", ".join(name for name in layers if name)
        raise CannotExplain(f"Unknown target layer '{layer}'; choose one of: {known}.")
    captured = LayerActivation()

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        captured.value = output.detach().requires_grad_()
        return captured.value.clone()

    handle = layers[layer].register_forward_hook(keep)
    try:
        yield captured
    finally:
        handle.remove()


def last_spatial_layer(model: nn.Module, image_size: int) -> str:
    """Name of the last module whose output is a map [B,K,h,w] with h·w > 1, the pooling before the head left aside.

    For torchvision's VGG-16 that is `features`, whose output is the final max-pooling's; for ResNet-50 `layer4`.

    Raises:
        CannotExplain: if no layer's output is a map.
    """
    found: list[str] = []
    handles = [
        module.register_forward_hook(_note_if_spatial(name, found))
        for name, module in model.named_modules()
        if name and not isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
    ]
    reference = next(model.parameters())
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, image_size, image_size, dtype=reference.dtype, device=reference.device))
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise CannotExplain("No layer of the classifier gives a spatial map [B,K,h,w]; name a target layer.")
    return found[-1]


def _note_if_spatial(name: str, found: list[str]) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-2] * output.shape[-1] > 1:
            found.append(name)

    return hook
