"""Teachers: attribution methods whose maps are kept, and how their maps come to the training images.

K classes of an image, T teachers, h×w pixels of a kept map.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from datamodules.batch import TeacherMaps
from explainer.attribution import AttributionMethod
from explainer.attribution.spec import MethodSpec, deciding_options, parse_method
from explainer.classifiers import build_classifier
from explainer.distillation.cache import Entry, TeacherCache, TeacherStore
from explainer.distillation.options import Combination, DistillOptions
from explainer.explanandum import ClassifierCard, Explanandum

PREPROCESSING = 1
"""Raised with any change of how photographs become the tensors that teachers see."""
LEAST_SCORE = 1e-6
"""A map in which the explanandum recognises nothing still counts where no other teacher has a better one."""


WAITS = (0.5, 2.0, 8.0, 30.0, 60.0)
"""Seconds between looks for what should be there: a shared disk may take its time."""


def looks(store: TeacherStore) -> Iterator[None]:
    """Once, and then again after each wait, with what has been written to the store by then."""
    yield
    for seconds in WAITS:
        time.sleep(seconds)
        store.refresh()
        yield


class MissingMapError(ValueError):
    """A teacher map is not there that should be."""


@dataclass(frozen=True)
class Teacher:
    """A method, and where its maps are kept.

    Args:
        name: as it was asked for.
        method: the method.
        store: its maps.
    """

    name: str
    method: AttributionMethod
    store: TeacherStore


def teacher_specs(options: DistillOptions) -> list[MethodSpec]:
    """The methods that the options name.

    Raises:
        ValueError: for an unknown method or option, and for one that must be trained first.
    """
    specs = [parse_method(text) for text in options.teachers]
    for text, spec in zip(options.teachers, specs, strict=True):
        if spec.is_trained:
            raise ValueError(f"'{text}' can't teach: it needs a trained Explainer itself. Choose another method.")
    maps = [(spec.name, deciding_options(spec)) for spec in specs]
    for index, text in enumerate(options.teachers):
        if maps[index] in maps[:index]:
            raise ValueError(f"--distill.teachers names a teacher twice, the second time as '{text}'.")
    return specs


def try_teachers(options: DistillOptions, card: ClassifierCard) -> None:
    """Build the methods for a classifier without weights, so that a wrong option is an error now and not after hours.

    Raises:
        ValueError: as `teacher_specs`, and for a value that a method does not take.
    """
    specs = teacher_specs(options)
    with torch.device("meta"):  # costs nothing
        model, _ = build_classifier(card.architecture, len(card.classes), "none", card.hidden, card.image_size)
    for text, spec in zip(options.teachers, specs, strict=True):
        try:
            spec.build(Explanandum(model, card))
        except (TypeError, ValueError) as error:
            raise ValueError(f"--distill.teachers {text}: {error}") from error


def make_teachers(
    options: DistillOptions,
    cache: TeacherCache,
    explanandum: Explanandum,
    precision: str,
    data: Any,
    versions: Mapping[str, str],
    **resources: Any,
) -> list[Teacher]:
    """The teachers that the options name.

    Args:
        options: which.
        cache: of maps.
        explanandum: the classifier.
        precision: of the computation, as Lightning names it.
        data: whatever tells its images from those of other data sets, JSON-serialisable.
        versions: of the images that have some.
        **resources: what a method may take besides, e.g. the number of `workers`.

    Raises:
        ValueError: as `teacher_specs`.
    """
    teachers = []
    for text, spec in zip(options.teachers, teacher_specs(options), strict=True):
        method = spec.build(explanandum, **resources)
        card = explanandum.card
        about = {
            "teacher": spec.name,
            "options": deciding_options(spec),
            "versions": method.versions,
            "explanandum": card.architecture,
            "fingerprint": explanandum.fingerprint,
            "preprocessing": {"version": PREPROCESSING, "size": card.image_size, "mean": card.mean, "std": card.std},
            "precision": precision,
            "data": data,
            "map_size": map_size(options, card.image_size),
        }
        teachers.append(Teacher(text, method, cache.store(about, versions)))
    return teachers


def map_size(options: DistillOptions, image_size: int) -> int:
    """Height and width of a kept map, in pixels."""
    return options.map_size or max(1, image_size // 4)


class KeptMaps:
    """The kept maps of several teachers, as a data set asks for them.

    Args:
        stores: of the T teachers, with maps of one size.
        combine: equal, or by score.
    """

    def __init__(self, stores: Sequence[TeacherStore], combine: Combination) -> None:
        self.stores = list(stores)
        self.combine = combine

    def __call__(self, image_id: str, labels: tuple[int, ...]) -> TeacherMaps:
        """Maps and weights of an image's classes; where a teacher failed, its weight is 0.

        Raises:
            MissingMapError: if a map is not there, though all were when training began.
        """
        entries = [self._entry(store, image_id, labels) for store in self.stores]
        size = self.stores[0].map_size
        maps = torch.zeros(len(labels), len(entries), size, size, dtype=torch.uint8)
        weights = torch.zeros(len(labels), len(entries))
        for column, entry in enumerate(entries):
            for row, label in enumerate(labels):
                if not entry[label].failed:
                    maps[row, column] = entry[label].map
                    score = max(entry[label].score, LEAST_SCORE)
                    weights[row, column] = score if self.combine == "score" else 1.0
        return TeacherMaps(maps, weights)

    @staticmethod
    def _entry(store: TeacherStore, image_id: str, labels: tuple[int, ...]) -> Entry:
        for _ in looks(store):
            entry = store.read(image_id)
            if entry.keys() >= set(labels):
                return entry
        raise MissingMapError(
            f"A map of {image_id} has vanished from {store.folder}, or is damaged. Go on with --resume, which computes "
            "what is missing."
        )
