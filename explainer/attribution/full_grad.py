"""FullGrad (Srinivas and Fleuret, NeurIPS 2019): the gradients of the image and of everything that is added to it.

B images, M maps, K channels of h×w cells, H×W pixels.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from explainer.attribution.backward import operations, target_gradients
from explainer.attribution.base import SharingMethod, differentiating
from explainer.attribution.cam import enlarge
from explainer.attribution.checks import one_of
from explainer.attribution.perturb import min_max
from explainer.capture import CannotExplain
from explainer.explanandum import Explanandum
from explainer.masking import at_least_float32

Rescale = Literal["layer", "channel"]
"""What is scaled to [0, 1] as one."""

Term = Callable[[Tensor], Tensor]
"""A constant times its gradient, [B,...] -> what is kept of it, [B,...]."""

SUMS = {
    *(torch.add, torch.sub, torch.rsub, Tensor.add, Tensor.add_, Tensor.sub, Tensor.sub_),
    Tensor.__rsub__,
}
"""What `+`, `-`, `+=` and `-=` call."""

CURVED = re.compile(
    r"(Gelu|Silu|Mish|Elu|Celu|Softplus|Tanh|Erf|Exp\d?|Log\d*|Pow|Sqrt|Rsqrt|Reciprocal|Sin|Cos|Clamp|Hardswish|Hardtanh"
    r"|.*Sigmoid|.*Softmax|.*DotProduct.*|.*Norm)Backward.*"
)
"""Steps that are not linear piece by piece, or add constants of their own; by the names that autograd gives them."""

PRODUCTS = re.compile(r"(Mul|Div|Mm|Bmm|Dot|Mv|Addmm|Baddbmm|Convolution)Backward.*")
"""Steps that are linear as long as one factor only comes from the image."""


def added_constant(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Tensor | None:
    """What a step adds that does not come from the image, in a shape that broadcasts to its output; or None."""
    if function is F.conv2d:
        bias = _argument(arguments, options, 2, "bias")
        return None if bias is None else bias[:, None, None]
    if function is F.linear:
        return _argument(arguments, options, 2, "bias")
    if function is F.batch_norm:
        return _implicit_bias(*arguments, **options)
    if function in SUMS and not all(_from_image(summand) for summand in arguments[:2]):
        zeros = [torch.zeros_like(each) if _from_image(each) else each for each in arguments]
        return function(*zeros, **options)
    return None


def _argument(arguments: tuple[Any, ...], options: dict[str, Any], place: int, name: str) -> Any:
    return arguments[place] if len(arguments) > place else options.get(name)


def _from_image(value: Any) -> bool:
    """Of a frozen classifier nothing else wants a gradient."""
    return isinstance(value, Tensor) and value.requires_grad


def _implicit_bias(
    value: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Of `F.batch_norm`: its bias less the scaled running mean; statistics of the batch itself are no constants."""
    if training or mean is None or variance is None:
        return None
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    constant = (0 if bias is None else bias) - mean * scale
    return constant.reshape(-1, *[1] * (value.ndim - 2))


