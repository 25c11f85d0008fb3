"""The constants that a classifier adds on the way from the image to its logits, and their gradients.

B images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from explainer.attribution.graph import Dependence
from explainer.masking import at_least_float32

Keep = Callable[[Tensor], Tensor]
"""A constant times its gradient, [B,...] -> what is kept of it, [B,...]."""

SUMS = {
    *(torch.add, torch.sub, torch.rsub, Tensor.add, Tensor.add_, Tensor.sub, Tensor.sub_),
    Tensor.__rsub__,
}
"""What `+`, `-`, `+=` and `-=` call."""

CONVOLUTIONS: dict[Callable[..., Any], int] = {
    **{F.conv1d: 1, F.conv2d: 2, F.conv3d: 3},
    **{F.conv_transpose1d: 1, F.conv_transpose2d: 2, F.conv_transpose3d: 3},
}
"""And the axes after the channels'."""

TF32_ROUNDING = 2.0**-10
"""Of products of float32 numbers on GPUs that are allowed to shorten them."""


@dataclass(frozen=True)
class Term:
    """A constant, or the image, times its gradient.

    Args:
        kept: what is kept of it, [B,...].
        total: its sum, [B].
        magnitude: the sum of its magnitudes, [B].
    """

    kept: Tensor
    total: Tensor
    magnitude: Tensor

    @classmethod
    def of(cls, product: Tensor, keep: Keep) -> "Term":
        """Of the product [B,...] itself."""
        flat = product.flatten(1)
        return cls(keep(product), flat.sum(dim=1), torch.linalg.vector_norm(flat, ord=1, dim=1))

    def __getitem__(self, rows: Tensor) -> "Term":
        """For some of the images."""
        return Term(self.kept[rows], self.total[rows], self.magnitude[rows])


class AddedConstants(TorchFunctionMode):
    """While it is entered it watches what is added on the way to the logits; each backward pass then fills `terms`.

    It watches functions, not modules: no hook touches the classifier, and what a module does inside it does not matter.

    Args:
        image: the leaf that the classifier is given, [B,3,H,W].
        keep: what is kept of each constant times its gradient.

    Attributes:
        rounding: the coarsest relative precision of what depends on the image.
    """

    def __init__(self, image: Tensor, keep: Keep) -> None:
        super().__init__()
        self.rounding = 0.0
        self._depends = Dependence([image])
        self._keep = keep
        self._terms: list[Term] = []

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._depends.forget()  # or the graph would hold on to itself through the hooks

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take the step, and note what it adds."""
        options = kwargs or {}
        constant = added_constant(func, args, options, self._depends)  # before the step, which may overwrite its input
        output = func(*args, **options)
        if self._depends(output):
            self.rounding = max(self.rounding, rounding_of(output))
            if constant is not None:
                output.register_hook(lambda gradient: self._note(gradient, constant.detach()))
        return output

    def _note(self, gradient: Tensor, constant: Tensor) -> None:
        self._terms.append(Term.of(at_least_float32(gradient) * constant, self._keep))

    def terms(self) -> list[Term]:
        """What the last backward pass left, once."""
        found, self._terms = self._terms, []
        return found


def rounding_of(value: Tensor) -> float:
    """The relative precision of a value that was computed."""
    shortened = value.dtype == torch.float32 and value.is_cuda and _tf32_is_allowed()
    return max(torch.finfo(value.dtype).eps, TF32_ROUNDING * shortened)


def _tf32_is_allowed() -> bool:
    try:
        return torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:  # set by the newer of PyTorch's two ways, it is not told by the older
        return True


def added_constant(
    function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], depends: Dependence
) -> Tensor | None:
    """What a step adds that does not come from the image, in a shape that broadcasts to its output; or None."""
    if function in CONVOLUTIONS:
        bias = _argument(arguments, options, 2, "bias")
        return None if bias is None else bias.reshape(-1, *[1] * CONVOLUTIONS[function])
    if function is F.linear:
        return _argument(arguments, options, 2, "bias")
    if function is F.batch_norm:
        return _implicit_bias(*arguments, **options)
    if function in SUMS:
        summands = [*arguments[:2], *(options[name] for name in ("input", "other") if name in options)]
        if not all(depends(summand) for summand in summands):
            return _without(function, arguments, options, depends)
    return None


def _argument(arguments: tuple[Any, ...], options: dict[str, Any], place: int, name: str) -> Any:
    return arguments[place] if len(arguments) > place else options.get(name)


def _without(
    function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], depends: Dependence
) -> Any:
    """The step's result with zeros in the place of all that depends on the image."""

    def zeros(value: Any) -> Any:
        return torch.zeros_like(value) if depends(value) else value

    return function(*map(zeros, arguments), **{name: zeros(value) for name, value in options.items()})


def _implicit_bias(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Of `F.batch_norm`: its bias less the scaled running mean; statistics of the batch itself are no constants."""
    if training or running_mean is None or running_var is None:
        return None
    scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
    constant = (0 if bias is None else bias) - running_mean * scale
    return constant.reshape(-1, *[1] * (input.ndim - 2))
