"""The embedded data set: drawn scenes of several shapes on photographs, with exact masks and no files to fetch.

H×W pixels; masks as in `batch.py`: 0 background, i + 1 for class i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from PIL import Image

from datamodules.base import SPLITS, DataOptions, ImageDataModule, Sample, SampleSource, Split
from datamodules.shapes_scene import CLASSES, Scene, draw_scene, place_sticker

SMALLEST_IMAGE = 32
CACHE_BYTES = 512 * 2**20
"""Drawing takes as long as a training step of a small network, so a split that fits in here is drawn only once."""


@dataclass
class ShapesOptions:
    """The drawn data set and its planted shortcut.

    Args:
        train_size: Scenes to train on.
        val_size: Scenes to validate on.
        test_size: Scenes to test on.
        seed: Seed of the scenes.
        shortcut_class: Class that a sticker beside the objects gives away (none: no sticker).
        shortcut_probability: P(sticker | class present) = 1 - P(sticker | class absent); 0.5 tells nothing.
    """

    train_size: int = 4000
    val_size: int = 400
    test_size: int = 400
    seed: int = 0
    shortcut_class: str | None = None
    shortcut_probability: float = 0.95

    def __post_init__(self) -> None:
        """Refuse values that no scene could be drawn with."""
        for split in SPLITS:
            if self.size(split) < 1:
                raise ValueError(f"{split}_size is {self.size(split)}; give at least 1 scene.")
        if self.seed < 0:
            raise ValueError(f"The seed of the scenes is {self.seed}; give 0 or more.")
        if self.shortcut_class is not None and self.shortcut_class not in CLASSES:
            raise ValueError(f"Unknown shortcut_class '{self.shortcut_class}'; choose one of: {', '.join(CLASSES)}.")
        if not 0 <= self.shortcut_probability <= 1:
            raise ValueError(f"shortcut_probability is {self.shortcut_probability}; give a number from 0 to 1.")

    def size(self, split: Split) -> int:
        """Number of scenes of a split."""
        return {"train": self.train_size, "val": self.val_size, "test": self.test_size}[split]


class SceneLabels(Sequence[tuple[int, ...]]):
    """Classes of each scene: those that are seen once it is drawn, so whoever asks for some has only these drawn."""

    def __init__(self, scenes: "ShapesSource") -> None:
        self.scenes = scenes
        self._known: dict[int, tuple[int, ...]] = {}  # a split may be too large to keep its scenes

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.scenes)

    @overload
    def __getitem__(self, index: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        """Of one scene, or of several."""
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        if index not in self._known:
            self._known[index] = self.scenes[index].labels
        return self._known[index]


class ShapesSource:
    """The scenes of one split; each is a function of (seed, split, index) alone, at one image size."""

    has_masks = True
    has_boxes = False

    def __init__(self, split: Split, image_size: int, shapes: ShapesOptions) -> None:
        if image_size < SMALLEST_IMAGE:
            raise ValueError(f"image_size is {image_size}; shapes can be told apart from {SMALLEST_IMAGE} pixels on.")
        self.split, self.image_size, self.shapes = split, image_size, shapes
        self.image_ids: Sequence[str] = [f"{split}_{index:05d}" for index in range(shapes.size(split))]
        self.has_cues = shapes.shortcut_class is not None
        self._drawn: dict[int, Sample] | None = {} if len(self) * 5 * image_size**2 <= CACHE_BYTES else None

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.image_ids)

    @cached_property
    def labels(self) -> Sequence[tuple[int, ...]]:
        """Classes of each scene."""
        return SceneLabels(self)

    def __getitem__(self, index: int) -> Sample:
        """Scene `index`, drawn when it is first asked for."""
        if not 0 <= index < len(self):
            raise IndexError(f"Scene {index} of {len(self)} in split '{self.split}'.")
        if self._drawn is None:
            return self._draw(index)
        if index not in self._drawn:
            self._drawn[index] = self._draw(index)
        return self._drawn[index]

    def _draw(self, index: int) -> Sample:
        scene = draw_scene(self._generator(index, stream=0), self.image_size)
        labels = tuple(int(value) - 1 for value in np.unique(scene.mask) if value)
        cue = self._add_cue(index, scene, labels) if self.has_cues else None
        image, mask = Image.fromarray(scene.picture), Image.fromarray(scene.mask)
        return Sample(image, labels, self.image_ids[index], mask, cue)

    def _generator(self, index: int, stream: int) -> np.random.Generator:
        """A stream of its own for the cue (1), so that the scene (0) is the same with and without it."""
        key = (SPLITS.index(self.split), index, stream)
        return np.random.default_rng(np.random.SeedSequence(self.shapes.seed, spawn_key=key))

    def _add_cue(self, index: int, scene: Scene, labels: tuple[int, ...]) -> Image.Image:
        rng = self._generator(index, stream=1)
        given_away = any(CLASSES[label] == self.shapes.shortcut_class for label in labels)
        probability = self.shapes.shortcut_probability
        cue = np.zeros_like(scene.touched)
        if rng.random() < (probability if given_away else 1 - probability):
            cue = place_sticker(rng, scene.picture, scene.touched)
        return Image.fromarray(np.where(cue, np.uint8(255), np.uint8(0)))


class ShapesDataModule(ImageDataModule):
    """Drawn scenes for training, validation and test."""

    def __init__(self, options: DataOptions, shapes: ShapesOptions | None = None) -> None:
        super().__init__(options)
        self.shapes = shapes or ShapesOptions()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the shapes, in the order of their labels."""
        return CLASSES

    def source(self, split: Split) -> SampleSource:
        """The scenes of `split`, drawn at the size the batches have."""
        return ShapesSource(split, self.options.image_size, self.shapes)
