"""The torch side of a split: a Dataset over a SampleSource, and the loader that makes a Batch of its items.

C classes, H×W pixels.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import VOID, Batch
from datamodules.images import BadImageError
from datamodules.sample import Sample, SampleSource
from datamodules.sampler import mix_seed
from datamodules.transforms import SampleTransform


class Item(NamedTuple):
    """One image, ready to be batched: image [3,H,W], labels [C], mask and cue mask [H,W] or None."""

    image: Tensor
    labels: Tensor
    image_id: str
    mask: Tensor | None
    cue_mask: Tensor | None


class BadItem(NamedTuple):
    """Stands for an image that could not be read."""

    image_id: str
    reason: str


class SampleDataset(Dataset[Item]):
    """Reads, labels and transforms the images of a split.

    An int key gives the image as it is. An (epoch, index) key, as the training sampler yields it, gives the
    augmented image if `augment_seed` is set: a pure function of (augment_seed, epoch, index), whatever the worker.

    Args:
        source: The split.
        num_classes: C.
        transform: What to do to a sample.
        limit: Keep so many images, evenly spaced over the split: a prefix might be all of one class.
        augment_seed: Seed of the augmentation; None for none.
    """

    def __init__(
        self,
        source: SampleSource,
        num_classes: int,
        transform: SampleTransform,
        *,
        limit: int | None = None,
        augment_seed: int | None = None,
    ) -> None:
        total = len(source)
        count = total if limit is None else min(limit, total)
        self.source, self.num_classes, self.transform = source, num_classes, transform
        self.indices = [position * total // count for position in range(count)]
        self.augment_seed = augment_seed

    @property
    def image_ids(self) -> list[str]:
        """Names of the images, in order."""
        return [self.source.image_ids[index] for index in self.indices]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.indices)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        """The image at an index, or at an (epoch, index) augmented for that epoch; may raise BadImageError."""
        epoch, index = (None, key) if isinstance(key, int) else key
        seed = None
        if epoch is not None and self.augment_seed is not None:
            seed = mix_seed(self.augment_seed, epoch, index)
        return self._item(self.source[self.indices[index]], seed)

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Item | BadItem]:
        """The images of a batch, as torch's loaders ask for them; an unreadable one becomes a BadItem."""
        return [self._item_or_bad(key) for key in keys]

    def _item_or_bad(self, key: int | tuple[int, int]) -> Item | BadItem:
        try:
            return self[key]
        except BadImageError as error:
            index = key if isinstance(key, int) else key[1]
            return BadItem(self.source.image_ids[self.indices[index]], str(error))

    def _item(self, sample: Sample, seed: int | None) -> Item:
        image, mask, cue_mask = self.transform(sample, seed)
        if mask is None and self.source.has_masks:
            mask = torch.full(image.shape[-2:], VOID, dtype=torch.uint8)
        labels = torch.zeros(self.num_classes)
        labels[list(sample.labels)] = 1
        return Item(image, labels, sample.image_id, mask, cue_mask)


class BatchLoader(DataLoader[Batch]):
    """A DataLoader that raises what `collate` complains about.

    In the main process: raised by a worker, the message would come buried in that process's traceback, and clearing
    up the loader would hang for 5 seconds a worker.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch promises its private iterator class
        """The batches; raises BadImageError for one that cannot be used."""
        for batch in super().__iter__():
            if isinstance(batch, BadImageError):
                try:
                    raise batch
                finally:
                    del batch  # else error -> traceback -> this frame -> error is a cycle that keeps the workers
            yield batch


def make_loader(dataset: SampleDataset, *, skip_bad: bool, **options: Any) -> BatchLoader:
    """A loader of Batch over a dataset.

    Args:
        dataset: The images.
        skip_bad: Leave unreadable images out and name them in `Batch.skipped`, instead of raising BadImageError.
        **options: Of torch's DataLoader.
    """
    return BatchLoader(
        dataset,  # type: ignore[arg-type]  # torch types a loader by its dataset's items, not by its batches
        collate_fn=partial(collate, skip_bad=skip_bad),
        # A loader draws a base seed each epoch; from the global generator it would disturb the run's own stream.
        generator=torch.Generator(),
        **options,
    )


def collate(items: Sequence[Item | BadItem], *, skip_bad: bool) -> Batch | BadImageError:
    """Stack items into a Batch, or return (not raise, see `BatchLoader`) the error that prevents it."""
    good = [item for item in items if isinstance(item, Item)]
    bad = [item for item in items if isinstance(item, BadItem)]
    if bad and not skip_bad:
        return BadImageError(bad[0].reason)
    if not good:
        return BadImageError(
            f"All {len(bad)} image(s) of a batch are unreadable, nothing is left to work on. First: {bad[0].reason}"
        )
    return Batch(
        image=torch.stack([item.image for item in good]),
        labels=torch.stack([item.labels for item in good]),
        image_id=tuple(item.image_id for item in good),
        mask=_stack([item.mask for item in good]),
        cue_mask=_stack([item.cue_mask for item in good]),
        skipped=tuple(item.image_id for item in bad),
    )


def _stack(tensors: list[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None
