"""A batch of images as tables and methods see it.

B images, C classes, H×W pixels.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from datamodules.batch import VOID, Batch
from explainer.explanandum import Explanandum
from explainer.keys import digest, digest_of_tensor


class Images:
    """A batch, and what the explanandum says of it, computed when it is first asked for.

    Args:
        batch: on the device.
        explanandum: the classifier.
    """

    def __init__(self, batch: Batch, explanandum: Explanandum) -> None:
        self.batch = batch._replace(image=batch.image.contiguous(memory_format=torch.channels_last))
        self.explanandum = explanandum
        self._whole: tuple[Images, Tensor] | None = None  # the batch that this is a part of, and which part

    def __len__(self) -> int:
        """B."""
        return len(self.batch.image)

    @property
    def image(self) -> Tensor:
        """Normalised images [B,3,H,W]."""
        return self.batch.image

    @property
    def labels(self) -> Tensor:
        """Present classes, bool [B,C]."""
        return self.batch.labels.bool()

    @property
    def names(self) -> tuple[str, ...]:
        """Image ids."""
        return self.batch.image_id

    @cached_property
    def has_mask(self) -> list[bool]:
        """Whether each image has a ground-truth mask: void everywhere stands for none."""
        if self.batch.mask is None:
            return [False] * len(self)
        return (self.batch.mask != VOID).flatten(1).any(dim=1).tolist()

    @cached_property
    def logits(self) -> Tensor:
        """The explanandum's answers to the images as they are, float32 [B,C]."""
        if self._whole is not None:  # one pass serves all parts of a batch
            whole, chosen = self._whole
            return whole.logits[chosen]
        with torch.no_grad():
            return self.explanandum(self.image).float()

    @cached_property
    def predicted(self) -> Tensor:
        """Class of the largest logit, long [B]."""
        return self.logits.argmax(dim=1)

    def one_hot(self, target: Tensor) -> Tensor:
        """Class indices [B] -> bool [B,C]."""
        return torch.zeros_like(self.labels).scatter_(1, target[:, None], True)

    @cached_property
    def pixel_keys(self) -> list[str]:
        """Of the pixels of each image: what a map depends on, besides classifier, method and class."""
        return [digest_of_tensor(image) for image in self.image]

    @cached_property
    def content_keys(self) -> list[str]:
        """Of all that is known of each image: what a score depends on, besides the map and the table's options."""
        return [self._content_key(index) for index in range(len(self))]

    def _content_key(self, index: int) -> str:
        tensors = (self.batch.labels, self.batch.mask, self.batch.cue_mask)
        seen = [None if tensor is None else digest_of_tensor(tensor[index]) for tensor in tensors]
        others = [None if value is None else value[index] for value in (self.batch.boxes, self.batch.original_size)]
        return digest(self.pixel_keys[index], seen, others)

    def subset(self, indices: Sequence[int]) -> "Images":
        """Some of the images, with what is known of them already."""
        if list(indices) == list(range(len(self))):
            return self
        chosen = torch.tensor(indices, dtype=torch.long, device=self.image.device)
        part = Images(_subset(self.batch, list(indices), chosen), self.explanandum)
        part._whole = (self, chosen)
        for name in ("pixel_keys", "content_keys", "has_mask"):
            if name in self.__dict__:
                part.__dict__[name] = [self.__dict__[name][index] for index in indices]
        return part


def _subset(batch: Batch, indices: list[int], chosen: Tensor) -> Batch:
    fields: dict[str, Any] = {"skipped": ()}
    for name, value in batch._asdict().items():
        if isinstance(value, Tensor):
            fields[name] = value[chosen]
        elif name != "skipped":
            fields[name] = None if value is None else tuple(value[index] for index in indices)
    return Batch(**fields)
