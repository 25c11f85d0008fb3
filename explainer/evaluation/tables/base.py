"""What every table is: which maps it wants, how it scores an image, and how scores become rows.

B images, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.explanandum import Explanandum
from explainer.keys import digest

WITHOUT_CLASS = "without a class"
WITHOUT_MASK = "without a mask"
WRONGLY_CLASSIFIED = "classified wrongly"

Files = dict[str, list[Row]]
"""Rows by the name of the file, without suffix."""


@dataclass(frozen=True)
class SplitFacts:
    """What a split has, as far as tables need it.

    Args:
        has_masks: whether any image has a segmentation mask.
        has_boxes: whether any image has boxes.
        has_cues: whether a shortcut is planted.
    """

    has_masks: bool
    has_boxes: bool
    has_cues: bool


class Table(ABC):
    """One kind of evidence.

    Subclasses say which maps they want and score them, image by image; the loop over images and methods, the maps and
    the bookkeeping are not theirs.

    Args:
        explanandum: the classifier.
        options: of the table; all of them decide the scores.

    Attributes:
        name: of the table on the command line and of its first file.
        extra_methods: methods that the table shows besides those asked for.
        own_rows: rows that need no method.
        wants_maps: False for a table that takes no maps but calls the method by itself.
        version: of the way in which it scores; another one makes kept scores invalid.
        calls_methods: whether it calls methods in `score`, so that their errors may come from there.
    """

    name: ClassVar[str]
    extra_methods: ClassVar[tuple[str, ...]] = ()
    own_rows: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    wants_maps: ClassVar[bool] = True
    calls_methods: ClassVar[bool] = False

    def __init__(self, explanandum: Explanandum, options: Any = None) -> None:
        self.explanandum = explanandum
        self.options = options

    @property
    def key(self) -> str:
        """Equal for tables that score alike, of however many images they are made."""
        options = {} if self.options is None else asdict(self.options)
        return digest(self.name, self.version, {name: value for name, value in options.items() if name != "images"})

    def circumstances(self, device: torch.device) -> str:
        """What else a score depends on, such as the machine; kept scores count only if they are the same."""
        return ""

    @property
    def limit(self) -> int | None:
        """Images that the table is made of, if not all: so many, evenly spaced over the split."""
        return None

    def unsuited(self, split: SplitFacts) -> str:
        """Why the table can't be made of a split; empty if it can."""
        return ""

    def refuses(self, *, is_trained: bool) -> str:
        """Why the table has no row for a trained method, or for one that is not trained; empty if it has."""
        return ""

    @abstractmethod
    def asks(self, images: Images) -> Tensor:
        """Which classes of which images it wants maps of, bool [B,C]."""

    def left_out(self, images: Images) -> list[str]:
        """For each image why the table has no place for it; empty if it has."""
        return [WITHOUT_CLASS if not asked else "" for asked in self.asks(images).any(dim=1).tolist()]

    @abstractmethod
    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """The rows of each image: one, or one for each class.

        Args:
            images: those that are not left out.
            maps: of the classes that the table asked for, of all of these images.
            named: the method that made them.
        """

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """The same for one of `own_rows`."""
        raise NotImplementedError

    @abstractmethod
    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """All scores -> the table's files; the first is named as the table."""

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """The table's main numbers: one row for each of `scores`, in their order; None where there is none.

        Tables override this where their first file has several rows a method, or to save the work for the others.
        """
        return self.summarise(scores)[self.name]

    def class_name(self, index: int) -> str:
        """Of the explanandum's classes."""
        return self.explanandum.card.classes[index]


def grouped(values: Sequence[Row], image_index: Tensor, images: int) -> list[list[Row]]:
    """Rows of maps -> rows of images."""
    found: list[list[Row]] = [[] for _ in range(images)]
    for row, index in zip(values, image_index.tolist(), strict=True):
        found[index].append(row)
    return found


def at_least(option: str, value: float, least: float) -> None:
    """An option must not be smaller.

    Raises:
        ValueError: if it is; said before the first image, not after it.
    """
    if not value >= least:  # also if NaN
        raise ValueError(f"{option} is {value}; give at least {least}.")


def columns(**values: Tensor) -> list[Row]:
    """Tensors [N] -> N rows."""
    lists = {name: value.tolist() for name, value in values.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def nobody(images: Images) -> Tensor:
    """Asks for no map, bool [B,C]."""
    return torch.zeros_like(images.labels)
