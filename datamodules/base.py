"""What all data sets share: the options, the loaders, the seeded order. A data set adds its classes and `source`."""

from abc import abstractmethod
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
import torch.distributed as dist
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from datamodules.batch import Batch
from datamodules.dataset import SampleDataset, make_loader
from datamodules.images import BadImageError
from datamodules.sample import SPLITS, AbsentSplitError, EmptySplitError, Sample, SampleSource, Split, Teachers
from datamodules.sampler import EpochSampler, ShardSampler
from datamodules.transforms import IMAGENET_MEAN, IMAGENET_STD, SampleTransform

__all__ = [
    "IMAGENET_MEAN", "IMAGENET_STD", "SPLITS", "AbsentSplitError", "BadImageError", "DataOptions", "EmptySplitError",
    "ImageDataModule", "Sample", "SampleSource", "Split",
]  # fmt: skip


@dataclass
class DataOptions:
    """Where the images lie and how they are loaded.

    Args:
        data_root: Folder of the data set; see the data set's own description for the layout.
        image_size: Images are squashed to this height and width, in pixels.
        batch_size: Images a batch, on each device.
        workers: Processes that load images; 0 loads in the main process.
        augment: Flip, rotate (10 degrees) and colour-jitter the training images.
        on_bad_image: What to do about an unreadable image file: stop with its name, or leave it out and say so.
        limit_train: Use only so many training images, evenly spaced, for a quick trial.
        limit_val: The same for validation.
        limit_test: The same for testing.
        seed: Seed of the order of the training images and of their augmentation.
        mean: Mean per colour channel, of values in [0, 1], that images are normalised with.
        std: Standard deviation per colour channel, likewise.
        class_names: Names of the classes in the order of the classifier's outputs, where the data set leaves it open.
    """

    data_root: Path = Path("data")
    image_size: int = 224
    batch_size: int = 16
    workers: int = 2
    augment: bool = False
    on_bad_image: Literal["error", "skip"] = "error"
    limit_train: int | None = None
    limit_val: int | None = None
    limit_test: int | None = None
    seed: int = 42
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that would fail later, deep inside a loader."""
        self.data_root = Path(self.data_root)
        for name in ("image_size", "batch_size", "limit_train", "limit_val", "limit_test"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}.")
        if self.workers < 0:
            raise ValueError(f"--workers must be 0 or more, got {self.workers}.")
        if self.on_bad_image not in ("error", "skip"):
            raise ValueError(f"Unknown --on_bad_image '{self.on_bad_image}'; choose one of: error, skip.")
        if min(self.std) <= 0:
            raise ValueError(f"--std must be positive in every channel, got {self.std}.")


class ImageDataModule(LightningDataModule):
    """Loaders of `Batch` over the three splits of a data set.

    Create the Trainer with `use_distributed_sampler=False`: the samplers here shard by themselves, and evaluation
    must not be padded with duplicates.

    Args:
        options: Where the images lie and how they are loaded.
    """

    def __init__(self, options: DataOptions) -> None:
        super().__init__()
        self.options = options
        self._datasets: dict[Split, SampleDataset] = {}

    @property
    def single_label(self) -> bool:
        """Whether every image has exactly one class, so that a classifier's outputs are a softmax's.

        Else an image may have several classes or none, and each output stands for itself.
        """
        return False

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""

    @abstractmethod
    def source(self, split: Split) -> SampleSource:
        """The images of a split.

        Raises:
            AbsentSplitError: (a FileNotFoundError) If the split is not there; the message says what should lie where.
            FileNotFoundError: If files that belong to it are missing.
            ValueError: If a list or annotation is malformed.
        """

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classes)

    def is_available(self, split: Split) -> bool:
        """Whether a split is there as things are (a data set that downloads says no before it has).

        Raises:
            FileNotFoundError: If it is there, but not whole: a file that is listed is missing.
        """
        try:
            return len(self.dataset(split)) > 0
        except (AbsentSplitError, EmptySplitError):
            return False

    def dataset(self, split: Split) -> SampleDataset:
        """The split as a torch Dataset, its limit applied.

        Raises:
            EmptySplitError: (a ValueError) If the split holds no image.
        """
        if split not in SPLITS:
            raise ValueError(f"Unknown split '{split}'; choose one of: {', '.join(SPLITS)}.")
        if split not in self._datasets:
            self._datasets[split] = self._build(split)
        return self._datasets[split]

    def _build(self, split: Split) -> SampleDataset:
        options = self.options
        source = self.source(split)
        if len(source) == 0:
            raise EmptySplitError(
                f"Split '{split}' of {type(self).__name__} is empty: no image of it is listed under "
                f"{options.data_root}. Check --data_root and the data set's lists."
            )
        return SampleDataset(
            source,
            self.num_classes,
            SampleTransform(options.image_size, options.mean, options.std),
            limit={"train": options.limit_train, "val": options.limit_val, "test": options.limit_test}[split],
            augment_seed=options.seed if options.augment and split == "train" else None,
            skip_bad=options.on_bad_image == "skip",
        )

    @property
    def label_version(self) -> str:
        """Changes with the labels where the user may edit them; empty for a published data set."""
        return ""

    @property
    def image_versions(self) -> dict[str, str]:
        """Of each training and validation image, what changes with the photograph; empty for a published data set."""
        return {}

    def with_batch_size(self, batch_size: int) -> Self:
        """The same data set, already opened, in batches of another size."""
        twin = copy(self)
        twin.options = replace(self.options, batch_size=batch_size)
        return twin

    def split_ids(self) -> dict[str, list[str]]:
        """Names of the images of every split that is there, for writing down with the run."""
        return {split: self.dataset(split).image_ids for split in SPLITS if self.is_available(split)}

    def unreadable(self) -> list[str]:
        """Names of the images left out so far (`--on_bad_image skip`), in all splits.

        Ask on all processes of a run together: each knows only those that it met itself.
        """
        names = {name for dataset in self._datasets.values() for name in dataset.unreadable}
        _, world_size = _rank_and_world_size()
        if world_size > 1 and self.options.on_bad_image == "skip":
            shares: list[set[str]] = [set()] * world_size
            dist.all_gather_object(shares, names)
            names = names.union(*shares)
        return sorted(names)

    def setup(self, stage: str | None = None) -> None:
        """Open what a stage needs, so that a missing file is an error now and not after an epoch."""
        needed: dict[str | None, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in needed.get(stage, ()):
            self.dataset(split)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented if asked; another order each epoch."""
        rank, world_size = _rank_and_world_size()
        options = self.options
        dataset = self.dataset("train")
        sampler = EpochSampler(
            len(dataset), options.seed, rank=rank, world_size=world_size, batch_size=options.batch_size
        )
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation images in order."""
        return self.dataloader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test images in order."""
        return self.dataloader("test")

    def dataloader(self, split: Split) -> DataLoader[Batch]:
        """A split in order and never augmented, each image once over all ranks."""
        rank, world_size = _rank_and_world_size()
        dataset = self.dataset(split)
        return self._loader(dataset, ShardSampler(len(dataset), rank=rank, world_size=world_size))

    def part(self, split: Split, image_ids: Collection[str]) -> DataLoader[Batch]:
        """Some images of a split, in order and never augmented; all of them in every process that asks."""
        dataset = self.dataset(split).only(image_ids)
        return self._loader(dataset, ShardSampler(len(dataset)))

    def teach(self, split: Split, teachers: Teachers) -> None:
        """From now on give the images of a split the maps of teachers along."""
        self.dataset(split).teachers = teachers

    def _loader(self, dataset: SampleDataset, sampler: Sampler[int] | Sampler[tuple[int, int]]) -> DataLoader[Batch]:
        return make_loader(
            dataset,
            sampler=sampler,
            batch_size=self.options.batch_size,
            num_workers=self.options.workers,
            persistent_workers=self.options.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def _rank_and_world_size() -> tuple[int, int]:
    """Asked when a loader is made: by then Lightning has set up the process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
