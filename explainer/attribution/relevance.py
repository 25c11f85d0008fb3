"""The rules of layer-wise relevance propagation, as a forward pass whose gradients are others.

B images, H×W pixels.

What a value contributes to the target's logit, its relevance, is the value times the gradient of the logit by it, once
the layers have the gradients that their rules ask for (Montavon et al., LRP: An Overview, 2019). So what is linear, a
sum, a mean, a view of another shape, needs no rule: its gradient hands relevance down in proportion already.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from explainer.attribution.graph import Dependence
from explainer.capture import CannotExplain
from explainer.masking import at_least_float32

Composite = Literal["epsilon_plus_flat", "epsilon_plus", "epsilon"]
"""Which rule for which layer.

The first is that of Kohlbrenner et al., Towards Best Practice in Explaining Neural Network Decisions with LRP (IJCNN
2020): epsilon in dense layers, z+ (α = 1, β = 0) in convolutions, flat in the convolution that sees the image. The
second has z+ there as well; the third is epsilon throughout, that is image · gradient in a network of ReLUs.
"""

STABILISER = 1e-9
"""Added to what is divided by, away from zero, in rules other than epsilon."""

PROPORTIONAL = frozenset(
    [
        *("add", "iadd", "radd", "sub", "isub", "rsub", "neg", "mean", "sum", "cat", "concat", "stack"),
        *("flatten", "view", "reshape", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "expand"),
        *("getitem", "chunk", "split", "unbind", "narrow", "contiguous", "clone", "to", "float", "type_as"),
        *("avg_pool2d", "adaptive_avg_pool2d", "max_pool2d", "adaptive_max_pool2d", "amax", "pad", "interpolate"),
        *("relu", "leaky_relu", "prelu", "dropout", "dropout2d", "channel_shuffle"),
        "get",  # an attribute, such as mT
    ]
)
"""Functions f with f(x) = gradient · x, but for constants that are added, which absorb their share."""

PRODUCTS = frozenset(["mul", "imul", "rmul", "matmul", "rmatmul", "bmm", "einsum"])
"""Likewise, as long as one factor only depends on the image."""

QUOTIENTS = frozenset(["div", "idiv", "truediv", "itruediv"])
"""Likewise, as long as the divisor does not depend on the image."""

ACTIVATIONS = frozenset(["relu6", "hardtanh", "clamp", "silu", "gelu", "hardswish", "mish", "elu", "selu", "tanh"])
"""Functions of single values, whose relevance they hand down whole."""

GATES = frozenset(["sigmoid", "hardsigmoid"])
"""All relevance of a product goes to the factor that is no gate (Arras et al., WASSA 2017)."""

Rule = Callable[["Layer"], Tensor]


class RelevanceRules(TorchFunctionMode):
    """While it is active, a function that is called on what depends on the image has the gradient that its rule asks.

    It sees every function, whether a module calls it or not, so that none is passed over in silence, and touches
    neither the model nor its weights. Results are the functions' own.

    Args:
        image: [B,3,H,W]; the model is to be given the attribute `image`.
        composite: which rule for which layer.
        epsilon: of the epsilon rule.
    """

    def __init__(self, image: Tensor, composite: Composite, epsilon: float) -> None:
        super().__init__()
        self.image = at_least_float32(image.detach()).requires_grad_()
        self._sources = [self.image]  # what the relevance of the pixels is read from
        self._depends = Dependence(self._sources)
        self._epsilon_throughout = composite == "epsilon"
        self._flat_is_due = composite == "epsilon_plus_flat"
        self._padded: Callable[[Tensor], Tensor] = torch.clone  # what the model does to the image before that
        self._dense_rule: Rule = partial(_epsilon, epsilon=epsilon)
        self._convolution_rule: Rule = self._dense_rule if self._epsilon_throughout else _plus
        self._last: tuple[Tensor, Layer, Rule] | None = None

    def relevance(self, score: Tensor, *, more_to_come: bool) -> Tensor:
        """Of the pixels, [B,H,W], for a score that the model's output gave.

        Raises:
            CannotExplain: if nothing of the image has reached the score.
        """
        found = []
        if score.requires_grad:
            gradients = torch.autograd.grad(score, self._sources, retain_graph=more_to_come, allow_unused=True)
            pairs = zip(self._sources, gradients, strict=True)
            found = [(source.detach() * gradient).sum(dim=1) for source, gradient in pairs if gradient is not None]
        if not found:
            raise CannotExplain("The logits do not depend on the image, or only through gates (sigmoid).")
        return torch.stack(found).sum(dim=0).float()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch in the model's place.

        Raises:
            CannotExplain: if there is no rule for it.
        """
        kwargs = dict(kwargs or {})
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        name = getattr(func, "__name__", str(func)).strip("_")
        depending = self._depending([*args, *kwargs.values()])
        if not depending:
            return func(*args, **kwargs)
        if name in ("conv2d", "linear"):
            return self._layer(name, func, *args, **kwargs)
        if name == "batch_norm":
            return self._batch_norm(func, *args, **kwargs)
        if name in ACTIVATIONS:
            return _handed_down(args[0], lambda value: func(value.clone(), *args[1:], **kwargs))  # it may be in-place
        if name == "pad" and args[0].shape == self.image.shape:
            self._padded = lambda pixels: func(pixels, *args[1:], **kwargs)
        output = func(*args, **kwargs)
        if name in GATES:
            return output.detach()
        if not self._depending([output]):  # a shape, say
            return output
        if not self._is_linear(name, args, depending):
            raise CannotExplain(_no_rule(name, depending))
        self._last = None  # perhaps it changed that layer's output in place
        return output

    def _depending(self, values: Iterable[Any]) -> int:
        """How many tensors among arguments or results, also within lists of them, depend on the image."""
        return sum(
            self._depending(value) if isinstance(value, tuple | list) else self._depends(value) for value in values
        )

    def _is_linear(self, name: str, args: Sequence[Any], depending: int) -> bool:
        """Whether the function of that name is linear in what depends on the image, of which there is so much."""
        if name in QUOTIENTS:
            return not self._depending(args[1:])
        return name in PROPORTIONAL or (name in PRODUCTS and depending == 1)

    def _layer(
        self,
        name: str,
        func: Callable[..., Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *settings: Any,
        **named: Any,
    ) -> Tensor:
        layer = Layer(
            lambda *tensors: func(*tensors, *settings, **named),
            at_least_float32(input),
            at_least_float32(weight),
            None if bias is None else at_least_float32(bias),
        )
        rule = self._dense_rule
        if name == "conv2d":
            sees_image = self._flat_is_due and input.shape == self._padded(self.image.detach()).shape
            rule, self._flat_is_due = self._flat if sees_image else self._convolution_rule, False
        output = rule(layer)
        self._last = output, layer, rule
        return output

    def _batch_norm(
        self,
        func: Callable[..., Tensor],
        input: Tensor,
        mean: Tensor | None,
        variance: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As part of the layer before it; alone, by epsilon its shift absorbs a share, else all is handed down."""
        if training or mean is None or variance is None:
            raise CannotExplain(_no_rule("batch_norm with the statistics of the batch"))
        if self._last is None or input is not self._last[0]:

            def alone(value: Tensor) -> Tensor:
                return func(value, mean, variance, weight, bias, eps=eps)

            # Inputs near zero would get what the shift contributes many times over, of either sign; where only positive
            # shares are handed on, that can't add up.
            return alone(at_least_float32(input)) if self._epsilon_throughout else _handed_down(input, alone)
        _, layer, rule = self._last
        scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean * scale
        return rule(layer.scaled(scale, shift))

    def _flat(self, layer: "Layer") -> Tensor:
        """Equal shares of all pixels that an output sees, whatever they show."""
        pixels = torch.ones_like(self.image).requires_grad_()
        self._sources.append(pixels)
        shares = layer.apply(self._padded(pixels), torch.ones_like(layer.weight), None)
        return _shared(layer(layer.input.detach()), shares)


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer and what it is called on.

    Args:
        apply: (input, weight, bias) -> output.
        input: that of this call.
        weight: its first axis is the output's channels.
        bias: of each of these, or None.
    """

    apply: Callable[..., Tensor]
    input: Tensor
    weight: Tensor
    bias: Tensor | None

    def __call__(self, input: Tensor) -> Tensor:
        """The output for an input."""
        return self.apply(input, self.weight, self.bias)

    def scaled(self, scale: Tensor, shift: Tensor) -> "Layer":
        """The layer whose outputs are those of this one, times `scale` plus `shift`, a number a channel each."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=shift if self.bias is None else self.bias * scale + shift)


def _epsilon(layer: Layer, epsilon: float) -> Tensor:
    """Shares of x·w and b; what a small sum of large parts would magnify is lost instead (Bach et al., Eq. 58)."""
    value = layer(layer.input)
    return _shared(value.detach(), value, epsilon)


def _plus(layer: Layer) -> Tensor:
    """Shares of the positive ones among x·w and b (Bach et al., Eq. 60 with α = 1, β = 0)."""
    bias = None if layer.bias is None else layer.bias.clamp(min=0)
    shares = layer.apply(layer.input.clamp(min=0), layer.weight.clamp(min=0), bias)
    if (layer.input < 0).any():  # not after a ReLU
        shares = shares + layer.apply(layer.input.clamp(max=0), layer.weight.clamp(max=0), None)
    return _shared(layer(layer.input.detach()), shares)


def _handed_down(input: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of single values, whose relevance becomes that of its input."""
    input = at_least_float32(input)
    return _shared(function(input.detach()), input)


def _shared(value: Tensor, shares: Tensor, stabiliser: float = STABILISER) -> Tensor:
    """The value, with the gradient of the shares' sum in multiples of it: relevance goes where the shares come from."""
    total = shares.detach()
    ratio = value / (total + torch.full_like(total, stabiliser).copysign(total))
    return value + (shares - total) * ratio


def _no_rule(name: str, depending: int = 1) -> str:
    what = f"'{name}'" + (" of two values that both depend on the image" if depending > 1 else "")
    return (
        f"LRP has no rule for {what}, through which this classifier's logits depend on the image (attention and "
        "LayerNorm have none); take another method, or a classifier of convolutions, dense layers, BatchNorm, pooling "
        "and activations."
    )
