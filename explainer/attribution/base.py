"""The contract that every attribution method fulfils.

B images, C classes, M maps, H×W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from explainer.capture import CannotExplain
from explainer.explanandum import Explanandum

WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Switch a network to eval mode, and each of its modules back to the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def differentiating() -> Iterator[None]:
    """Switch gradients on for a method that takes some, whatever the caller has set.

    Raises:
        CannotExplain: within `torch.inference_mode()`, where there are none.
    """
    if torch.is_inference_mode_enabled():
        raise CannotExplain(
            "The method takes gradients, which torch.inference_mode() forbids; ask it under torch.no_grad()."
        )
    with torch.enable_grad():
        yield


def no_maps(image: Tensor) -> Tensor:
    """Maps [0,H,W] for images of which no class is asked."""
    return image.new_zeros(0, *image.shape[-2:], dtype=torch.float32)


def checked_target(target: Tensor, images: int, classes: int) -> Tensor:
    """Class indices, one for each image.

    Raises:
        ValueError: if they are anything else.
    """
    wrong = target.shape != (images,) or target.dtype not in WHOLE_NUMBERS
    if not wrong and images and not target.is_meta:
        low, high = torch.stack(target.aminmax()).tolist()  # on a GPU a wrong index would end the process
        wrong = low < 0 or high >= classes
    if wrong:
        raise ValueError(
            f"The targets are {str(target.tolist())[:60]}; give a class index for each of {images} images, whole "
            f"numbers from 0 to {classes - 1}, as the classifier has {classes} classes."
        )
    return target


def present_classes(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where the labels [B,C] have a class: the images' indices [N] and the classes [N], on the images' device."""
    image_index, target = labels.bool().nonzero(as_tuple=True)
    return image_index.to(image.device), target.to(image.device)


def _with_checked_target(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(call)
    def checked(self: "AttributionMethod", image: Tensor, target: Tensor) -> Tensor:
        target = checked_target(torch.as_tensor(target), len(image), self.explanandum.num_classes)
        return call(self, image, target.to(image.device, torch.long))

    return checked


class AttributionMethod(ABC):
    """Attribution maps for one target class per image.

    Subclasses implement `__call__`, before which the targets are checked and moved to the image's device. They leave
    the explanandum as they found it, also after an error, and give a batch what its images would give one by one.

    Attributes:
        paper: where the method comes from.
        needs: what of the classifier it must see: its outputs only, gradients of them, or a layer's activations.
        passes: what a map costs with the default options, in passes of one image through the classifier.
        version: of its maps; raised with a change that makes kept ones wrong.
        unit_range: True where a map is a mask in [0, 1] already, so that no figure or metric rescales it.
        newer_options: that came when maps were already kept: at their defaults they don't count, so that those stay
            valid.
    """

    paper: ClassVar[str]
    needs: ClassVar[str]
    passes: ClassVar[str]
    version: ClassVar[int] = 1
    unit_range: ClassVar[bool] = False
    newer_options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, explanandum: Explanandum) -> None:
        self.explanandum = explanandum

    def __init_subclass__(cls, **options: Any) -> None:
        """Here, so that no method can leave the check of its targets out."""
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            cls.__call__ = _with_checked_target(cls.__call__)  # type: ignore[method-assign]

    @property
    def versions(self) -> list[Any]:
        """Its own, and those of the methods that it is made of."""
        return [self.version]

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Networks of the method's own, besides the explanandum, that must be moved to the device."""
        return ()

    @abstractmethod
    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Raw attribution maps: image [B,3,H,W], normalised; target long [B] -> float32 [B,H,W], larger = more.

        Raises:
            ValueError: if the targets are not one of the classifier's classes for each image.
        """

    def present_class_maps(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maps of all present classes of a batch.

        Methods override this to share what does not depend on the class.

        Args:
            image: [B,3,H,W], normalised.
            labels: multi-hot [B,C].

        Returns:
            Maps [N,H,W], one per (image, present class); and for each the image's index [N] and the class [N].
        """
        image_index, target = present_classes(image, labels)
        if len(target) == 0:
            return no_maps(image), image_index, target
        return self(image[image_index], target), image_index, target


class SharingMethod(AttributionMethod):
    """A method whose passes serve all classes of an image; subclasses implement `_maps`."""

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Maps [B,H,W], of whatever range the class says."""
        return self._maps_of_any(image, torch.arange(len(image), device=image.device), target)

    def present_class_maps(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All present classes of an image from the same passes; an image without any is not looked at."""
        found = labels.bool().nonzero(as_tuple=True)
        places = (each.to(image.device) for each in (*found, *found[0].unique(return_inverse=True)))
        image_index, target, used, position = places
        return self._maps_of_any(image[used], position, target), image_index, target

    def _maps_of_any(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        return self._maps(image, image_index, target) if len(target) else no_maps(image)

    @abstractmethod
    def _maps(self, image: Tensor, image_index: Tensor, target: Tensor) -> Tensor:
        """Maps [M,H,W] of targets [M], at least one, in the images [M] of the batch, which are sorted."""
