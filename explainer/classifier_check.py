"""Whether a classifier that we did not build is one that can be explained; what is wrong is said at once.

B images, C classes, S×S pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from explainer.capture import named_layer

IMAGES = 2
"""Of the batch that is tried: more than one, to see whether images are told apart."""
CLOSE = 1e-3
"""How far the logits of an image may depend on its batch, relative to the largest: rounding."""
SAME = 1e-2
"""How far the logits of a classifier may lie from those noted down, relative to the largest: another machine."""
CONTRACT = "It must take normalised images [B,3,H,W] and return logits [B,C]."


def check_classifier(model: nn.Module, classes: int, image_size: int, target_layer: str = "") -> None:
    """Run a batch forward and backward through a classifier that is to be explained.

    Args:
        model: left in eval mode, otherwise as it was.
        classes: C, as many as the data set or the list of names has.
        image_size: S.
        target_layer: that CAM methods shall read; empty finds it when it is needed.

    Raises:
        ValueError: if the classifier fails on the batch, gives anything but finite logits of C classes, mixes up the
            images of a batch, is random, gives probabilities, or lets no gradient reach the image; if there is no such
            layer.
    """
    model.eval()
    image = _noise(image_size).requires_grad_()
    with torch.enable_grad():
        logits = _logits(model, image)
        _check_shape(logits, classes)
        _check_values(model, logits.detach())
        _check_gradient(logits, image)
    _check_each_alone(model, image.detach(), logits.detach())
    if target_layer:
        named_layer(model, target_layer)


def probe(model: nn.Module, image_size: int) -> list[float]:
    """What a classifier in eval mode answers to an image that is always the same: what it computes, in short."""
    device = next(model.parameters()).device
    with torch.no_grad():
        return model(_noise(image_size)[:1].to(device))[0].float().tolist()


def check_probe(model: nn.Module, image_size: int, noted: list[float], name: str) -> None:
    """Whether a classifier still computes what it did when `probe` was noted down.

    Raises:
        ValueError: if it does not.
    """
    expected, found = torch.tensor(noted), torch.tensor(probe(model.eval(), image_size))
    if expected.shape != found.shape or not _alike(found, expected, SAME):
        raise ValueError(
            f"{name} makes another classifier from these weights than it did when they were saved: its code has "
            "changed. Name the code as it was, or begin anew with the changed one."
        )


def _noise(image_size: int) -> Tensor:
    """Images of noise [B,3,S,S], always the same."""
    return torch.randn(IMAGES, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    try:
        output: Any = model(image.clone())  # as an explanandum does, which may change its input in place
    except Exception as error:
        raise ValueError(
            f"The classifier fails on a batch of images {list(image.shape)}: {type(error).__name__}: {error} "
            f"{CONTRACT} Is --image_size the one that it was trained with?"
        ) from error
    if not isinstance(output, Tensor):
        raise ValueError(
            f"The classifier returns a {type(output).__name__}, not a tensor. {CONTRACT} Return the logits alone, e.g. "
            "from a small module around it."
        )
    return output


def _check_shape(logits: Tensor, classes: int) -> None:
    if logits.ndim != 2 or len(logits) != IMAGES or not logits.is_floating_point():
        raise ValueError(f"The classifier returns {logits.dtype} {list(logits.shape)} for {IMAGES} images. {CONTRACT}")
    if logits.shape[1] != classes:
        raise ValueError(
            f"The classifier has {logits.shape[1]} outputs, but there are {classes} classes. Give a classifier of "
            "these classes, or its own names, in the order of its outputs, with --class_names."
        )


def _check_values(model: nn.Module, logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise ValueError(
            f"{int((~logits.isfinite()).sum())} of {logits.numel()} logits of the classifier are NaN or infinite on "
            "noise. Are its weights loaded, and are --mean and --std those that it was trained with?"
        )
    last = [module for module in model.modules() if not list(module.children())][-1]
    sums_to_one = logits.shape[1] > 1 and bool(((logits.sum(dim=1) - 1).abs() < 1e-4).all())
    if bool(((logits >= 0) & (logits <= 1)).all()) and (sums_to_one or isinstance(last, nn.Sigmoid)):
        raise ValueError(
            f"The classifier returns probabilities: all are in [0, 1]. {CONTRACT} Leave the softmax or sigmoid at its "
            "end out; --output_kind says which of them is meant."
        )


def _check_gradient(logits: Tensor, image: Tensor) -> None:
    gradient = None
    if logits.requires_grad:
        # Not their plain sum, which is constant where a logit is the negative of another.
        unequal = torch.linspace(1, 2, logits.shape[1])
        (gradient,) = torch.autograd.grad((logits * unequal).sum(), image, allow_unused=True)
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        state = "no gradient" if gradient is None else "a zero gradient" if not gradient.any() else "a gradient of NaN"
        raise ValueError(
            f"From the classifier's logits {state} reaches the image, without which nothing can be learned from it. "
            "Is there a torch.no_grad(), a .detach() or a rounding in its forward pass?"
        )


def _check_each_alone(model: nn.Module, image: Tensor, logits: Tensor) -> None:
    with torch.no_grad():
        alone = torch.cat([_logits(model, one[None]) for one in image])
    if not _alike(alone, logits, CLOSE):
        raise ValueError(
            "The classifier's answer to an image changes with the batch that it comes in, or from time to time, also "
            "in eval mode. Is there a dropout or a batch statistic that model.eval() does not switch off?"
        )


def _alike(values: Tensor, others: Tensor, tolerance: float) -> bool:
    return bool((values - others).abs().max() <= tolerance * others.abs().max().clamp(min=1e-6))
