"""The torch side of a split: a Dataset over a SampleSource, and the loader that makes a Batch of its items.

C classes, H×W pixels.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import VOID, Batch, Box
from datamodules.images import BadImageError
from datamodules.sample import Sample, SampleSource, Teachers
from datamodules.sampler import mix_seed
from datamodules.transforms import SampleTransform


class Item(NamedTuple):
    """One image, ready to be batched: image [3,H,W], labels [C], mask and cue mask [H,W] or None.

    Boxes are None where the batch has none; the original size is (height, width). Of K classes and T teachers, teacher
    maps are [K,T,H,W] and their weights [K,T], or None.
    """

    image: Tensor
    labels: Tensor
    image_id: str
    mask: Tensor | None
    cue_mask: Tensor | None
    boxes: tuple[Box, ...] | None
    original_size: tuple[int, int]
    teacher_maps: Tensor | None = None
    teacher_weights: Tensor | None = None


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
        skip_bad: Leave unreadable images out, instead of raising BadImageError.

    Attributes:
        teachers: Where teacher maps of the images come from; None if nobody teaches.
        is_part: Whether this is a part of a split, which may turn out to be unreadable as a whole.
        unreadable: Names of the images left out so far, as this process's loaders met them.
    """

    def __init__(
        self,
        source: SampleSource,
        num_classes: int,
        transform: SampleTransform,
        *,
        limit: int | None = None,
        augment_seed: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        total = len(source)
        count = total if limit is None else min(limit, total)
        self.source, self.num_classes, self.transform = source, num_classes, transform
        self.indices = [position * total // count for position in range(count)]
        self.augment_seed = augment_seed
        self.skip_bad = skip_bad
        self.teachers: Teachers | None = None
        self.is_part = False
        self.unreadable: set[str] = set()

    @property
    def image_ids(self) -> list[str]:
        """Names of the images, in order."""
        return [self.source.image_ids[index] for index in self.indices]

    def only(self, image_ids: Collection[str]) -> Self:
        """Those of the images that are named, in order, never augmented and without teachers.

        What turns out to be unreadable is noted here too; where unreadable images are left out, all of a part may be.
        """
        part = copy(self)
        part.indices = [index for index in self.indices if self.source.image_ids[index] in image_ids]
        part.augment_seed, part.teachers, part.is_part = None, None, True
        return part

    def labels(self) -> list[tuple[int, ...]]:
        """Classes of each image, in order, whether or not its file turns out to be readable; opens none."""
        labels = self.source.labels
        return [labels[index] for index in self.indices]

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

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Item | BadItem | BadImageError]:
        """The images of a batch, as torch's loaders ask for them; an unreadable one becomes a BadItem.

        In training a left-out image is followed by a substitute: every batch stays as large as planned and every
        process takes as many steps as the others, and none is left with a lone image, on which BatchNorm can't train.
        """
        items: list[Item | BadItem | BadImageError] = []
        for key in keys:
            item = self._item_or_bad(key)
            items.append(item)
            if isinstance(item, BadItem) and self.skip_bad and not isinstance(key, int):
                items.append(self._substitute(*key))
                if isinstance(items[-1], BadImageError):
                    break  # the search has been through the whole split; once is enough
        return items

    def _item_or_bad(self, key: int | tuple[int, int]) -> Item | BadItem:
        try:
            return self[key]
        except BadImageError as error:
            index = key if isinstance(key, int) else key[1]
            return BadItem(self.source.image_ids[self.indices[index]], str(error))

    def _substitute(self, epoch: int, index: int) -> Item | BadImageError:
        """A readable image of the split, another one each epoch; a function of epoch and index, as all else here."""
        start, reason = mix_seed(epoch, index), ""
        for step in range(len(self)):
            item = self._item_or_bad((epoch, (start + step) % len(self)))
            if isinstance(item, Item):
                return item
            reason = item.reason
        return nothing_left(len(self), reason)

    def _item(self, sample: Sample, seed: int | None) -> Item:
        taught = None if self.teachers is None else self.teachers(sample.image_id, tuple(sorted(set(sample.labels))))
        image, mask, cue_mask, maps = self.transform(sample, seed, None if taught is None else taught.maps)
        if mask is None and self.source.has_masks:
            mask = torch.full(image.shape[-2:], VOID, dtype=torch.uint8)
        labels = torch.zeros(self.num_classes)
        labels[list(sample.labels)] = 1
        # Augmentation flips and turns the objects out of their boxes.
        boxes = sample.boxes or () if self.source.has_boxes and seed is None else None
        original_size = (sample.image.height, sample.image.width)
        weights = None if taught is None else taught.weights
        return Item(image, labels, sample.image_id, mask, cue_mask, boxes, original_size, maps, weights)


def nothing_left(images: int, reason: str) -> BadImageError:
    """The error for a split (or a process's share of it) without a single readable image."""
    return BadImageError(f"All {images} image(s) are unreadable, nothing is left to work on. For example: {reason}")


class AllLostError(BadImageError):
    """No image of a loader is readable.

    Args:
        message: what a user is told.
        names: of the images.
    """

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = names


class BatchLoader(DataLoader[Batch]):
    """A DataLoader that raises what `collate` complains about, and goes on after a batch of unreadable images.

    In the main process: raised by a worker, the message would come buried in that process's traceback, and clearing
    up the loader would hang for 5 seconds a worker.
    """

    dataset: SampleDataset  # type: ignore[assignment]  # torch types a loader by its dataset's items

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch promises its private iterator class
        """The batches; raises BadImageError for one that cannot be used, or if no image at all is readable."""
        checked = map(_checked, super().__iter__())
        try:
            for batch in _carry_over(checked) if self.dataset.skip_bad else checked:
                self.dataset.unreadable.update(batch.skipped)
                yield batch
        except AllLostError as error:
            self.dataset.unreadable.update(error.names)
            if not self.dataset.is_part:
                raise

    def preview(self, images: int) -> Batch | None:
        """Some readable images, spread evenly over the data set, without disturbing the loader.

        Where unreadable images are skipped, one among those gives way to another; None if none is readable.

        Raises:
            BadImageError: If an image is unreadable and none may be left out.
        """
        length = len(self.dataset)
        wanted = [int(index) for index in np.linspace(0, length - 1, min(images, length)).round()]
        found: dict[int, Item] = {}
        for index in [*wanted, *(index for index in range(length) if index not in wanted)]:
            if len(found) == len(wanted):
                break
            (item,) = self.dataset.__getitems__([index])
            if isinstance(item, Item):
                found[index] = item
            elif isinstance(item, BadItem) and not self.dataset.skip_bad:
                raise BadImageError(item.reason)
        return _stacked([found[index] for index in sorted(found)], ()) if found else None


def make_loader(dataset: SampleDataset, **options: Any) -> BatchLoader:
    """A loader of Batch over a dataset.

    Args:
        dataset: The images; it says whether unreadable ones are left out (and named in `Batch.skipped`).
        **options: Of torch's DataLoader.
    """
    return BatchLoader(
        dataset,  # type: ignore[arg-type]  # as above: torch knows no difference between items and batches
        collate_fn=partial(collate, skip_bad=dataset.skip_bad),
        # A loader draws a base seed each epoch; from the global generator it would disturb the run's own stream.
        generator=torch.Generator(),
        **options,
    )


Collated = Batch | list[BadItem] | BadImageError


def collate(items: Sequence[Item | BadItem | BadImageError], *, skip_bad: bool) -> Collated:
    """Stack items into a Batch; give unreadable ones back if there is nothing else; return (not raise) an error."""
    good = [item for item in items if isinstance(item, Item)]
    bad = [item for item in items if isinstance(item, BadItem)]
    for item in items:
        if isinstance(item, BadImageError):
            return item
    if bad and not skip_bad:
        return BadImageError(bad[0].reason)
    return _stacked(good, tuple(item.image_id for item in bad)) if good else bad


def _stacked(good: Sequence[Item], skipped: tuple[str, ...]) -> Batch:
    return Batch(
        image=torch.stack([item.image for item in good]),
        labels=torch.stack([item.labels for item in good]),
        image_id=tuple(item.image_id for item in good),
        mask=_together([item.mask for item in good], torch.stack),
        cue_mask=_together([item.cue_mask for item in good], torch.stack),
        skipped=skipped,
        boxes=_all_or_none([item.boxes for item in good]),
        original_size=tuple(item.original_size for item in good),
        teacher_maps=_together([item.teacher_maps for item in good], torch.cat),
        teacher_weights=_together([item.teacher_weights for item in good], torch.cat),
    )


def _all_or_none(boxes: list[tuple[Box, ...] | None]) -> tuple[tuple[Box, ...], ...] | None:
    """Either every image of a batch has a tuple of boxes, maybe an empty one, or none has."""
    present = tuple(one for one in boxes if one is not None)
    return present or None


def _together(tensors: list[Tensor | None], how: Callable[[list[Tensor]], Tensor]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return how(present) if present else None


def _checked(batch: Any) -> Any:
    """The batch, or the error that came in its place, raised."""
    if isinstance(batch, BadImageError):
        try:
            raise batch
        finally:
            del batch  # else error -> traceback -> this frame -> error is a cycle that keeps the workers
    return batch


def _carry_over(batches: Iterator[Batch | list[BadItem]]) -> Iterator[Batch]:
    """The batches that hold an image; the names of the others go along with the next one, or with the last.

    Each batch is held back until the next is there, since only then it is known whether it is the last.
    """
    held: Batch | None = None
    lost: list[BadItem] = []
    for batch in batches:
        if isinstance(batch, list):
            lost += batch
            continue
        if held is not None:
            yield held
        held, lost = batch._replace(skipped=(*_names(lost), *batch.skipped)), []
    if held is None:
        raise AllLostError(str(nothing_left(len(lost), lost[0].reason if lost else "")), _names(lost))
    yield held._replace(skipped=(*held.skipped, *_names(lost)))


def _names(items: list[BadItem]) -> list[str]:
    return [item.image_id for item in items]
