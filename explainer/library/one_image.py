"""From a PIL image of any size to masks of that size, ready to be looked at.

C classes, N that are asked for, h×w cells of the network's output, H×W pixels of the image itself.
"""

from collections.abc import Sequence

import torch
from PIL import Image

from explainer.attribution import AttributionMethod
from explainer.attribution.base import evaluating
from explainer.explaining import TOP, class_indices, explain_photograph, prepare, upright_rgb
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.library.explanation import Explanation
from explainer.masking import CoarseLogits, probability
from explainer.network import Explainer


def explain_image(
    image: Image.Image, method: AttributionMethod, classes: Sequence[str | int] | None = None, *, top: int = TOP
) -> Explanation:
    """Where a classifier looks, by any attribution method, at the image's own size.

    Args:
        image: of any mode and size; turned as its EXIF orientation says.
        method: as in `METHODS["grad_cam"](explanandum)`; it knows its classifier.
        classes: names or indices; None takes the `top` most probable ones and all that the classifier recognises.
        top: how many, at least.

    Raises:
        ValueError: for an unknown class.
        CannotExplain: if the method fails on one of the classes.
    """
    found = explain_photograph(image, method, classes or (), top)
    chosen = found.classes
    if classes:  # in the order of the question
        scored = {one.index: one for one in found.classes}
        chosen = tuple(scored[index] for index in class_indices(classes, method.explanandum.card.classes))
    return Explanation(
        found.photograph,
        [one.name for one in chosen],
        torch.stack([found.mask(one.index) for one in chosen]).numpy(),
        torch.tensor([one.probability for one in chosen]).numpy(),
    )


@torch.no_grad()
def explain_at_once(
    image: Image.Image,
    network: Explainer,
    card: ClassifierCard,
    explanandum: Explanandum | None,
    classes: Sequence[str | int] | None,
    top: int,
) -> Explanation:
    """The Explainer's masks, enlarged from the network's cells straight to the image, with or without its classifier.

    Args:
        image: of any mode and size; turned as its EXIF orientation says.
        network: image -> class mask logits.
        card: how the network wants its images, and what its classes are.
        explanandum: gives the scores; without it classes are told apart by the areas of their masks.
        classes: names or indices; None takes the `top` strongest.
        top: how many, at most.

    Raises:
        ValueError: for an unknown class.
    """
    shown = upright_rgb(image)
    indices = None if classes is None else class_indices(classes, card.classes)
    parameter = next(network.parameters())
    pixels = prepare(shown, card)[None].to(parameter)
    with evaluating(network):
        cells = network(pixels, enlarged=False)
    scores = None if explanandum is None else explanandum.probabilities(explanandum(pixels))[0]
    if indices is None:
        strength = CoarseLogits(cells, (card.image_size, card.image_size)).areas()[0] if scores is None else scores
        indices = strength.topk(min(top, len(card.classes))).indices.tolist()
    target = torch.tensor(indices, dtype=torch.long, device=cells.device)
    logits = CoarseLogits(cells, (shown.height, shown.width))[torch.zeros_like(target), target]
    return Explanation(
        shown,
        [card.classes[index] for index in indices],
        probability(logits).cpu().numpy(),
        None if scores is None else scores[target].cpu().numpy(),
    )
