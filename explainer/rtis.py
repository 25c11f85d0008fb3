"""The loss of Real-Time Image Saliency (RTIS; Dabkowski and Gal, NeurIPS 2017) as an objective of the Explainer.

RTIS trains a network of its own that makes the mask of one chosen class. NN-Explainer (Sec. 4.1) compares with its loss
on the Explainer instead, where the target mask takes the place of the one class's. That is what is here.

B images, C classes, H×W = Z pixels; masks lie in [0, 1]: 1 keeps a pixel, 0 puts the alternative image in its place.
"""

import zlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import Batch
from explainer.attribution.checks import number
from explainer.attribution.perturb import gaussian_blur, like, masked_images
from explainer.explanandum import Explanandum, OutputKind
from explainer.losses import mask_area, total_variation
from explainer.masking import MaskLogits, at_least_float32, target_mask
from explainer.objective import Judgement, Objective

BLUR_SIGMA = 10
"""Of the blurred alternative image, in pixels, as in NN-Explainer's code (RTIS's own has 11); four sigmas each way."""

COLOUR_RANGE = 0.33
"""A random colour lies so far from the mean colour at most, in units of the normalised image, as in RTIS's code."""

NOISE = 0.11
"""Standard deviation of the noise on it, likewise; in NN-Explainer's code .11 became the mean, and the deviation 1."""


@dataclass
class RtisOptions:
    """The loss of Real-Time Image Saliency; the defaults are its paper's, but for the area's weight.

    Args:
        tv: Weight of the squared differences of neighbouring pixels of the target mask.
        area: Weight of the mean of the target mask; NN-Explainer's authors raised the paper's .001 to 1.
        destroyer: Weight of what the classifier still sees of the classes once the target mask is cut out.
        power: Of that probability; below 1 it also counts when it is small.
    """

    tv: float = 10.0
    area: float = 1.0
    destroyer: float = 5.0
    power: float = 0.3

    def __post_init__(self) -> None:
        """Refuse weights that reward what they should cost."""
        for name in ("tv", "area", "destroyer"):
            number(f"--rtis.{name}", getattr(self, name), or_least=True)
        number("--rtis.power", self.power)


class Rtis(Objective):
    """RTIS's loss L(M) = λ₁ TV(M) + λ₂ AV(M) - log f(Φ(X,M)) + λ₃ f(Φ(X,1-M))^λ₄ of the target mask M.

    Φ(X,M) is the image X where M is 1 and an alternative image where M is 0, the same one in both places. f is the
    probability of a class; of an image's classes the mean of both last terms is taken, then the mean over images (0 for
    one without a class), as in NN-Explainer's Eq. 6. NN-Explainer's code takes the mean over all classes of a batch,
    and the power λ₄ of that mean, so that there an image's loss depends on the other images.

    Masks of absent classes cost nothing, so that nothing makes them empty (NN-Explainer, Table 1).

    Args:
        options: the weights and the power.
    """

    def __init__(self, options: RtisOptions | None = None) -> None:
        chosen = options or RtisOptions()
        self.power = chosen.power
        self.weights = {"preserver": 1.0, "destroyer": chosen.destroyer, "area": chosen.area, "tv": chosen.tv}

    def judge(self, explanandum: Explanandum, batch: Batch, mask_logits: MaskLogits, *, fresh: bool) -> Judgement:
        """See the base class; the alternative images are random."""
        target = target_mask(mask_logits, batch.labels)
        alternative = alternative_images(batch.image, _seeds(batch, fresh=fresh))
        both = masked_images(batch.image, torch.stack([target, 1 - target], dim=1), alternative)
        preserved, destroyed = explanandum(both).unflatten(0, (-1, 2)).unbind(dim=1)
        output = explanandum.card.output
        terms = {
            "preserver": preserver_loss(preserved, batch.labels, output),
            "destroyer": destroyer_loss(destroyed, batch.labels, self.power, output),
            "area": mask_area(target).mean(),
            # RTIS sums over pixels; the mean is NN-Explainer's code's, which counts those at two borders twice.
            "tv": total_variation(target, torch.square).mean(),
        }
        return Judgement(terms, preserved, target)


def preserver_loss(logits: Tensor, labels: Tensor, output: OutputKind = "multi_label") -> Tensor:
    """-log of the probability of an image's classes; logits [B,C], labels multi-hot [B,C] -> scalar."""
    return _mean_over_classes(-log_probabilities(logits, output), labels)


def destroyer_loss(logits: Tensor, labels: Tensor, power: float = 0.3, output: OutputKind = "multi_label") -> Tensor:
    """The probability of an image's classes, to a power below 1; logits [B,C], labels multi-hot [B,C] -> scalar.

    p^λ has an infinite slope at p = 0. Written as exp(λ log p), it has the slope λ p^λ (1-p) by the logit, which is
    finite everywhere.
    """
    return _mean_over_classes((power * log_probabilities(logits, output)).exp(), labels)


def log_probabilities(logits: Tensor, output: OutputKind) -> Tensor:
    """Log of the class probabilities [B,C], in at least float32: exact also where a probability rounds to 0 or 1."""
    logits = at_least_float32(logits)
    return F.logsigmoid(logits) if output == "multi_label" else F.log_softmax(logits, dim=1)


def _mean_over_classes(values: Tensor, labels: Tensor) -> Tensor:
    present = labels.to(values.dtype)
    return ((values * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()


@torch.no_grad()
def alternative_images(image: Tensor, seeds: list[int]) -> Tensor:
    """What takes the place of deleted pixels: for each image it blurred, or one colour with noise, at even odds.

    RTIS's own code draws alike; NN-Explainer's makes the choice once a batch. Of several kinds of alternative, none can
    be learned by heart.

    Args:
        image: [B,3,H,W], normalised.
        seeds: of the random numbers of each image; with them it is the same whatever the batch (on another kind of
            device it is another one).
    """
    blurred = gaussian_blur(image, 2 * 4 * BLUR_SIGMA + 1, BLUR_SIGMA)
    return like(image, torch.stack([_drawn(*each) for each in zip(blurred, seeds, strict=True)]))


def _drawn(blurred: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(blurred.device).manual_seed(seed)
    kind, *colour = torch.rand(4, generator=generator, device=blurred.device)
    noise = NOISE * torch.randn(blurred.shape, generator=generator, device=blurred.device)
    shade = COLOUR_RANGE * (2 * torch.stack(colour) - 1)
    # No `if`: it would wait for the device.
    return torch.where(kind < 0.5, blurred, (shade[:, None, None] + noise).to(blurred.dtype))


def _seeds(batch: Batch, *, fresh: bool) -> list[int]:
    if fresh:
        return torch.randint(2**63 - 1, (len(batch.image),)).tolist()
    return [zlib.crc32(name.encode()) for name in batch.image_id]
