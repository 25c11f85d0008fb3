"""ImageNet (ILSVRC 2012): one class an image, one folder a class, as `val/n01440764/ILSVRC2012_val_00000293.JPEG`.

`test` is ImageNet's validation folder val/, on which the papers report (its test labels are not published); `train` and
`val` are parts of train/. classes.txt holds one class a line, in the order of the classifier's outputs, each as
`n01440764`, `n01440764 tench` or `0 n01440764 tench`; classes without images are fine. Without it, all 1000 class
folders must be there, whose order is standard. Boxes, where there are some: annotations/val/ILSVRC2012_val_00000293.xml
or annotations/val/n01440764/ILSVRC2012_val_00000293.xml, in the XML format of ImageNet and PASCAL VOC.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.models import ResNet50_Weights

from datamodules.annotations import read_annotation
from datamodules.base import ImageDataModule
from datamodules.batch import Box
from datamodules.images import BadImageError, load_image
from datamodules.sample import AbsentSplitError, Sample, Split

WNID = re.compile(r"n\d{8}")
STANDARD_FOLDERS = (1000, "n01440764", "n15075141")
"""Number of ILSVRC 2012's classes, the first and the last; sorted, they are in the standard order."""
SPLIT_SEED = 42
"""Of the division of train/: a constant, so that --seed does not move images between train and val."""
TRAIN_SHARE = 0.96
"""Leaves some 51,000 images for `val`, as many as ImageNet's own validation folder has."""
FOLDER_OF: dict[Split, str] = {"train": "train", "val": "train", "test": "val"}


class ImageNetClass(NamedTuple):
    """A class by its WordNet id, which names its folders, and by its name for readers."""

    wnid: str
    name: str


class ImageNetDataModule(ImageDataModule):
    """ImageNet; `data_root` holds val/ and train/, one of which is enough, and classes.txt. Nothing is downloaded."""

    @property
    def single_label(self) -> bool:
        """Always."""
        return True

    @cached_property
    def _classes(self) -> tuple[ImageNetClass, ...]:
        root = self.options.data_root
        listed = root / "classes.txt"
        return read_classes(listed) if listed.is_file() else _standard_classes(root)

    @property
    def classes(self) -> tuple[str, ...]:
        """Readable names; where two classes share one (crane: bird and machine) the WordNet id tells them apart."""
        times = Counter(one.name for one in self._classes)
        return tuple(one.name if times[one.name] == 1 else f"{one.name} ({one.wnid})" for one in self._classes)

    @property
    def label_version(self) -> str:
        """Hash of the classes' order."""
        return hashlib.sha256(" ".join(one.wnid for one in self._classes).encode()).hexdigest()[:16]

    def source(self, split: Split) -> "ImageNetSource":
        """Test is val/; train and val are a fixed division of train/.

        Raises:
            AbsentSplitError: (a FileNotFoundError) If the folder is missing.
            ValueError: If it has no class folders, unknown ones, or too few to tell the classes' indices.
        """
        root, folder = self.options.data_root, self.options.data_root / FOLDER_OF[split]
        if not folder.is_dir():
            raise AbsentSplitError(
                f"'{folder}' is missing, which split '{split}' is read from. Set --data_root to the folder that holds "
                "val/ (split test), train/ (splits train and val), each with one folder a class such as "
                "val/n01440764/*.JPEG, and classes.txt."
            )
        index_of = {one.wnid: index for index, one in enumerate(self._classes)}
        _check_folders(folder, index_of)
        images = make_dataset(folder, index_of, IMG_EXTENSIONS, allow_empty=True)
        annotations = root / "annotations" / FOLDER_OF[split]
        images = images if split == "test" else _part(images, split)
        return ImageNetSource(root, images, tuple(index_of), annotations if annotations.is_dir() else None)


class ImageNetSource:
    """Some images of a folder.

    Args:
        root: The folder of the data set.
        images: File and class index of each.
        wnids: Of the classes, in order.
        annotations: Folder of their XML files, or of the classes' folders of these, which only some images have.
    """

    def __init__(
        self,
        root: Path,
        images: Sequence[tuple[str, int]],
        wnids: Sequence[str],
        annotations: Path | None = None,
    ) -> None:
        self.root, self.wnids, self.annotations = root, wnids, annotations
        self.image_ids = [Path(path).relative_to(root).as_posix() for path, _ in images]
        self.labels = [(label,) for _, label in images]
        self.has_masks = False
        self.has_cues = False
        self.has_boxes = annotations is not None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """The image at this position; raises BadImageError if it or its annotation is unusable."""
        # Boxes were drawn on the pixels as stored, whatever a camera wrote into the EXIF block.
        image = load_image(self.root / self.image_ids[index], use_exif=False)
        return Sample(image, self.labels[index], self.image_ids[index], boxes=self.boxes(index))

    def boxes(self, index: int) -> tuple[Box, ...]:
        """The objects of the image at this position; none if it has no annotation.

        Raises:
            BadImageError: If the annotation is malformed or names a class that is not in the list.
        """
        if self.annotations is None:
            return ()
        _, wnid, *_, name = Path(self.image_ids[index]).parts
        for file in (self.annotations / name, self.annotations / wnid / name):
            if file.with_suffix(".xml").is_file():
                return _read_boxes(file.with_suffix(".xml"), self.wnids)
        return ()


