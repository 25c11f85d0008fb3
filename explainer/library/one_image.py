"""From a PIL image of any size to masks of that size.

C classes, N that are asked for, h×w cells of the network's output, H×W pixels of the image itself.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from explainer.attribution.base import evaluating
from explainer.explaining import prepare, upright_rgb
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.library.explanation import Explanation
from explainer.masking import CoarseLogits, probability
from explainer.network import Explainer


def upright(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB, turned as its EXIF orientation says, just as files of data sets are read."""
    return upright_rgb(image)


def prepared(image: Image.Image, card: ClassifierCard) -> Tensor:
    """An RGB image squashed and normalised as the data sets do it, [1,3,image_size,image_size]."""
    return prepare(image, card)[None]


def class_index(card: ClassifierCard, asked: str | int) -> int:
    """Index of a class that is given by name or by index.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(asked, str) and asked in card.classes:
        return card.classes.index(asked)
    if isinstance(asked, int) and 0 <= asked < len(card.classes):
        return asked
    raise ValueError(f"Unknown class {asked!r}; give a name or an index of: {_listed(card.classes)}.")


def _listed(classes: Sequence[str], most: int = 20) -> str:
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")


@torch.no_grad()
def explain_image(
    image: Image.Image,
    network: Explainer,
    card: ClassifierCard,
    explanandum: Explanandum | None,
    classes: Sequence[str | int] | None,
    top: int,
) -> Explanation:
    """Masks at the image's own size; of all others only the network's cells are computed.

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
    shown = upright(image)
    indices = None if classes is None else [class_index(card, asked) for asked in classes]
    parameter = next(network.parameters())
    pixels = prepared(shown, card).to(parameter)
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
