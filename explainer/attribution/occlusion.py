"""Occlusion (Zeiler and Fergus, ECCV 2014): what of the target's probability is lost where a window is covered.

B images, M maps, N windows, n masks of one chunk, H×W pixels; masks lie in [0, 1]: 0 covers a pixel.
"""

from math import ceil

import torch
from torch import Tensor

from explainer.attribution.base import SharingMethod
from explainer.attribution.checks import whole
from explainer.attribution.perturb import ChunkSize, checked_chunk_size, class_scores, masked_logits, weighted_sum
from explainer.capture import CannotExplain
from explainer.explanandum import Explanandum


class Windows:
    """Square windows from the upper left corner on; those that would leave the image are cut off at its border.

    The last window of a line is the first one that reaches the border, so that every pixel is covered.

    Args:
        window: their side in pixels.
        step: pixels between neighbours; at most `window`.
        height: H.
        width: W.
        device: of the masks.
    """

    def __init__(self, window: int, step: int, height: int, width: int, device: torch.device) -> None:
        self._rows, self._columns = (_stretches(window, step, size, device) for size in (height, width))

    def __len__(self) -> int:
        """N."""
        return len(self._rows) * len(self._columns)

    def covered(self, start: int, stop: int) -> Tensor:
        """Which pixels the windows start … stop-1 cover, bool [n,H,W]."""
        number = torch.arange(start, stop, device=self._rows.device)
        row, column = number // len(self._columns), number % len(self._columns)
        return self._rows[row][:, :, None] & self._columns[column][:, None, :]

    def times(self) -> Tensor:
        """How many windows cover each pixel, [H,W], at least 1."""
        return self._rows.sum(dim=0)[:, None] * self._columns.sum(dim=0)


def _stretches(window: int, step: int, size: int, device: torch.device) -> Tensor:
    """Along one side: which pixels each window covers, bool [windows,size]."""
    first = torch.arange(ceil((size - window) / step) + 1, device=device)[:, None] * step
    pixel = torch.arange(size, device=device)
    return (pixel >= first) & (pixel < first + window)


class Occlusion(SharingMethod):
    """How much the target's probability falls when a window hides a pixel: the mean over all windows that do.

    A map is negative where hiding helps the class. Hidden pixels get the data set's mean colour, which is 0 in a
    normalised image. Probabilities, not logits, as in the paper and in PAMI's code. Windows lie as in captum, which
    PAMI used.

    Args:
        explanandum: the classifier.
        window: side of the square windows in pixels; 40 in PAMI, App. B.
        step: pixels between neighbouring windows, at most `window`; 6 in PAMI, App. B.
        chunk_size: covered images of one forward pass; auto fits the device.
    """

    paper = "Zeiler and Fergus, ECCV 2014"
    needs = "outputs only"
    passes = "windows + 1 forward (224 px: 1025), for all classes"

    def __init__(
        self, explanandum: Explanandum, window: int = 40, step: int = 6, chunk_size: ChunkSize = "auto"
    ) -> None:
        super().__init__(explanandum)
        whole("window", window)
        whole("step", step)
        if step > window:
            raise ValueError(
                f"step is {step}; give at most {window}, the window, or pixels between windows have no value."
            )
        self.window = window
        self.step = step
        self.chunk_size = checked_chunk_size(chunk_size)

    @torch.no_grad()
    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.window > min(height, width):
            raise CannotExplain(
                f"A window of {self.window} pixels does not fit into images of {height} × {width}; "
                f"give window={max(1, min(height, width) // 5)} or so."
            )
        windows = Windows(self.window, self.step, height, width, image.device)

        def masks(start: int, stop: int) -> Tensor:
            """The first covers nothing: what is lost is lost of what the classifier says of the image itself."""
            hidden = windows.covered(max(start, 1) - 1, stop - 1)
            bare = hidden.new_zeros(int(start == 0), height, width)
            return (~torch.cat([bare, hidden])).float()

        total = torch.zeros(len(target), height, width, device=image.device)
        before = None
        for chunk, logits in masked_logits(
            self.explanandum, image, masks, len(windows) + 1, chunk_size=self.chunk_size
        ):
            scores = class_scores(self.explanandum, logits)[image_index, :, target]
            before = scores[:, :1] if before is None else before
            total += weighted_sum(before - scores, 1 - chunk)
        return total / windows.times()
