"""Computing teacher maps: each once, whatever is killed and however many processes and jobs share the work.

B images, C classes, N maps, H×W pixels of an image, h×w of a kept map.
"""

import math
import random
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import Batch
from explainer.distillation.cache import Entry, TeacherMap
from explainer.distillation.teachers import Teacher
from explainer.evaluation.images import Images
from explainer.evaluation.maps import MapsByPair, computed, reason_of
from explainer.explanandum import Explanandum
from explainer.masking import apply_mask
from explainer.metrics import to_unit_range

IMAGES_A_SHARD = 64
SECONDS_A_SHARD = 300.0
"""What is computed is written down after so many images, or so long: a kill loses no more than that."""

PASSING = (OSError, MemoryError, BrokenExecutor, torch.OutOfMemoryError, torch.AcceleratorError)
"""Errors of the machine, not of the image, which must not be kept as if they were the image's."""
PASSING_MESSAGE = re.compile(r"CUDA|cuDNN|CUBLAS|.*alloc_cpu|.*not enough memory")
"""Likewise, of errors that PyTorch gives no class of their own."""
FLAT = "the map is flat"
"""It says nothing of the class; to pull the mask of a present class to zero would say something."""

Classes = Mapping[str, Sequence[int]]
"""Of each image, by its name."""


class NoImages(Dataset[Any]):
    """What is left to do for a process that has done its share."""

    def __len__(self) -> int:
        """None."""
        return 0

    def __getitem__(self, index: int) -> Any:
        """Never asked for."""
        raise IndexError(index)


class TeacherStage(LightningModule):
    """Ask the teachers for the maps that are not kept yet; run it with `Trainer.test` and `inference_mode=False`.

    Of several processes each takes every so-manieth image of the same list, whatever the others have done by then, so
    that no map is computed twice.

    Args:
        explanandum: the classifier.
        teachers: that are asked.
        wanted: the images and their classes.
        datamodule: has `part(split, image_ids)`.
        split: of the images.
        shard: index and number of the jobs that share the images; this job's is (0, 1) if it has all.
        again: ask once more where a teacher failed earlier.
    """

    def __init__(
        self,
        explanandum: Explanandum,
        teachers: Sequence[Teacher],
        wanted: Classes,
        datamodule: Any,
        split: str,
        shard: tuple[int, int] = (0, 1),
        again: bool = False,
    ) -> None:
        super().__init__()
        self.explanandum: Explanandum = explanandum
        self.teachers = list(teachers)
        self.wanted = wanted
        self.datamodule = datamodule
        self.split = split
        self.shard = shard
        self.again = again
        self.networks = nn.ModuleList(part for teacher in teachers for part in teacher.method.modules)
        self.failures: list[str] = []
        self._lacking: dict[str, dict[str, list[int]]] = {}
        self._found: dict[str, dict[str, Entry]] = {}
        self._written = time.monotonic()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a process that has nothing left to do

    def test_dataloader(self) -> DataLoader[Batch]:
        """The images of this process that lack a map; maybe none, while others have some left."""
        mine = share(self.wanted, self.shard, (self.global_rank, self.trainer.world_size))
        self._lacking = {teacher.name: teacher.store.missing(mine, failed=self.again) for teacher in self.teachers}
        names = {name for lacking in self._lacking.values() for name in lacking}
        loader: DataLoader[Batch] = self.datamodule.part(self.split, names) if names else DataLoader(NoImages())
        return loader

    def test_step(self, batch: Batch, _batch_index: int) -> None:
        """Compute and keep the maps of a batch."""
        images = Images(batch, self.explanandum)
        for teacher in self.teachers:
            lacking = self._lacking[teacher.name]
            wanted = torch.zeros_like(images.labels)
            for index, name in enumerate(images.names):
                wanted[index, list(lacking.get(name, ()))] = True
            for name, entry in taught(teacher, images, wanted).items():
                self._found.setdefault(teacher.name, {})[name] = entry
        if self._is_due():
            self._write()

    def on_test_epoch_end(self) -> None:
        """Write the rest."""
        self._write()

    def _is_due(self) -> bool:
        most = max((len(entries) for entries in self._found.values()), default=0)
        return most >= IMAGES_A_SHARD or time.monotonic() - self._written >= SECONDS_A_SHARD

    def _write(self) -> None:
        for teacher in self.teachers:
            entries = self._found.pop(teacher.name, {})
            self.failures += [
                f"{teacher.name} failed on {name}: {kept.failed}"
                for name, entry in entries.items()
                for kept in entry.values()
                if kept.failed
            ]
            if entries:
                teacher.store.add(entries)
        self._written = time.monotonic()


