"""What a data set hands out, one image at a time, before it is resized and batched."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from PIL import Image

from datamodules.batch import Box, TeacherMaps

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class EmptySplitError(ValueError):
    """A split holds no image."""


class AbsentSplitError(FileNotFoundError):
    """A split as a whole is not there, e.g. not downloaded; a listed file that is missing is another matter."""


class Sample(NamedTuple):
    """One image as the data set has it.

    Attributes:
        image: Mode "RGB", any size.
        labels: Indices of the present classes.
        image_id: Name, unique within the data set.
        mask: Mode "L", as large as the image: 0 background, i + 1 for class i, 255 void.
        cue_mask: Mode "L", as large as the image: 255 where a planted shortcut lies, else 0.
        boxes: The objects; None if the image has no annotation of them.
    """

    image: Image.Image
    labels: tuple[int, ...]
    image_id: str
    mask: Image.Image | None = None
    cue_mask: Image.Image | None = None
    boxes: tuple[Box, ...] | None = None


class Teachers(Protocol):
    """Where teacher maps come from."""

    def __call__(self, image_id: str, labels: tuple[int, ...]) -> TeacherMaps:
        """Of the classes of an image, given in ascending order."""
        ...


class SampleSource(Protocol):
    """One split of one data set, with random access; reading an item may raise BadImageError."""

    @property
    def image_ids(self) -> Sequence[str]:
        """Names of the images, in order."""
        ...

    @property
    def labels(self) -> Sequence[tuple[int, ...]]:
        """Indices of the classes of each image, in order, as its sample has them; known without opening image files."""
        ...

    @property
    def has_masks(self) -> bool:
        """Whether any image of the split has a mask."""
        ...

    @property
    def has_cues(self) -> bool:
        """Whether every image of the split has a cue mask."""
        ...

    @property
    def has_boxes(self) -> bool:
        """Whether any image of the split has boxes."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """The image at this position."""
        ...
