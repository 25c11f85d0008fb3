"""Any score of images in the place of a classifier, for the methods that ask for nothing but outputs.

B images, T scores of an image, H×W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from explainer.capture import CannotExplain
from explainer.explanandum import ClassifierCard, Explanandum

ImageScore = Callable[[Tensor], Any]
"""Images [B,3,H,W], normalised -> scores [B] or [B,T]: a tensor, an array or a list."""

Statistics = tuple[float, float, float]


class _Function(nn.Module):
    """The score as a module that owns nothing: freezing it leaves the networks behind the score as they are."""

    def __init__(self, score: ImageScore, count: int) -> None:
        super().__init__()
        self._score = (score,)  # in a tuple, or a network would become a part of this one
        self._count = count

    def forward(self, image: Tensor) -> Tensor:
        given = self._score[0](image)
        scores = given if isinstance(given, Tensor) else torch.as_tensor(given, device=image.device)
        scores = scores[:, None] if scores.ndim == 1 else scores
        if scores.shape != (len(image), self._count):
            raise ValueError(
                f"The score function gave numbers of shape {list(scores.shape)} for {len(image)} images; it must give "
                f"[{len(image)},{self._count}], one for each of the names."
            )
        return scores


class ScoreExplanandum(Explanandum):
    """A score function that attribution methods can be asked about: its T numbers take the place of probabilities.

    `METHODS["pami"](ScoreExplanandum(score, ["dog"]))(image, torch.tensor([0]))` is the map of the first score; with
    `present_class_maps` all of them come from the same passes. A network behind the score must be in eval mode; it need
    not be frozen.

    Args:
        score: any function; that of a method which takes gradients has to be differentiable and to give a tensor.
        names: of the T scores.
        mean: of the images' red, green and blue, in [0, 1], with which they were normalised.
        std: likewise.
        image_size: H and W of the images that it was made for; any others can be asked about.

    Raises:
        ValueError: if the names are no list of words.
    """

    def __init__(
        self,
        score: ImageScore,
        names: Sequence[str],
        mean: Statistics = (0.0, 0.0, 0.0),
        std: Statistics = (1.0, 1.0, 1.0),
        image_size: int = 224,
    ) -> None:
        if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"The names are {names!r}; give a list of words, one for each score, such as ['dog'].")
        card = ClassifierCard("score function", tuple(names), image_size, mean, std)
        super().__init__(_Function(score, len(card.classes)), card)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The scores [B,T] as they are, float32."""
        return logits.float()

    @property
    def target_layer(self) -> str:
        """None: a function shows no layers.

        Raises:
            CannotExplain: always.
        """
        raise CannotExplain("A score function shows no layers; take a method that needs outputs only: pami, rise …")

    @property
    def fingerprint(self) -> str:
        """None: what a function does can't be told from its weights, so no map of it may be kept in a cache.

        Raises:
            TypeError: always.
        """
        raise TypeError("A score function has no fingerprint; explain a classifier (Explanandum) where maps are kept.")
