"""The layout of torchvision's ImageFolder, which many have already: `train/cat/1.jpg`, a folder for each class."""

from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from datamodules.labels_table import Row
from datamodules.sample import SPLITS


def has_class_folders(root: Path) -> bool:
    """Whether the folder is laid out so, rather than listed in labels.csv."""
    return not (root / "labels.csv").exists() and (root / "train").is_dir()


def read_class_folders(root: Path) -> tuple[Row, ...]:
    """The images below train/, val/ and test/, as a table would list them: one class each, its folder's name.

    Raises:
        ValueError: If there is no image in a folder of a class.
    """
    rows = tuple(
        Row(0, image.relative_to(root).as_posix(), split, (folder.name,))
        for split in SPLITS
        for folder in _folders(root / split)
        for image in sorted(folder.rglob("*"))
        if image.suffix.lower() in IMG_EXTENSIONS and not image.name.startswith(".")
    )
    if not rows:
        raise ValueError(f"{root / 'train'} has no images in a folder for each class, such as {root}/train/cat/1.jpg.")
    return rows


def _folders(split: Path) -> list[Path]:
    """Of the classes; none where the split is not there."""
    found = split.iterdir() if split.is_dir() else ()
    return sorted(folder for folder in found if folder.is_dir() and not folder.name.startswith("."))
