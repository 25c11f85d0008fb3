"""From a PIL sample to normalised tensors, with the reference's optional augmentation.

K classes of an image, T teachers, H×W pixels of the squashed size. Images stay uint8 until the last step: a quarter of
the memory traffic.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from datamodules.batch import VOID
from datamodules.sample import Sample

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class CueMask(tv_tensors.Mask):
    """A mask type of its own: rotation fills a cue mask's corners with "no cue", but a class mask's with void."""


class TeacherMask(tv_tensors.Mask):
    """Teacher maps: rotation fills their corners with zero, since nothing is there that could matter."""


class Views(NamedTuple):
    """One sample as tensors: image [3,H,W], mask uint8 [H,W], cue mask bool [H,W], teacher maps uint8 [K,T,H,W].

    All but the image may be None.
    """

    image: Tensor
    mask: Tensor | None
    cue_mask: Tensor | None
    teacher_maps: Tensor | None


class SampleTransform:
    """Squash to a square, augment if asked, normalise.

    Args:
        image_size: Height and width of the result; the aspect ratio is not kept (as the reference).
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
    """

    def __init__(self, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.size = (image_size, image_size)
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)
        self.augmentation = _reference_augmentation()

    def __call__(self, sample: Sample, augment_seed: int | None = None, teacher_maps: Tensor | None = None) -> Views:
        """Turn a sample into tensors; with a seed it is augmented, the same way for the same seed.

        Args:
            sample: The image and what is known of it.
            augment_seed: None for no augmentation.
            teacher_maps: uint8 [K,T,h,w] at any size; they are enlarged, and flipped and turned with the image.
        """
        image = tv_tensors.Image(_squash(sample.image, self.size, Image.Resampling.BILINEAR).permute(2, 0, 1))
        mask, cue_mask = self._squash_mask(sample.mask, tv_tensors.Mask), self._squash_mask(sample.cue_mask, CueMask)
        taught = None if teacher_maps is None else TeacherMask(_enlarged(teacher_maps.flatten(0, 1), self.size))
        if augment_seed is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(augment_seed)
                image, mask, cue_mask, taught = self.augmentation(image, mask, cue_mask, taught)
        return Views(
            self._normalise(image),
            None if mask is None else _plain(mask)[0],
            None if cue_mask is None else _plain(cue_mask)[0] > 0,
            None if teacher_maps is None else _plain(taught).unflatten(0, teacher_maps.shape[:2]),
        )

    def _squash_mask(self, mask: Image.Image | None, kind: type[tv_tensors.Mask]) -> tv_tensors.Mask | None:
        return None if mask is None else kind(_squash(mask, self.size, Image.Resampling.NEAREST)[None])

    def _normalise(self, image: tv_tensors.Image) -> Tensor:
        values = image.as_subclass(Tensor).to(torch.float32, memory_format=torch.contiguous_format)
        return values.div_(255).sub_(self.mean).div_(self.std)


def _plain(mask: tv_tensors.Mask) -> Tensor:
    """A mask of torchvision's own type as a plain tensor."""
    return mask.as_subclass(Tensor)


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [N,h,w] -> uint8 [N,H,W], smoothly: the cells of a coarse map have no edges of their own."""
    if len(maps) == 0:  # which `interpolate` refuses
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None].float(), size, mode="bilinear")[0].round().to(torch.uint8)


def _squash(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Tensor:
    """Resize to uint8 [H,W] or [H,W,3]; PIL's bilinear filter widens when shrinking, that is, it antialiases."""
    return torch.from_numpy(np.array(image.resize(size, how)))


def _reference_augmentation() -> v2.Compose:
    """Flip, rotation and colour jitter, with the strengths of the NN-Explainer reference code.

    Rotation follows the squash here (there it comes first), which keeps it cheap for large photographs.
    """
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(p=0.5),
            v2.RandomRotation(
                10,
                interpolation=v2.InterpolationMode.BILINEAR,
                fill={tv_tensors.Image: 0, tv_tensors.Mask: VOID, CueMask: 0, TeacherMask: 0},
            ),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
        ]
    )
