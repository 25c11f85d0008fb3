"""What the methods share that differentiate logits: backward passes after one forward pass.

B images, C classes, n inputs of one pass, M maps, N copies of an image, H×W pixels.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from explainer.attribution.base import differentiating
from explainer.attribution.perturb import Classifier, weighted_sum
from explainer.capture import CannotExplain

Copies = Callable[[Tensor, Tensor], Tensor]
"""(images [n], which of its copies of each [n]) -> the classifier's inputs [n,3,H,W]."""

NO_GRADIENT = (
    "The logits have no gradient with respect to the image: some step of the classifier can't be differentiated, or "
    "detaches its result. Use a method that asks for outputs only, such as pami or rise."
)


def turn_of_each(row: Tensor) -> Tensor:
    """Number each map within its input: `row` [M], sorted, e.g. [0, 0, 2, 2, 2] -> [0, 1, 0, 1, 2]."""
    count = row.bincount()
    first = count.cumsum(0) - count
    return torch.arange(len(row), device=row.device) - first[row]


def target_gradients(
    logits: Tensor, wrt: Tensor, row: Tensor, target: Tensor, unrelated: str = NO_GRADIENT
) -> Iterator[tuple[Tensor, Tensor]]:
    """Differentiate all targets' logits, in as many backward passes as one input has targets at most.

    Args:
        logits: [n,C]; their graph is kept until the last pass.
        wrt: what they are differentiated by, [n,...].
        row: the input of each target, [M], at least one, sorted.
        target: [M].
        unrelated: the error's message if the logits do not depend on `wrt`.

    Yields:
        For each pass which m of the M targets it is about, and their gradients [m,...].

    Raises:
        CannotExplain: if the logits do not depend on `wrt`.
    """
    turn = turn_of_each(row)
    turns = [(turn == index).nonzero()[:, 0] for index in range(int(turn.max()) + 1)]
    for left, chosen in enumerate(turns, start=1 - len(turns)):
        # Summing over inputs is safe: no input's logit depends on another input.
        score = logits[row[chosen], target[chosen]].sum()
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score, wrt, retain_graph=left < 0, allow_unused=True)
        if gradient is None:
            raise CannotExplain(unrelated)
        yield chosen, gradient[row[chosen]]


def mean_gradients(
    classifier: Classifier,
    images: int,
    image_index: Tensor,
    target: Tensor,
    inputs: Copies,
    copies: int = 1,
    chunk: int | None = None,
) -> Tensor:
    """Gradients of the targets' logits by the copies of their images, averaged over the copies.

    All targets of an image share the copies' forward passes.

    Args:
        classifier: inputs -> logits.
        images: B, each with a target at least.
        image_index: the image of each target, [M], sorted.
        target: [M].
        inputs: makes copies of images.
        copies: N, of each image.
        chunk: inputs of one pass; all, if not given.

    Returns:
        [M,3,H,W], float32.

    Raises:
        CannotExplain: if the logits have no gradient.
    """
    total: Tensor | None = None
    with differentiating():
        for pair in torch.arange(images * copies, device=target.device).split(chunk or images * copies):
            which = pair // copies
            row, wanted = (which[:, None] == image_index).nonzero(as_tuple=True)
            leaf = inputs(which, pair % copies).detach().requires_grad_()
            total = torch.zeros(len(target), *leaf.shape[1:], device=leaf.device) if total is None else total
            for chosen, gradient in target_gradients(classifier(leaf), leaf, row, target[wanted]):
                # Only the maps of this pass are touched, or the work would grow with the square of their number.
                maps, place = wanted[chosen].unique(return_inverse=True)
                mine = torch.arange(len(maps), device=place.device)[:, None] == place
                total[maps] += weighted_sum(mine, gradient) / copies
    assert total is not None
    return total


def integrated_gradients(
    classifier: Classifier,
    image: Tensor,
    baseline: Tensor,
    image_index: Tensor,
    target: Tensor,
    steps: int,
    chunk: int | None = None,
) -> Tensor:
    """What each value of the images adds to the targets' logits on the way from the baseline images (Eq. 3).

    The integral is the mean over the middles of `steps` equal intervals, whose error falls with the square of their
    number; the paper takes their ends.

    Args:
        classifier: images -> logits.
        image: [B,3,H,W], normalised.
        baseline: likewise, or what broadcasts to it.
        image_index: the image of each target, [M], sorted.
        target: [M].
        steps: on the way.
        chunk: images of one pass; all, if not given.

    Returns:
        Signed [M,3,H,W], float32; a map's sum is the logit of the image minus that of the baseline image.

    Raises:
        CannotExplain: if the logits have no gradient.
    """
    start = baseline.detach().expand_as(image)
    way = image.detach() - start

    def on_the_way(which: Tensor, step: Tensor) -> Tensor:
        share = ((step + 0.5) / steps).to(image.dtype)[:, None, None, None]
        return start[which] + share * way[which]

    mean = mean_gradients(classifier, len(image), image_index, target, on_the_way, steps, chunk)
    return mean * way[image_index].float()
