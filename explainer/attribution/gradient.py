"""The gradient family: how the target's logit changes with the image's pixels.

B images, M maps, N copies of an image, H×W pixels.
"""

from abc import abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from explainer.attribution.backward import integrated_gradients, mean_gradients
from explainer.attribution.base import SharingMethod
from explainer.attribution.checks import number, one_of, whole
from explainer.attribution.graph import operations
from explainer.attribution.perturb import (
    ChunkSize,
    checked_chunk_size,
    gradient_chunk,
    noise_draws,
    plain_images,
)
from explainer.capture import CannotExplain
from explainer.explanandum import Explanandum


class _PixelGradient(SharingMethod):
    """A method that gives each of a pixel's three colours a value; the largest magnitude is the pixel's.

    That is the rule of Simonyan et al. (Sec. 3.1), which PAMI (App. B) follows for all gradient methods.
    """

    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        return self.attributions(image, image_index, target).abs().amax(dim=1)

    @abstractmethod
    def attributions(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """What the map is made of: signed, of every colour.

        Args:
            image: [B,3,H,W], normalised.
            image_index: the image of each target, [M], sorted.
            target: [M], at least one.

        Returns:
            [M,3,H,W], float32.

        Raises:
            CannotExplain: if the logits have no gradient.
        """


class Gradient(_PixelGradient):
    """The gradient of the target's logit by the image: at each pixel the largest magnitude of its colours.

    Args:
        explanandum: the classifier.
    """

    paper = "Simonyan, Vedaldi and Zisserman, ICLR Workshops 2014"
    needs = "gradients"
    passes = "1 forward, for all classes; 1 backward"

    def attributions(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """The gradients; see the base class."""
        return mean_gradients(self._logits, len(image), image_index, target, lambda which, _: image[which])

    def _logits(self, image: Tensor) -> Tensor:
        return self.explanandum(image)


class GuidedBackprop(Gradient):
    """The gradient of the target's logit, of which every ReLU lets positive values through only.

    Every ReLU between image and logits is guided, be it a module, a function or in-place. It is found among the steps
    that autograd has recorded: nothing of the classifier is changed, not even for a while.

    Args:
        explanandum: the classifier; without any ReLU, as most vision transformers and ConvNeXts are, it has no such map
            (CannotExplain).
    """

    paper = "Springenberg et al., ICLR Workshops 2015"

    def _logits(self, image: Tensor) -> Tensor:
        logits = self.explanandum(image)
        relus = [step for step in operations(logits) if step.name().startswith("ReluBackward")]
        if not relus and logits.requires_grad:
            raise CannotExplain(
                "The classifier has no ReLU to guide, so guided backpropagation is not defined for it; use gradient, "
                "smooth_grad or integrated_gradients."
            )
        for relu in relus:
            # Whether before or behind the ReLU's own backward makes no difference: that only sets values to zero.
            relu.register_prehook(lambda gradients: tuple(gradient.relu() for gradient in gradients))
        return logits


class SmoothGrad(_PixelGradient):
    """The mean gradient of noisy copies of the image: at each pixel the largest magnitude of its colours.

    Args:
        explanandum: the classifier.
        samples: noisy copies; more than 50 hardly help (Sec. 3.2).
        noise: its standard deviation, in multiples of the difference between the image's largest and smallest value;
            .1 to .2 in Sec. 3.2.
        seed: of the noise, of which all images get the same draws.
        chunk_size: noisy copies of one forward and backward pass; auto fits the device.
    """

    paper = "Smilkov et al., 2017"
    needs = "gradients"
    passes = "samples forward (50), for all classes; as many backward"

    def __init__(
        self,
        explanandum: Explanandum,
        samples: int = 50,
        noise: float = 0.15,
        seed: int = 0,
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum)
        whole("samples", samples)
        number("noise", noise)
        whole("seed", seed, least=0)
        self.samples = samples
        self.noise = noise
        self.seed = seed
        self.chunk_size = checked_chunk_size(chunk_size)

    def attributions(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """The mean gradients; see the base class."""
        (noise,) = noise_draws(image, 1, self.samples, self.noise, self.seed)
        values = image.flatten(1)
        span = (values.amax(dim=1) - values.amin(dim=1))[:, None, None, None]

        def noisy(which: Tensor, draw: Tensor) -> Tensor:
            return image[which] + (span[which] * noise[draw]).to(image.dtype)

        chunk = gradient_chunk(self.chunk_size, image)
        return mean_gradients(self.explanandum, len(image), image_index, target, noisy, self.samples, chunk)


BaselineColour = Literal["black", "mean"]
"""Of the image without any content: black, or the data set's mean colour."""


class IntegratedGradients(_PixelGradient):
    """What each colour of a pixel adds to the target's logit on the way from a plain image: the largest magnitude.

    Args:
        explanandum: the classifier.
        steps: on the way, each taken in its middle, where the paper takes its end; 20 to 300 there (Sec. 5).
        baseline: where it begins: a black image (Sec. 3), or the data set's mean colour.
        chunk_size: images of one forward and backward pass; auto fits the device.
    """

    paper = "Sundararajan, Taly and Yan, ICML 2017"
    needs = "gradients"
    passes = "steps forward (50), for all classes; as many backward"

    def __init__(
        self,
        explanandum: Explanandum,
        steps: int = 50,
        baseline: BaselineColour = "black",
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum)
        whole("steps", steps)
        one_of("baseline", baseline, get_args(BaselineColour))
        self.steps = steps
        self.baseline = baseline
        self.chunk_size = checked_chunk_size(chunk_size)

    def attributions(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """What each value adds; a map's sum is what the logit of the image has more than that of the plain one."""
        black = plain_images(image, self.explanandum.card, brightness=0)
        plain = black if self.baseline == "black" else torch.zeros_like(image)
        chunk = gradient_chunk(self.chunk_size, image)
        return integrated_gradients(self.explanandum, image, plain, image_index, target, self.steps, chunk)
