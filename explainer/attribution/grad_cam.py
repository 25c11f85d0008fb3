"""Grad-CAM and its closest kin: the target layer's channels, each weighted by one number.

N maps, K channels of the target layer of h×w cells.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from explainer.attribution.cam import CAM

CELLS = (2, 3)
"""The axes of h and w."""


class _WeightedChannels(CAM):
    """ReLU of the weighted sum of the channels; subclasses say the weights."""

    def _combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (self._weight(activation, gradient) * activation).sum(dim=1, keepdim=True).relu()

    @abstractmethod
    def _weight(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Of each channel, [N,K,1,1]."""


class GradCAM(_WeightedChannels):
    """Grad-CAM (Selvaraju et al., ICCV 2017): a channel's weight is the spatial mean of the target logit's gradient.

    Args:
        explanandum: the classifier.
        target_layer: name of the layer read; None takes the explanandum's own (its last spatial one, as in the paper).
    """

    paper = "Selvaraju et al., ICCV 2017"
    needs = "activations and gradients"
    passes = "1 forward, 1 backward to the layer"

    def _weight(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mean(dim=CELLS, keepdim=True)


class WGradCAM(_WeightedChannels):
    """WGradCAM (SIGCAM, Eq. 2): the gradient of every cell counts as much as the channel is active there.

    Args:
        explanandum: the classifier.
        target_layer: name of the layer read; None takes the explanandum's own (its last spatial one, as in the paper).
    """

    paper = "Zhang, Rao and Yang: SIGCAM, Eq. 2"
    needs = "activations and gradients"
    passes = "1 forward, 1 backward to the layer"

    def _weight(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (gradient * activation).mean(dim=CELLS, keepdim=True)


class GradCAMpp(_WeightedChannels):
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018): positive gradients only, cells weighted by higher-order terms.

    The score is the exponential of the logit, as in the paper, whose derivatives of second and third order are then
    powers of the logit's gradient. Of that score's gradient the factor exp(logit), one number a map, is left out: it
    scales the raw map and nothing else, and overflows.

    Args:
        explanandum: the classifier.
        target_layer: name of the layer read; None takes the explanandum's own (its last spatial one, as in the paper).
    """

    paper = "Chattopadhyay et al., WACV 2018"
    needs = "activations and gradients"
    passes = "1 forward, 1 backward to the layer"

    def _weight(self, activation: Tensor, gradient: Tensor) -> Tensor:
        positive = gradient.relu()
        # The paper's g² / (2g² + g³·ΣA), with g² cancelled: squares and cubes of small gradients would underflow.
        # Where g <= 0 its value does not matter. Below zero, or close to it, only layers that end in no ReLU get.
        denominator = 2 + positive * activation.sum(dim=CELLS, keepdim=True)
        smallest = torch.full_like(denominator, 1e-6).copysign(denominator)
        alpha = torch.where(denominator.abs() < 1e-6, smallest, denominator).reciprocal()
        return (alpha * positive).sum(dim=CELLS, keepdim=True)
