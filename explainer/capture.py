"""A layer's activation and its gradient, taken by hooks that live no longer than one call.

B images, K channels, h×w cells of the layer's output.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from explainer.layout import to_maps

ATTENTION = re.compile(r"(^|[._])(self_)?att(n|ention)", re.IGNORECASE)
"""How the modules of attention are called, in torchvision and timm."""


class CannotExplain(ValueError):
    """The method can't explain this classifier; the message says why and what would help."""


class LayerActivation:
    """What `captured_activation` fills while the model runs.

    Args:
        layer: its name, for error messages.
    """

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self._value: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The layer's output, the start of an autograd graph.

        Raises:
            CannotExplain: if the layer had no part in the forward pass.
        """
        if self._value is None:
            raise CannotExplain(f"Layer '{self.layer}' did not run in the forward pass; name another target layer.")
        return self._value

    def as_maps(self, value: Tensor, image: Tensor) -> Tensor:
        """The layer's output, or what has its shape, as its gradient, as maps [n,K,h,w]; see `to_maps`.

        Args:
            value: of n of the images, the layer's axes after the first.
            image: the images that went in, [B,3,H,W].

        Raises:
            CannotExplain: if the output is no picture of the images.
        """
        maps = to_maps(value, (image.shape[-2], image.shape[-1]))
        if maps is None or len(self.value) != len(image):
            raise CannotExplain(
                f"A CAM method needs a layer that gives maps [B,K,h,w] or [B,h,w,K], or tokens [B,T,K] of a grid; of "
                f"{len(image)} images '{self.layer}' gives {list(self.value.shape)}. Name another target layer."
            )
        return maps

    def keep(self, _module: nn.Module, _inputs: object, output: object) -> Tensor:
        """The forward hook: note the output, and let the model go on with a copy of it."""
        if not isinstance(output, Tensor):
            raise CannotExplain(
                f"Layer '{self.layer}' gives a {type(output).__name__}, not a tensor; name another target layer."
            )
        self._value = output.detach().requires_grad_()
        return self._value.clone()


def named_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of that name.

    Raises:
        CannotExplain: if there is none.
    """
    layers = dict(model.named_modules())
    if name not in layers:
        known = [other for other in layers if other]
        close = get_close_matches(str(name), known, 3)
        raise CannotExplain(
            f"Unknown target layer '{name}'; "
            + (f"did you mean {' or '.join(close)}? " if close else "")
            + f"Choose one of: {', '.join(known)}."
        )
    return layers[name]


@contextmanager
def captured_activation(model: nn.Module, layer: str) -> Iterator[LayerActivation]:
    """Capture the output of a layer during the forward pass inside the `with` block.

    The captured value is cut from what lies before it and requires a gradient, so that `torch.autograd.grad` with
    respect to it never walks through the layers below, and no parameter's gradient is touched. The model goes on with
    a copy: later in-place operations leave the captured value alone. Of a layer that runs several times, the last
    output is captured.

    Raises:
        CannotExplain: if there is no layer of that name, or its output is no tensor.
    """
    captured = LayerActivation(layer)
    handle = named_layer(model, layer).register_forward_hook(captured.keep)
    try:
        yield captured
    finally:
        handle.remove()


def last_spatial_layer(model: nn.Module, image_size: int) -> str:
    """Name of the last module whose output is a map, as `to_maps` knows it, of h·w > 1 cells that the logits depend on.

    For torchvision's VGG-16 that is `features`, whose output is the final max-pooling's; for ResNet-50 `layer4`; for a
    vision transformer that reads its class token the LayerNorm before the last attention: after it no token but that
    one counts. The pooling before the head is left aside, and so is what lies in an attention, whose keys and weights
    [B,heads,n,n'] are no maps. A map of a square image is square, and no finer than the maps before it.

    Raises:
        CannotExplain: if no layer's output is a map.
    """
    found: list[_Spatial] = []
    handles = [
        module.register_forward_hook(_note_if_spatial(name, image_size, found))
        for name, module in model.named_modules()
        if name and not isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and not ATTENTION.search(name)
    ]
    reference = next(model.parameters())
    try:
        with torch.inference_mode(False), torch.enable_grad():
            image = torch.zeros(1, 3, image_size, image_size, dtype=reference.dtype, device=reference.device)
            logits = model(image.requires_grad_().clone())  # a copy, which the model may change in place
            if not found:
                raise CannotExplain("No layer of the classifier gives a spatial map [B,K,h,w]; name a target layer.")
            return next((one.layer for one in reversed(found) if one.reaches(logits)), found[-1].layer)
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Spatial:
    """A layer whose output is a map of a square image.

    Args:
        layer: its name.
        side: h = w.
        output: of the layer.
        image_size: H = W.
    """

    layer: str
    side: int
    output: Tensor
    image_size: int

    def reaches(self, logits: Tensor) -> bool:
        """Whether the logits depend on its cells."""
        if not (logits.requires_grad and self.output.requires_grad):
            return False
        weights = torch.arange(1.0, logits.numel() + 1).view_as(logits).to(logits)  # a sum of probabilities is constant
        (gradient,) = torch.autograd.grad(logits, self.output, weights, retain_graph=True, allow_unused=True)
        maps = None if gradient is None else to_maps(gradient, (self.image_size, self.image_size))
        # Tensors without values, with which options are tried, can't be looked at.
        return maps is not None and (maps.is_meta or bool(maps.any()))


def _note_if_spatial(name: str, size: int, found: list[_Spatial]) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or (maps := to_maps(output, (size, size))) is None:
            return
        images, _, height, width = maps.shape
        if images == 1 and height == width > 1 and (not found or height <= found[-1].side):
            found.append(_Spatial(name, height, output, size))

    return hook
