"""Randomising a classifier layer by layer: a map that stays the same explains no classifier (Group-CAM, Sec. 4.5).

The check is that of Adebayo et al. (2018). What a classifier has besides weight layers and norms (tokens, position
embeddings, layer scales) keeps its values.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from explainer.explanandum import Explanandum

LINEAR = (nn.Linear, nn.MultiheadAttention)
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
Initialisation = Literal["pytorch", "he"]


class WeightLayer(NamedTuple):
    """A convolution or linear layer, with the norms that ran between it and the next one; names within the model."""

    name: str
    norms: tuple[str, ...]


def weight_layers(explanandum: Explanandum, *, linear: bool = True) -> tuple[WeightLayer, ...]:
    """The classifier's weight layers from output to input, in the order in which they run.

    Args:
        explanandum: its model runs once; layers that don't run (auxiliary heads) are not listed.
        linear: also linear and attention layers; False for convolutions only (as Group-CAM's authors).

    Raises:
        ValueError: If there is none.
    """
    model = explanandum.model
    found: dict[str, list[str]] = {}
    early: list[str] = []  # norms before the first weight layer go with it
    for name in _names_in_order(explanandum):
        if isinstance(model.get_submodule(name), _ConvNd | nn.Linear | nn.MultiheadAttention):
            found[name], early = early, []
        elif found:
            next(reversed(found.values())).append(name)
        else:
            early.append(name)
    layers = tuple(
        WeightLayer(name, tuple(norms))
        for name, norms in reversed(found.items())
        if linear or not isinstance(model.get_submodule(name), LINEAR)
    )
    if not layers:
        raise ValueError(
            "The classifier runs no convolution" + (" and no linear layer." if linear else "; try linear.")
        )
    return layers


def cascading(
    explanandum: Explanandum, *, linear: bool = True, initialisation: Initialisation = "he", seed: int = 0
) -> Iterator[tuple[str, Explanandum]]:
    """The classifier with its last layer randomised, then its last two, and so on down to the first.

    All steps yield one and the same copy, so use it before asking for the next; the original is left alone.

    Args:
        explanandum: the original.
        linear: as in `weight_layers`.
        initialisation: of the weights. `he` (He et al., 2015; biases 0) keeps the signal's size through ReLUs.
            `pytorch` draws as a fresh layer does (Group-CAM's authors): the signal dies away over many such layers,
            until the logits are the same for all images and what a map shows is rounding errors.
        seed: of the weights. A layer gets the same ones whichever other layers are randomised.

    Yields:
        The name of the layer that was randomised last, and the copy.
    """
    copy = deepcopy(explanandum)
    for layer in weight_layers(explanandum, linear=linear):
        _randomise(copy.model, layer, initialisation, seed)
        yield layer.name, copy


def independent(
    explanandum: Explanandum, *, linear: bool = True, initialisation: Initialisation = "he", seed: int = 0
) -> Iterator[tuple[str, Explanandum]]:
    """The classifier with one layer randomised, the others as they were; arguments and yields as in `cascading`."""
    copy = deepcopy(explanandum)
    for layer in weight_layers(explanandum, linear=linear):
        _randomise(copy.model, layer, initialisation, seed)
        yield layer.name, copy
        for name in (layer.name, *layer.norms):
            copy.model.get_submodule(name).load_state_dict(explanandum.model.get_submodule(name).state_dict())


def _names_in_order(explanandum: Explanandum) -> list[str]:
    """Names of weight layers and norms in the order in which they (first) run; the order of definition may differ."""
    names: dict[str, None] = {}
    handles = [
        module.register_forward_hook(_note(name, names))
        for name, module in explanandum.model.named_modules()
        if isinstance(module, (_ConvNd, *LINEAR, *NORMS))
    ]
    size, device = explanandum.card.image_size, next(explanandum.parameters()).device
    try:
        with torch.no_grad():
            explanandum(torch.zeros(1, 3, size, size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return list(names)


def _note(name: str, names: dict[str, None]) -> Callable[[nn.Module, object, object], None]:
    return lambda _module, _inputs, _output: names.setdefault(name)


def _randomise(model: nn.Module, layer: WeightLayer, initialisation: Initialisation, seed: int) -> None:
    """Fresh weights for the layer; fresh norms hold no random numbers, but forget their statistics."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {layer.name}".encode()))
    parameters = dict(model.get_submodule(layer.name).named_parameters())
    inputs = next(value[0].numel() for name, value in parameters.items() if name.endswith("weight"))
    with torch.no_grad():
        for name, value in parameters.items():
            if name.endswith(("weight", "bias")):
                # Drawn on the CPU in float32, so that the numbers depend neither on the device nor on the precision.
                value.copy_(INITIALISATIONS[initialisation](torch.empty(value.shape), inputs, generator))
        for name in layer.norms:
            model.get_submodule(name).reset_parameters()  # type: ignore[operator]  # all of NORMS have it


def _pytorch(empty: Tensor, inputs: int, generator: torch.Generator) -> Tensor:
    """What `reset_parameters` of convolutions and linear layers draws, weights and biases alike."""
    bound = 1 / math.sqrt(inputs)
    return empty.uniform_(-bound, bound, generator=generator)


def _he(empty: Tensor, inputs: int, generator: torch.Generator) -> Tensor:
    return empty.normal_(std=math.sqrt(2 / inputs), generator=generator) if empty.ndim > 1 else empty.zero_()


INITIALISATIONS: dict[Initialisation, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "pytorch": _pytorch,
    "he": _he,
}
