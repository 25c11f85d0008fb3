"""LRP (Bach et al., PLoS ONE 2015): the target's logit, handed down from layer to layer to the pixels.

B images, M maps, H×W pixels.
"""

from typing import get_args

import torch
from torch import Tensor

from explainer.attribution.backward import turn_of_each
from explainer.attribution.base import SharingMethod, differentiating
from explainer.attribution.checks import number, one_of
from explainer.attribution.relevance import Composite, RelevanceRules
from explainer.explanandum import Explanandum


class LRP(SharingMethod):
    """The target's logit, handed down from layer to layer to the pixels, each layer's share by what it contributed.

    Maps are negative where pixels speak against the class. They sum to the logit, but for what biases absorb, and z+
    loses where an output that is negative has no positive share (not in networks of ReLUs); their mean over colours
    (PAMI, App. B) would be a third of them. BatchNorm is merged into the convolution before it, residual connections
    share in proportion. A BatchNorm without a convolution before it, as in DenseNets, hands relevance down whole; under
    `epsilon` it is a linear step, whose shift absorbs its share. Attention and LayerNorm have no rule here.

    Args:
        explanandum: the classifier.
        composite: which rule for which layer; see `Composite`.
        epsilon: of the rule of that name; here, too, no more than what keeps a quotient finite (zennit's default).
    """

    paper = "Bach et al., PLoS ONE 2015; Kohlbrenner et al., IJCNN 2020"
    needs = "gradients, and the layers' inputs and weights"
    passes = "1 forward of two to three times the work, 1 backward"

    def __init__(
        self, explanandum: Explanandum, composite: Composite = "epsilon_plus_flat", epsilon: float = 1e-6
    ) -> None:
        super().__init__(explanandum)
        one_of("composite", composite, get_args(Composite))
        number("epsilon", epsilon)
        self.composite: Composite = composite
        self.epsilon = epsilon

    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """Maps [M,H,W] of either sign, summed over colours.

        Raises:
            CannotExplain: if the classifier does anything that LRP has no rule for.
        """
        maps = torch.zeros(len(target), *image.shape[-2:], device=image.device)
        turn = turn_of_each(image_index)
        last = int(turn.max())
        with differentiating(), torch.autocast(image.device.type, enabled=False):
            rules = RelevanceRules(image, self.composite, self.epsilon)
            with rules:  # which compute in float32 at least, whatever dtype the weights are stored in
                logits = self.explanandum(rules.image, autocast=False)
            for index in range(last + 1):
                rows = (turn == index).nonzero()[:, 0]
                # Summing over images is safe: no image's logit depends on another image.
                score = logits[image_index[rows], target[rows]].sum()
                maps[rows] = rules.relevance(score, more_to_come=index < last)[image_index[rows]]
        return maps
