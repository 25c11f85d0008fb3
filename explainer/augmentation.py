"""Training images that depend on an explanation: what a classifier in training sees instead of, or beside, its images.

B images, C classes, N pairs of an image and one of its classes, H×W pixels.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from explainer.attribution.base import evaluating
from explainer.attribution.group_cam import light_group_cam
from explainer.attribution.perturb import gaussian_blur
from explainer.capture import captured_activation, last_spatial_layer
from explainer.explanandum import ClassifierCard, OutputKind, class_probabilities
from explainer.masking import apply_mask, target_mask
from explainer.network import Explainer, mask_logits
from explainer.run_folder import RunFolder
from explainer.weights import some

AugmentName = Literal["none", "group_cam", "explainer"]


class Augmentation(nn.Module, ABC):
    """Makes a training batch out of another one; nothing is remembered from batch to batch, nothing is random.

    What becomes of an image depends on the classifier, the image and its own labels alone.
    """

    @abstractmethod
    def forward(self, classifier: nn.Module, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch to train on.

        Args:
            classifier: in training, as it is now; left as it was found.
            image: [B,3,H,W], normalised.
            labels: multi-hot [B,C].

        Returns:
            Images [B',3,H,W] and their labels [B',C].
        """


class GroupCAMAugmentation(Augmentation):
    """Images blurred wherever the classifier itself sees nothing of their classes (Group-CAM, Sec. 5).

    A class's saliency map, from Group-CAM without gradients, is cut at its own mean. What lies above stays sharp (Eq. 5
    with the binary mask), and the classifier is trained on these images instead of the original ones. Two cases that
    the paper, with one class an image, leaves open: of several classes all regions stay sharp, so that all labels stay
    true; and an image of which nothing is salient for any class, or that has no class, stays as it is, for a wholly
    blurred image would show nothing of what its labels say.

    Costs G + 2 = 18 forward passes an image without gradients (1 plain, 1 blurred, 16 masked), however many classes it
    has, besides the step's own forward and backward pass.

    Args:
        layer: name of the layer whose channels are grouped.
        output: what the classifier's logits mean.
        groups: G (Sec. 5).
        kernel_size: of the blur (the authors' code).
        sigma: likewise.
        chunk_size: masked images of one forward pass. A fixed number: what fits into a GPU's free memory may differ
            when a killed training goes on, and with it the rounding that decides at the threshold.
    """

    def __init__(
        self,
        layer: str,
        output: OutputKind,
        groups: int = 16,
        kernel_size: int = 51,
        sigma: float = 50.0,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.output = output
        self.groups = groups
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.chunk_size = chunk_size

    @torch.no_grad()
    def forward(self, classifier: nn.Module, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As many images as there were, with the same labels."""
        blurred = gaussian_blur(image, self.kernel_size, self.sigma)
        try:
            with evaluating(classifier):
                maps, image_index = self._maps(classifier, image, blurred, labels)
        finally:
            # Autocast may keep weights that it casts; those cast without gradients must not serve the training step.
            torch.clear_autocast_cache()
        sharp = salient_region(maps, image_index, len(image))
        return torch.where(sharp[:, None], image, blurred), labels

    def _maps(self, classifier: nn.Module, image: Tensor, blurred: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        def probabilities(images: Tensor) -> Tensor:
            return class_probabilities(classifier(images), self.output)

        with captured_activation(classifier, self.layer) as captured:
            classifier(image)
        activation = captured.as_maps(captured.value.detach(), image)
        return light_group_cam(probabilities, image, activation, blurred, labels, self.groups, self.chunk_size)


def salient_region(maps: Tensor, image_index: Tensor, images: int) -> Tensor:
    """Where any of an image's maps is above its own mean.

    Args:
        maps: saliency maps [N,H,W].
        image_index: of which image each of them is [N].
        images: B.

    Returns:
        bool [B,H,W]; all True for an image without a map, or with flat maps only.
    """
    above = maps > maps.mean(dim=(1, 2), keepdim=True)
    votes = maps.new_zeros(images, *maps.shape[1:]).index_add_(0, image_index, above.to(maps.dtype))
    region = votes > 0
    return region | ~region.any(dim=2, keepdim=True).any(dim=1, keepdim=True)


class ExplainerAugmentation(Augmentation):
    """Beside each image the same one under its target mask, with the same labels (NN-Explainer, Sec. 5).

    The paper suggests it and leaves the details open; here the two halves are one batch of twice the size. An image
    without a class is masked wholly, which its labels, all 0, agree with.

    Costs one forward pass of the Explainer an image, and twice the training step.

    Args:
        network: trained; frozen here and kept in eval mode.
    """

    def __init__(self, network: Explainer) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, classifier: nn.Module, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The B images, then the B masked ones; the labels twice."""
        with evaluating(self.network):
            mask = target_mask(mask_logits(self.network, image), labels)
        return torch.cat([image, apply_mask(image, mask)]), labels.repeat(2, 1)


def make_augmentation(
    name: AugmentName, run: Path | None, classifier: nn.Module, card: ClassifierCard
) -> Augmentation | None:
    """What an option names, for a classifier that is to be trained; None for `none`.

    Args:
        name: of the augmentation.
        run: folder of the run whose Explainer masks images; needed for `explainer`, and not otherwise.
        classifier: left as it was found.
        card: its card.

    Raises:
        CannotExplain: for `group_cam`, if no layer of the classifier gives a map.
        ValueError: for `explainer`, as `fitting_explainer`.
        FileNotFoundError: likewise.
    """
    if name == "group_cam":
        with evaluating(classifier):
            return GroupCAMAugmentation(last_spatial_layer(classifier, card.image_size), card.output)
    if name == "explainer" and run is not None:
        return ExplainerAugmentation(fitting_explainer(run, card))
    return None


def fitting_explainer(run: Path, card: ClassifierCard) -> Explainer:
    """A run's Explainer, if it takes the images, and knows the classes, of another classifier.

    Args:
        run: its folder.
        card: of the other classifier.

    Raises:
        ValueError: if it was trained on other classes, or on images of another size or normalised in another way.
        FileNotFoundError: if the run has no trained Explainer.
    """
    folder = RunFolder(run)
    folder.read_config()  # its error says what a run folder is
    trained = folder.load_explanandum().card
    if trained.classes != card.classes:
        raise ValueError(
            f"The Explainer of {run} knows other classes ({some(list(trained.classes))}) than the data set has "
            f"({some(list(card.classes))}), or in another order; choose a run on this data set with --finetune.run."
        )
    for name in ("image_size", "mean", "std"):
        theirs, ours = getattr(trained, name), getattr(card, name)
        if theirs != ours:
            raise ValueError(
                f"The Explainer of {run} takes images with {name} {theirs}, the classifier with {name} {ours}; choose "
                "--image_size and --explanandum as in that run, or another --finetune.run."
            )
    return folder.load_explainer()
