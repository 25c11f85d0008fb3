"""Data sets: each is a LightningDataModule that yields `Batch`; they are found by name in `DATASETS`."""

from datamodules.base import BadImageError, DataOptions, ImageDataModule, Sample
from datamodules.batch import VOID, Batch, Box
from datamodules.coco import COCODataModule
from datamodules.folder import FolderDataModule
from datamodules.imagenet import ImageNetDataModule
from datamodules.shapes import ShapesDataModule, ShapesOptions
from datamodules.voc import VOCDataModule

__all__ = [
    "DATASETS", "VOID", "BadImageError", "Batch", "Box", "DataOptions", "ImageDataModule", "Sample", "ShapesOptions",
    "build_datamodule",
]  # fmt: skip

DATASETS: dict[str, type[ImageDataModule]] = {
    "shapes": ShapesDataModule,
    "voc": VOCDataModule,
    "coco": COCODataModule,
    "folder": FolderDataModule,
    "imagenet": ImageNetDataModule,
}


def build_datamodule(name: str, options: DataOptions, shapes_options: ShapesOptions | None = None) -> ImageDataModule:
    """Make a data set by name.

    Args:
        name: A key of `DATASETS`.
        options: Where the images lie and how they are loaded.
        shapes_options: What to draw; only `shapes` reads it.

    Raises:
        ValueError: If there is no data set of that name.
    """
    if name not in DATASETS:
        raise ValueError(f"Unknown data set '{name}'; choose one of: {', '.join(DATASETS)}.")
    if name == "shapes":
        return ShapesDataModule(options, shapes_options or ShapesOptions())
    return DATASETS[name](options)
