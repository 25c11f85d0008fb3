"""The user's own images: a folder with labels.csv or a folder for each class, optionally classes.txt and masks/.

labels.csv has the columns image, split and labels, such as `photos/1.jpg,train,cat;dog`; paths are relative to the
folder, `labels` may be empty. classes.txt holds one class name a line and fixes their order; without it the classes
are the labels of all rows, sorted. Without labels.csv, train/cat/1.jpg and val/cat/2.jpg (and test/) say the same, of
images that have one class each. masks/photos/1.png is the class-index mask of photos/1.jpg: 0 background, i + 1
for class i, 255 void.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image

from datamodules.base import ImageDataModule
from datamodules.batch import VOID
from datamodules.class_folders import has_class_folders, read_class_folders
from datamodules.images import BadImageError, load_image, load_mask
from datamodules.labels_table import Row, check_labels, read_classes, read_table
from datamodules.sample import Sample, Split


class FolderDataModule(ImageDataModule):
    """Images listed in `data_root`/labels.csv, or in `data_root`/train/<class>/, val/<class>/ and test/<class>/."""

    @property
    def single_label(self) -> bool:
        """Whether classes are folders; a table may give an image several classes or none."""
        return has_class_folders(self.options.data_root)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The checked table."""
        root = self.options.data_root
        return read_class_folders(root) if has_class_folders(root) else read_table(root / "labels.csv")

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        listed = self.options.data_root / "classes.txt"
        if self.options.class_names:
            names = self.options.class_names
        elif listed.is_file():
            names = read_classes(listed)
        else:
            names = tuple(sorted({label for row in self.rows for label in row.labels}))
        if not names:
            raise ValueError(
                f"{self.options.data_root / 'labels.csv'} names no class in any row; fill in the labels column."
            )
        check_labels(self.rows, names)
        if len(names) == 1:
            raise ValueError(
                f"{self.options.data_root} has a single class, '{names[0]}'; at least two are needed, since a mask "
                "shows what tells a class from the others. Add images of another class to labels.csv, or name it in "
                "classes.txt."
            )
        return names

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that the options name, else those of classes.txt, else all labels, sorted."""
        return self._class_names

    @property
    def label_version(self) -> str:
        """Hash of the table: image paths alone don't tell whether a label was corrected."""
        return hashlib.sha256(repr((self.rows, self.classes)).encode()).hexdigest()[:16]

    @cached_property
    def image_versions(self) -> dict[str, str]:
        """Hashes of the files: another photograph may have taken a name over; a copy of the folder is the same one."""
        names = [name for split in ("train", "val") for name in self.dataset(split).image_ids]
        return {name: _content(self.options.data_root / name) for name in names}

    def source(self, split: Split) -> "FolderSource":
        """The rows of a split.

        Raises:
            FileNotFoundError: If the folder, labels.csv or (unless bad images are skipped) an image is missing.
            ValueError: If the table is malformed or names an unknown class or split.
        """
        rows = [row for row in self.rows if row.split == split]
        if self.options.on_bad_image == "error":
            self._check_files(rows)
        return FolderSource(self.options.data_root, rows, self.classes)

    def _check_files(self, rows: Sequence[Row]) -> None:
        missing = [row for row in rows if not (self.options.data_root / row.image).is_file()]
        if missing:
            first = ", ".join(f"{row.image} (row {row.line})" for row in missing[:3])
            raise FileNotFoundError(
                f"{len(missing)} image(s) of {self.options.data_root / 'labels.csv'} are missing, first: {first}. "
                "Paths are relative to --data_root; correct them, or pass --on_bad_image skip."
            )


def _content(file: Path) -> str:
    """Hash of a file; empty if it can't be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    except OSError:
        return ""


class FolderSource:
    """Some rows of the table.

    Args:
        root: The folder that paths are relative to.
        rows: The images.
        classes: Class names in the order of their indices.
    """

    def __init__(self, root: Path, rows: Sequence[Row], classes: tuple[str, ...]) -> None:
        index_of = {name: index for index, name in enumerate(classes)}
        self.root, self.num_classes = root, len(classes)
        self.image_ids = [row.image for row in rows]
        self.labels = [tuple(sorted(index_of[label] for label in row.labels)) for row in rows]
        masks = [root / "masks" / Path(row.image).with_suffix(".png") for row in rows]
        self.masks = [mask if mask.is_file() else None for mask in masks]
        self.has_masks = any(self.masks)
        self.has_cues = False
        self.has_boxes = False
        if self.has_masks and self.num_classes >= VOID:
            raise ValueError(
                f"Masks can tell {VOID - 1} classes apart, got {self.num_classes}; remove {root / 'masks'}."
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """The image at this position; raises BadImageError if it or its mask is unusable."""
        path, mask_path = self.root / self.image_ids[index], self.masks[index]
        image = load_image(path)
        mask = None if mask_path is None else load_mask(mask_path, image.size, path)
        if mask is not None:
            self._check_mask(mask, mask_path)
        return Sample(image, self.labels[index], self.image_ids[index], mask)

    def _check_mask(self, mask: Image.Image, path: Path | None) -> None:
        pixels = mask.histogram()
        wrong = [value for value in range(self.num_classes + 1, VOID) if pixels[value]]
        if wrong:
            raise BadImageError(
                f"Mask {path} holds the value {wrong[0]}, but with {self.num_classes} classes only 0 (background), "
                f"1..{self.num_classes} and {VOID} (void) have a meaning; correct it or pass --on_bad_image skip."
            )