def share(wanted: Classes, *parts: tuple[int, int]) -> dict[str, list[int]]:
    """Every n-th image from the i-th on, for each part (i, n) in turn; a function of the list alone.

    The images are shuffled before each division, each time in another way: if other jobs have done a part, as divided
    by another number, about the same is left of every share.
    """
    names = list(wanted)
    for level, (index, count) in enumerate(parts):
        names = random.Random(f"{level}/{count}").sample(names, len(names))[index::count]
    return {name: list(wanted[name]) for name in names}


def is_passing(error: Exception) -> bool:
    """Whether an error is the machine's (memory, disk, device, a killed worker) and may be gone another time."""
    by_message = isinstance(error, RuntimeError) and PASSING_MESSAGE.match(str(error))
    return isinstance(error, PASSING) or bool(by_message)


def taught(teacher: Teacher, images: Images, wanted: Tensor) -> dict[str, Entry]:
    """What a teacher says of the images of a batch, as it is kept.

    Args:
        teacher: that is asked.
        images: the batch.
        wanted: bool [B,C].

    Raises:
        RuntimeError: for an error that is the machine's; nothing of the batch is kept then.
    """
    try:
        found, failures = computed(teacher.method, images, wanted, raised=is_passing)
    except Exception as error:
        raise RuntimeError(
            f"{teacher.name} met an error that is not the image's: {reason_of(error)}. Maps written before stay; "
            "once the cause is mended, the same command goes on."
        ) from error
    size = teacher.store.map_size
    entries: dict[str, Entry] = {}
    kept = compact(found, teacher.method.unit_range, size)
    for (index, target), value, score in zip(found, kept, scores(images, found, kept), strict=True):
        if value.min() == value.max():
            failures[index, target] = FLAT
        elif math.isfinite(score):
            entries.setdefault(images.names[index], {})[target] = TeacherMap(value.cpu(), score)
        else:
            failures[index, target] = f"the explanandum gives {score} for the image masked with the map"
    for (index, target), reason in failures.items():
        nothing = torch.zeros(size, size, dtype=torch.uint8)
        entries.setdefault(images.names[index], {})[target] = TeacherMap(nothing, 0.0, reason)
    return entries


def compact(found: MapsByPair, unit_range: bool, size: int) -> Tensor:
    """Raw maps [H,W] -> uint8 [N,size,size]: masks as they are, others min-max scaled, averaged within each cell."""
    if not found:
        return torch.zeros(0, size, size, dtype=torch.uint8)
    maps = torch.stack(list(found.values()))
    scaled = maps.clamp(0, 1) if unit_range else to_unit_range(maps)
    return (F.adaptive_avg_pool2d(scaled, size) * 255).round().to(torch.uint8)


def scores(images: Images, found: MapsByPair, kept: Tensor) -> list[float]:
    """The explanandum's probability of each map's class, in the image masked with the map as it is kept, in [0, 1]."""
    if not found:
        return []
    pairs = torch.tensor(list(found), device=images.image.device)
    masks = F.interpolate(kept[:, None].float() / 255, images.image.shape[-2:], mode="bilinear")[:, 0]
    with torch.no_grad():
        logits = images.explanandum(apply_mask(images.image[pairs[:, 0]], masks)).float()
        probabilities = images.explanandum.probabilities(logits)
    return probabilities.gather(1, pairs[:, 1:])[:, 0].tolist()