def read_classes(path: Path) -> tuple[ImageNetClass, ...]:
    """Read classes.txt, its three kinds of line as in the module's description; of synonyms the first is taken.

    Raises:
        ValueError: If a line is of none of these kinds, an index is not the line's place, a WordNet id stands there
            twice, or there are fewer than two classes.
    """
    lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    classes = tuple(_read_class(path, place, words) for place, words in enumerate(lines))
    twice = sorted(wnid for wnid, times in Counter(one.wnid for one in classes).items() if times > 1)
    if twice:
        raise ValueError(f"{path} lists {', '.join(twice[:3])} more than once; every class needs one line.")
    if len(classes) < 2:
        raise ValueError(f"{path} lists {len(classes)} class(es); at least two are needed.")
    return classes


def _read_class(path: Path, place: int, words: list[str]) -> ImageNetClass:
    numbered = words[0].isdecimal()
    wnid, *name = words[numbered:] or [""]
    if not WNID.fullmatch(wnid):
        raise ValueError(
            f"{path} has the line '{' '.join(words)}'; expected a class as 'n01440764', 'n01440764 tench' or "
            "'0 n01440764 tench'."
        )
    if numbered and int(words[0]) != place:
        raise ValueError(
            f"{path} gives {wnid} the index {words[0]}, but it is class {place} in order (counted from 0); lines must "
            "stand in the order of the classifier's outputs, none left out."
        )
    return ImageNetClass(wnid, " ".join(name).split(",")[0].replace("_", " ") or wnid)


def _standard_classes(root: Path) -> tuple[ImageNetClass, ...]:
    """The 1000 classes from the folders themselves: their sorted WordNet ids are in the order of the outputs."""
    folders = [path for name in ("val", "train") if (path := root / name).is_dir()]
    wnids = sorted({path.name for folder in folders for path in folder.iterdir() if WNID.fullmatch(path.name)})
    if not folders:
        raise AbsentSplitError(
            f"There is neither val/ nor train/ in '{root}'. Set --data_root to the folder that holds them, each with "
            "one folder a class such as val/n01440764/*.JPEG."
        )
    if (len(wnids), *wnids[:1], *wnids[-1:]) != STANDARD_FOLDERS:
        raise ValueError(
            f"'{root}' has {len(wnids)} class folders such as val/n01440764/, not ImageNet's 1000, and no classes.txt, "
            "so the classes' order is unknown. Write their WordNet ids there, one a line, in the order of the "
            "classifier's outputs: all 1000 for a classifier of ImageNet, else just those of the folders."
        )
    names = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    return tuple(ImageNetClass(wnid, name) for wnid, name in zip(wnids, names, strict=True))


def _check_folders(folder: Path, known: dict[str, int]) -> None:
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    unknown = [name for name in found if name not in known]
    if not found:
        raise ValueError(
            f"'{folder}' has no class folders; move each image into the folder of its class, such as "
            f"{folder.name}/n01440764/ILSVRC2012_val_00000293.JPEG."
        )
    if unknown:
        raise ValueError(
            f"{len(unknown)} folder(s) of '{folder}' are no class, first: {', '.join(unknown[:3])}. Add them to "
            "classes.txt, or remove them."
        )


def _part(images: list[tuple[str, int]], split: Split) -> list[tuple[str, int]]:
    """The train or val part of train/, each in the order of the classes."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    count = min(round(TRAIN_SHARE * len(images)), len(images) - 1)  # at least one is left for val
    chosen = order[:count] if split == "train" else order[count:]
    return [images[index] for index in sorted(chosen)]


def _read_boxes(file: Path, wnids: Sequence[str]) -> tuple[Box, ...]:
    """The boxes of an annotation; its own size is what they refer to: annotators saw some images in another size."""
    try:
        annotation = read_annotation(file)
    except ValueError as error:
        raise BadImageError(f"{error} Or pass --on_bad_image skip to leave such images out.") from error
    unknown = [one.name for one in annotation.objects if one.name not in wnids]
    if unknown or annotation.size is None:
        reason = f"its class '{unknown[0]}' is not in the list of classes" if unknown else "it states no size"
        raise BadImageError(
            f"Annotation {file} is not usable: {reason}. Correct or remove it, or pass --on_bad_image skip."
        )
    return tuple(
        Box.from_pixels(wnids.index(one.name), one.edges, annotation.size, difficult=one.difficult)
        for one in annotation.objects
        if one.edges
    )