class AddedConstants(TorchFunctionMode):
    """While it is entered it watches what is added on the way to the logits; each backward pass then fills `terms`.

    It watches functions, not modules: no hook touches the classifier, and what a module does inside it does not matter.

    Args:
        keep: what is kept of each constant times its gradient.
    """

    def __init__(self, keep: Term) -> None:
        super().__init__()
        self._keep = keep
        self._terms: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take the step, and note what it adds."""
        options = kwargs or {}
        constant = added_constant(func, args, options)  # before the step, which may overwrite what it is told
        output = func(*args, **options)
        if constant is not None and _from_image(output):
            output.register_hook(lambda gradient: self._note(gradient, constant.detach()))
        return output

    def _note(self, gradient: Tensor, constant: Tensor) -> None:
        self._terms.append(self._keep(at_least_float32(gradient) * constant))

    def terms(self) -> list[Tensor]:
        """What the last backward pass left, once."""
        found, self._terms = self._terms, []
        return found


def breaks_completeness(step: Node) -> bool:
    """Whether the logits may be more than the sum of all terms because of this step."""
    from_image = [before is not None for before, _ in step.next_functions]
    name = step.name()
    if "BatchNorm" in name:
        return bool(getattr(step, "_saved_training", False))
    if PRODUCTS.fullmatch(name):
        return sum(from_image) > 1 or (name.startswith("Div") and any(from_image[1:]))
    return CURVED.fullmatch(name) is not None


class FullGrad(SharingMethod):
    """The image times its gradient and each layer's constants times theirs: magnitudes, scaled, enlarged and summed up.

    Constants are the biases of convolutions, the implicit ones of BatchNorm, and whatever else is added; those without
    a place in the image, as in linear layers, are not in the map. Maps are >= 0. A layer is enlarged until its outline
    is the image's, as everywhere here; in the authors' code the middles of its outermost cells lie on the border.

    Args:
        explanandum: the classifier. It must be linear piece by piece, as networks of ReLUs are: what sigmoids, GELUs or
            attention give is no sum of such terms (CannotExplain).
        rescale: what is scaled to [0, 1] before the sum: the channels of a layer together, as in the authors' code,
            which PAMI (App. B) used, or each channel by itself, as the paper's formula can be read.
    """

    paper = "Srinivas and Fleuret, NeurIPS 2019"
    needs = "gradients of all layers"
    passes = "1 forward, for all classes; 1 backward"

    def __init__(self, explanandum: Explanandum, rescale: Rescale = "layer") -> None:
        super().__init__(explanandum)
        one_of("rescale", rescale, get_args(Rescale))
        self.rescale = rescale

    def terms(self, image: Tensor, target: Tensor) -> list[Tensor]:
        """The full gradient: all that the targets' logits are the sum of.

        Args:
            image: [B,3,H,W], normalised.
            target: [B].

        Returns:
            The image times its gradient, [B,3,H,W], and each constant times its gradient in the layer's shape, [B,...].

        Raises:
            CannotExplain: if the classifier is not linear piece by piece, or the logits have no gradient.
        """
        everyone = torch.arange(len(image), device=image.device)
        with differentiating():
            ((_, terms),) = self._decomposed(image, everyone, target, keep=lambda term: term)
        return terms

    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        size = image.shape[-2:]
        maps = torch.zeros(len(target), *size, device=image.device)
        with differentiating():
            for chosen, terms in self._decomposed(image, image_index, target, keep=self._shown):
                for layer in terms:
                    if layer.ndim == 3:
                        maps[chosen] += enlarge(layer[:, None], size)[:, 0]
        return maps

    def _shown(self, term: Tensor) -> Tensor:
        """A layer's share of the map before it is enlarged, [B,K,h,w] -> [B,h,w]; what has no place is [B]."""
        if term.ndim != 4:
            return term.flatten(1).sum(dim=1)
        magnitude = term.abs()
        if self.rescale == "channel":
            return min_max(magnitude.flatten(0, 1)).view_as(magnitude).sum(dim=1)
        return min_max(magnitude.flatten(2)).view_as(magnitude).sum(dim=1)

    def _decomposed(
        self, image: Tensor, image_index: Tensor, target: Tensor, keep: Term
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """For each backward pass which m of the targets it is about, and all their terms [m,...]."""
        leaf = image.detach().clone().requires_grad_()
        with AddedConstants(keep) as constants:
            logits = self.explanandum(leaf)
        broken = sorted({step.name() for step in operations(logits) if breaks_completeness(step)})
        if broken:
            raise CannotExplain(
                "FullGrad takes a classifier apart into linear pieces, which this one does not have, because of "
                f"{', '.join(broken)}; use gradient or integrated_gradients."
            )
        for chosen, gradient in target_gradients(logits, leaf, image_index, target):
            rows = image_index[chosen]
            own = keep(at_least_float32(gradient) * leaf.detach()[rows])
            yield chosen, [own, *(term[rows] for term in constants.terms())]
