"""From options to training images that come with their teacher maps."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from explainer.distillation.cache import BYTES_BESIDES, TeacherCache
from explainer.distillation.options import DistillOptions
from explainer.distillation.stage import FLAT, Classes, TeacherStage, share
from explainer.distillation.teachers import KeptMaps, Teacher, looks, make_teachers, map_size
from explainer.explanandum import Explanandum
from explainer.files import tidy
from explainer.machine import say

SPLITS = ("train", "val")
"""Those that the Explainer learns from, and is compared with its teachers on."""
SHOWN = 3
"""Failures that are printed; the cache keeps the reasons of all."""


CLASSES_AN_IMAGE = 3
"""For an estimate of space: as many as in COCO."""


class IncompleteError(ValueError):
    """Maps are missing that should have been computed."""


def bytes_of_maps(options: DistillOptions, datamodule: Any) -> int:
    """About how much the maps take on the disk."""
    images = sum(len(datamodule.dataset(split)) for split in SPLITS) / options.part()[1]
    classes = 1 if datamodule.single_label else CLASSES_AN_IMAGE
    a_map = map_size(options, datamodule.options.image_size) ** 2 + BYTES_BESIDES
    return round(images * classes * a_map * len(options.teachers))


def prepare_teachers(
    options: DistillOptions,
    folder: Path,
    explanandum: Explanandum,
    datamodule: Any,
    data: Any,
    make_trainer: Callable[[], Trainer],
    precision: str,
    *,
    again: bool = False,
) -> list[Teacher]:
    """Compute what is not kept yet of the teachers' maps of the training and validation images.

    Args:
        options: which teachers, and which part of the images.
        folder: of the cache.
        explanandum: the classifier.
        datamodule: an ImageDataModule.
        data: what tells its images from those of other data sets, JSON-serialisable.
        make_trainer: a Trainer with `inference_mode=False`.
        precision: of the computation, as Lightning names it.
        again: ask once more where a teacher failed earlier.

    Raises:
        IncompleteError: if maps are missing afterwards.
    """
    cache = TeacherCache(folder)
    versions = datamodule.image_versions
    workers = datamodule.options.workers
    teachers = make_teachers(options, cache, explanandum, precision, data, versions, workers=workers)
    for teacher in teachers:
        tidy(teacher.store.folder)
    images = datamodule.with_batch_size(options.batch_size)
    for split in SPLITS:
        dataset = images.dataset(split)
        wanted = dict(zip(dataset.image_ids, (sorted(set(labels)) for labels in dataset.labels()), strict=True))
        _compute(TeacherStage(explanandum, teachers, wanted, images, split, options.part(), again), make_trainer())
    return teachers


def _compute(stage: TeacherStage, trainer: Trainer) -> None:
    trainer.test(stage, verbose=False)
    trainer.strategy.barrier("teacher maps")  # only now have all processes written theirs
    for failure in stage.failures[:SHOWN]:
        print(failure, flush=True)
    ours = share(stage.wanted, stage.shard)
    left_out = set(stage.datamodule.unreadable())
    readable = {name: classes for name, classes in ours.items() if name not in left_out}
    for teacher in stage.teachers:
        lacking = _lacking(teacher, readable)
        # Together, or those that see all maps would wait for those that don't.
        if not trainer.strategy.reduce_boolean_decision(not lacking, all=True):
            raise IncompleteError(
                f"{teacher.name} has no map of {len(lacking)} of {len(ours)} {stage.split} images{_first(lacking)}, as "
                "this process sees the cache. All must see the same folder (--distill.cache); then run again."
            )
        _tell(teacher, stage.split, readable)


def _first(names: set[str]) -> str:
    return f", e.g. {min(names)}" if names else ""


def _lacking(teacher: Teacher, wanted: Classes) -> set[str]:
    """The images whose maps are not all there; a shared disk is given some time to show what others wrote."""
    lacking: set[str] = set()
    teacher.store.refresh()
    for _ in looks(teacher.store):
        lacking = set(teacher.store.missing(wanted))
        if not lacking:
            break
    return lacking


def _tell(teacher: Teacher, split: str, wanted: Classes) -> None:
    """Say what is kept.

    Raises:
        IncompleteError: if the teacher failed on every image, other than by a flat map.
    """
    maps = sum(map(len, wanted.values()))
    failed = teacher.store.failures(wanted)
    if failed and len(failed) == maps and set(failed) != {FLAT}:  # the few images of a shard may all be flat
        raise IncompleteError(
            f"{teacher.name} has no map of any {split} image, e.g. {failed[0]}. Choose another teacher."
        )
    without = f", and none of {len(failed)} others ({failed[0]} …)" if failed else ""
    say(f"Teacher {teacher.name}: {maps - len(failed)} {split} maps are kept{without}.", flush=True)


def attach(datamodule: Any, teachers: Sequence[Teacher], options: DistillOptions) -> None:
    """From now on the training and validation images come with their maps."""
    stores = [teacher.store for teacher in teachers]
    for split in SPLITS:
        datamodule.teach(split, KeptMaps(stores, options.combine))


def describe(folder: Path) -> str:
    """What a cache holds, for a person."""
    cache = TeacherCache(folder)
    lines = [f"Teacher maps in {folder}:"]
    for info in cache.info():
        about = info.about
        options = ",".join(f"{name}={value}" for name, value in about["options"].items())
        lines += [
            f"{info.key}  {about['teacher']}:{options}",
            f"    of {about['explanandum']} {about['fingerprint']}, {about['data']}, "
            f"{about['preprocessing']['size']} px, preprocessing {about['preprocessing']['version']}, "
            f"{about['precision']}, versions {about['versions']}",
            f"    {info.maps} maps of {about['map_size']}×{about['map_size']} pixels of {info.images} images "
            f"in {info.shards} files, {info.bytes / 2**20:.1f} MiB"
            + (f", {info.failed} failed" if info.failed else "")
            + (f", {info.damaged} files damaged" if info.damaged else ""),
        ]
    return "\n".join(lines if len(lines) > 1 else [*lines, "nothing"])
