"""FullGrad (Srinivas and Fleuret, NeurIPS 2019): the gradients of the image and of everything that is added to it.

B images, M maps, K channels of h×w cells, H×W pixels.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd.graph import Node

from explainer.attribution.backward import target_gradients
from explainer.attribution.base import SharingMethod, differentiating
from explainer.attribution.cam import enlarge
from explainer.attribution.checks import one_of
from explainer.attribution.constants import AddedConstants, Keep, Term
from explainer.attribution.graph import Dependence, operations
from explainer.attribution.perturb import min_max
from explainer.capture import CannotExplain
from explainer.explanandum import Explanandum
from explainer.masking import at_least_float32

Rescale = Literal["layer", "channel"]
"""What is scaled to [0, 1] as one."""

CURVED = re.compile(
    r"(Gelu|Silu|Mish|Elu|Celu|Glu|Softplus|A?tanh?|A?sinh?|A?cosh?|Erf\w*|Exp(\d|m1)?|Log\w*|Pow|Sqrt|Rsqrt|Reciprocal"
    r"|Hypot|Prod|(Var|Std)(Mean)?|Hardswish|Hardtanh|Softshrink|.*Sigmoid|.*Softmax|.*DotProduct.*|.*Norm)Backward.*",
    re.IGNORECASE,
)
"""Steps that are not linear piece by piece, or add constants of their own; by the names that autograd gives them."""

PRODUCTS = re.compile(r"(Mul|Div|Mm|Bmm|Dot|Mv|Addmm|Baddbmm|Convolution)Backward.*")
"""Steps that are linear as long as one factor only comes from the image."""

MISSING_SHARE = 1e-3
"""Of the terms' sums, by which they may miss the logit."""
ROUNDINGS = 16
"""Likewise, in multiples of the relative precision; in bf16 real classifiers miss it by 2 to 6."""


def broken_steps(logits: Tensor, image: Tensor) -> list[str]:
    """Names of the steps because of which the logits may be more than the sum of all terms."""
    depends = Dependence([image])
    steps = (step for step in operations(logits) if depends.reaches(step))
    return sorted({step.name() for step in steps if _breaks_completeness(step, depends)})


def _breaks_completeness(step: Node, depends: Dependence) -> bool:
    from_image = [before is not None and depends.reaches(before) for before, _ in step.next_functions]
    name = step.name()
    if "BatchNorm" in name:
        return bool(getattr(step, "_saved_training", False))
    if name.startswith("Clamp"):
        return not _is_relu(step)
    if PRODUCTS.fullmatch(name):
        return sum(from_image) > 1 or (name.startswith("Div") and any(from_image[1:]))
    return CURVED.fullmatch(name) is not None


def _is_relu(clamp: Node) -> bool:
    low, high = (getattr(clamp, f"_saved_{bound}", None) for bound in ("min", "max"))
    return low is not None and high is None and not torch.as_tensor(low).any()


def check_sum(terms: Sequence[Term], logit: Tensor, rounding: float) -> None:
    """All terms [B] together must be the logit [B], but for what rounding explains.

    Raises:
        CannotExplain: if they are not.
    """
    total = torch.stack([term.total for term in terms]).double()
    magnitude = torch.stack([term.magnitude for term in terms]).double().sum(dim=0)
    allowed = max(MISSING_SHARE, ROUNDINGS * rounding) * total.abs().sum(dim=0) + rounding * magnitude
    missing = (logit.double() - total.sum(dim=0)).abs() > allowed
    if missing.any():
        image = int(missing.nonzero()[0])
        raise CannotExplain(
            f"FullGrad's terms sum up to {total.sum(dim=0)[image]:.5g} where the logit is {logit[image]:.5g}, so some "
            "step of the classifier is not linear piece by piece, or adds a constant that is not among them; use "
            "gradient or integrated_gradients."
        )


class FullGrad(SharingMethod):
    """The image times its gradient and each layer's constants times theirs: magnitudes, scaled, enlarged and summed up.

    Constants are the biases of convolutions, the implicit ones of BatchNorm, and whatever else is added; those without
    a place in the image, as in linear layers, are not in the map. Maps are >= 0. A layer is enlarged until its outline
    is the image's, as everywhere here; in the authors' code the middles of its outermost cells lie on the border.

    Args:
        explanandum: the classifier. It must be linear piece by piece, as networks of ReLUs are: what sigmoids, GELUs or
            attention give is no sum of such terms (CannotExplain). Whether they do sum up to the logit is checked for
            every map.
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
            CannotExplain: if the classifier is not linear piece by piece, if the terms don't sum up to the logit, or if
                that has no gradient.
        """
        everyone = torch.arange(len(image), device=image.device)
        with differentiating():
            ((_, terms),) = self._decomposed(image, everyone, target, keep=lambda term: term)
        return [term.kept for term in terms]

    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        size = image.shape[-2:]
        maps = torch.zeros(len(target), *size, device=image.device)
        with differentiating():
            for chosen, terms in self._decomposed(image, image_index, target, keep=self._shown):
                for layer in (term.kept for term in terms):
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
        self, image: Tensor, image_index: Tensor, target: Tensor, keep: Keep
    ) -> Iterator[tuple[Tensor, list[Term]]]:
        """For each backward pass which m of the targets it is about, and all their terms [m,...]."""
        leaf = image.detach().clone().requires_grad_()
        with AddedConstants(leaf, keep) as constants:
            logits = self.explanandum(leaf)
        if broken := broken_steps(logits, leaf):
            raise CannotExplain(
                "FullGrad takes a classifier apart into linear pieces, which this one does not have, because of "
                f"{', '.join(broken)}; use gradient or integrated_gradients."
            )
        for chosen, gradient in target_gradients(logits, leaf, image_index, target):
            rows = image_index[chosen]
            own = Term.of(at_least_float32(gradient) * leaf.detach()[rows], keep)
            terms = [own, *(term[rows] for term in constants.terms())]
            check_sum(terms, logits.detach()[rows, target[chosen]], constants.rounding)
            yield chosen, terms
