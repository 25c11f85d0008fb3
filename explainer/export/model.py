"""What is exported: an RGB image comes in as it is, masks go out; nothing of the network is left to know.

B images, C classes, h×w cells of the network's output, H×W pixels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from explainer.explanandum import ClassifierCard
from explainer.masking import enlarge
from explainer.network import Explainer

Precision = Literal["32", "16", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"32": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}


class MaskModel(nn.Module):
    """RGB images [B,3,H,W] in [0, 1], float32 -> class masks [B,C,H,W] in [0, 1], float32.

    The images should have the size that the classifier was trained with, but may have any.

    Args:
        network: in eval mode; its weights are shared.
        card: how the network wants its images.
        classes: indices of the classes that get masks, in this order; None takes all. No other mask is enlarged.
    """

    def __init__(self, network: Explainer, card: ClassifierCard, classes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.network = network
        self.mean = nn.Buffer(torch.tensor(card.mean)[:, None, None])
        self.std = nn.Buffer(torch.tensor(card.std)[:, None, None])
        self.classes = None if classes is None else nn.Buffer(torch.tensor(classes))

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        normalised = (image - self.mean) / self.std
        cells = self.network(normalised.to(next(self.network.parameters()).dtype), enlarged=False)
        if self.classes is not None:
            cells = cells.index_select(1, self.classes)
        return enlarge(cells.float(), image.shape[-2:]).sigmoid()
