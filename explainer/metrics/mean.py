"""Mean over images, right on any number of devices."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ImageMean(Metric):
    """Mean over images of what batches report, over all devices.

    Lightning's own mean is wrong where processes see different numbers of images (it halves their sum to a whole
    number), and torchmetrics' MeanMetric forgets the weights where its check for NaN, which waits for the device, is
    switched off.
    """

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "images"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor, images: int) -> None:
        """Add a batch of so many images and their mean."""
        self.total += value.double() * images
        self.images += images

    def compute(self) -> Tensor:
        """The mean."""
        return (self.total / self.images).float()
