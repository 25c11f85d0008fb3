"""Two maps that know nothing of the classifier, which every method should beat (PAMI, Table 2).

B images, H×W pixels.
"""

from hashlib import blake2b

import torch
from torch import Tensor

from explainer.attribution.base import AttributionMethod, no_maps
from explainer.attribution.checks import whole
from explainer.explanandum import Explanandum


class Random(AttributionMethod):
    """Uniform noise, drawn anew for each image and target, whatever batch they are in.

    Args:
        explanandum: the classifier, which is not asked.
        seed: another one gives other noise.
    """

    paper = "Shi, Zhang and Wang: PAMI, Table 2"
    needs = "nothing"
    passes = "none"

    def __init__(self, explanandum: Explanandum, seed: int = 0) -> None:
        super().__init__(explanandum)
        whole("seed", seed, least=0)
        self.seed = seed

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W] in [0, 1)."""
        noise = [self._noise(single, number) for single, number in zip(image, target.tolist(), strict=True)]
        return torch.stack(noise).to(image.device) if noise else no_maps(image)

    def _noise(self, image: Tensor, target: int) -> Tensor:
        # Seeded by what is asked: neither the order of the images nor their batch makes a difference.
        pixels = image.detach().float().contiguous().cpu().numpy().tobytes()
        digest = blake2b(pixels, digest_size=8, key=f"{self.seed}, {target}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
        return torch.rand(image.shape[-2:], generator=generator)


class Center(AttributionMethod):
    """The closer to the image's centre the more: 1 there, 0 in the corners of an image of more than 2×2 pixels.

    Args:
        explanandum: the classifier, which is not asked.
    """

    paper = "Shi, Zhang and Wang: PAMI, Table 2"
    needs = "nothing"
    passes = "none"

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W], all the same, in [0, 1]."""
        down, across = (torch.arange(size, device=image.device) - (size - 1) / 2 for size in image.shape[-2:])
        distance = torch.hypot(down[:, None], across)
        closeness = 1 - distance / distance.max().clamp(min=1)
        return closeness.float().expand(len(image), -1, -1).clone()
