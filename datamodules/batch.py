"""The one batch type that every data set yields and every consumer takes.

B images, C classes, N pairs of an image and one of its classes, T teachers, H×W pixels.
"""

from typing import Any, NamedTuple, Self

from torch import Tensor

VOID = 255
"""Mask value of pixels that belong to no class and not to the background either (PASCAL VOC's convention)."""


class Box(NamedTuple):
    """An object: its class and its edges, as fractions of the width and height of the image as stored.

    Squashing an image moves no fraction, so they hold at any size.

    Attributes:
        label: class index.
        left: 0 at the image's left edge, 1 at its right one.
        top: 0 at the image's top edge, 1 at its bottom one.
        right: like `left`.
        bottom: like `top`.
        difficult: whether the annotators marked the object as hard to tell (PASCAL VOC's "difficult").
    """

    label: int
    left: float
    top: float
    right: float
    bottom: float
    difficult: bool = False

    @classmethod
    def from_pixels(
        cls,
        label: int,
        edges: tuple[float, float, float, float],
        size: tuple[float, float],
        *,
        difficult: bool = False,
    ) -> Self:
        """A box from its left, top, right and bottom edge and the image's (width, height), all in pixels."""
        (left, top, right, bottom), (width, height) = edges, size
        return cls(label, left / width, top / height, right / width, bottom / height, difficult)


class TeacherMaps(NamedTuple):
    """What T teachers say of an image, of each of its K classes.

    Attributes:
        maps: uint8 [K,T,h,w] at any size, 0 to 255; classes in ascending order.
        weights: float32 [K,T] >= 0: how much a teacher counts; 0 where it has no map.
    """

    maps: Tensor
    weights: Tensor


class Batch(NamedTuple):
    """A batch of images with their labels and, where the data set has them, masks and boxes.

    Attributes:
        image: float32 [B,3,H,W], normalised with the explanandum's mean and standard deviation.
        labels: float32 [B,C], 1 where the class is present, else 0 (multi-hot).
        image_id: B names, unique within the data set.
        mask: uint8 [B,H,W]: 0 background, i + 1 for class i, 255 void; None where no image of the split has a mask.
            An image without a mask in a split that has some is all void.
        cue_mask: bool [B,H,W], True where a planted shortcut lies (`shapes` only), else None.
        skipped: names of the broken files that were left out of this batch (`--on_bad_image skip`).
        boxes: the objects of each of the B images; None where no image of the split has boxes, and where images were
            augmented, which moves objects out of their boxes. An image without an annotation in a split that has some
            gets an empty tuple, just as one that is annotated as holding no object.
        original_size: (height, width) in pixels of each of the B photographs, before it was squashed; None in a batch
            that was not loaded from photographs.
        teacher_maps: uint8 [N,T,H,W], 0 to 255, augmented as the images are, in the order of the ones in `labels`,
            image by image; None where nobody teaches.
        teacher_weights: float32 [N,T] >= 0: how much a teacher counts; 0 where it has no map.
    """

    image: Tensor
    labels: Tensor
    image_id: tuple[str, ...]
    mask: Tensor | None = None
    cue_mask: Tensor | None = None
    skipped: tuple[str, ...] = ()
    boxes: tuple[tuple[Box, ...], ...] | None = None
    original_size: tuple[tuple[int, int], ...] | None = None
    teacher_maps: Tensor | None = None
    teacher_weights: Tensor | None = None

    def pin_memory(self) -> Self:
        """The batch with its tensors in page-locked memory; torch's loaders call it.

        Without it they go through all that is in a batch, and older versions make lists of the tuples on the way.
        """
        values: list[Any] = [value.pin_memory() if isinstance(value, Tensor) else value for value in self]
        return type(self)(*values)
