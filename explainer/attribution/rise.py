"""RISE (Petsiuk et al., BMVC 2018): random masks, weighted by the target's probability under them.

B images, N masks, n masks of one chunk, M maps, H×W pixels.
"""

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.attribution.base import SharingMethod
from explainer.attribution.checks import number, whole
from explainer.attribution.perturb import ChunkSize, checked_chunk_size, class_scores, masked_logits, weighted_sum
from explainer.explanandum import Explanandum


class RandomMasks:
    """Random grids, enlarged bilinearly and shifted at random (RISE, Sec. 3.2); made chunk by chunk.

    A grid's cells are ceil(H / cells) × ceil(W / cells) pixels, and it is enlarged by one cell more than the image has.

    Args:
        count: N.
        cells: of a grid, down and across.
        probability: that a cell keeps its pixels.
        seed: of the grids and shifts; the same for every device, size of chunk and batch.
        height: H.
        width: W.
        device: of the masks.
    """

    def __init__(
        self, count: int, cells: int, probability: float, seed: int, height: int, width: int, device: torch.device
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._grids = (torch.rand(count, cells, cells, generator=generator) < probability).float().to(device)
        self._down, self._across = (
            (torch.rand(count, generator=generator) * ceil(size / cells)).long().to(device)[:, None]
            + torch.arange(size, device=device)
            for size in (height, width)
        )
        self._rows, self._columns = (_enlargement(cells, ceil(size / cells), device) for size in (height, width))

    def __call__(self, start: int, stop: int) -> Tensor:
        """The masks start … stop-1, [n,H,W] in [0, 1]."""
        chunk = slice(start, stop)
        with torch.autocast(self._grids.device.type, enabled=False):
            return self._rows[self._down[chunk]] @ self._grids[chunk] @ self._columns[self._across[chunk]].mT


def _enlargement(cells: int, pixels: int, device: torch.device) -> Tensor:
    """Bilinear enlargement of a line of cells to `pixels` pixels for each cell and one more, as a matrix."""
    line = torch.eye(cells, device=device)[:, None, :]
    return F.interpolate(line, size=(cells + 1) * pixels, mode="linear", align_corners=False)[:, 0].T


class RISE(SharingMethod):
    """The mean of random masks, each weighted by the target's probability for the image that it leaves.

    Maps are >= 0: Eq. 6, the expected mask taken to be `probability`.

    Args:
        explanandum: the classifier.
        masks: their number; 4000 in Sec. 4.1 for VGG-16.
        cells: of a mask's grid, down and across; 7 in Sec. 4.1.
        probability: that a cell is kept; .5 in Sec. 4.1.
        seed: of the masks, which are the same for all images.
        chunk_size: masked images of one forward pass; auto fits the device.
    """

    paper = "Petsiuk et al., BMVC 2018"
    needs = "outputs only"
    passes = "masks forward (4000), for all classes"

    def __init__(
        self,
        explanandum: Explanandum,
        masks: int = 4000,
        cells: int = 7,
        probability: float = 0.5,
        seed: int = 0,
        chunk_size: ChunkSize = "auto",
    ) -> None:
        super().__init__(explanandum)
        whole("masks", masks)
        whole("cells", cells)
        number("probability", probability, most=1)
        whole("seed", seed, least=0)
        self.masks = masks
        self.cells = cells
        self.probability = probability
        self.seed = seed
        self.chunk_size = checked_chunk_size(chunk_size)

    @torch.no_grad()
    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        total = torch.zeros(len(target), height, width, device=image.device)
        masks = RandomMasks(self.masks, self.cells, self.probability, self.seed, height, width, image.device)
        for chunk, logits in masked_logits(
            self.explanandum, image, masks, self.masks, baseline=0.0, chunk_size=self.chunk_size
        ):
            scores = class_scores(self.explanandum, logits)[image_index, :, target]
            total += weighted_sum(scores, chunk)
        return total / (self.masks * self.probability)
