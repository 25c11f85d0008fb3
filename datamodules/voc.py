"""PASCAL VOC 2007: 20 classes, the official train/val/test lists, boxes, and masks for the images that have one."""

import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from torchvision.datasets import VOCDetection

from datamodules.annotations import Annotation, read_annotation
from datamodules.base import ImageDataModule
from datamodules.batch import Box
from datamodules.images import load_image, load_mask
from datamodules.sample import AbsentSplitError, Sample, Split

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
INDEX_OF = {name: index for index, name in enumerate(VOC_CLASSES)}
FOLDER = Path("VOCdevkit") / "VOC2007"


class VOCDataModule(ImageDataModule):
    """PASCAL VOC 2007; `data_root` is the folder that holds VOCdevkit/. What is absent is downloaded there."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The 20 classes in alphabetical order."""
        return VOC_CLASSES

    def prepare_data(self) -> None:
        """Fetch what training needs; Lightning runs this on one process of a node before the others go on."""
        self._listing("train")
        self._listing("val")

    def is_available(self, split: Split) -> bool:
        """Whether the split lies on disk, so that merely asking starts no download."""
        return self._list_file(split).is_file() and super().is_available(split)

    def source(self, split: Split) -> "VOCSource":
        """The images of an official list, downloaded where absent.

        Raises:
            AbsentSplitError: (a FileNotFoundError) If it is absent and cannot be downloaded.
            FileNotFoundError: If images (unless bad ones are skipped) or annotations of the list are missing.
            ValueError: If an annotation is malformed or names an unknown class.
        """
        listing = self._listing(split)
        self._check_files(split, listing.annotations)
        if self.options.on_bad_image == "error":
            self._check_files(split, listing.images)
        return VOCSource(listing.images, listing.annotations, self.options.data_root / FOLDER / "SegmentationClass")

    def _check_files(self, split: Split, files: Sequence[str]) -> None:
        """A list may be there without its files, as after an extraction that was killed."""
        folder = Path(files[0]).parent if files else self.options.data_root
        present = set(os.listdir(folder)) if folder.is_dir() else set()
        missing = [name for name in (Path(file).name for file in files) if name not in present]
        if missing:
            listed = self._list_file(split)
            raise FileNotFoundError(
                f"{len(missing)} of the {len(files)} files that {listed} lists are missing in {folder}, first: "
                f"{', '.join(missing[:3])}. Unpack the archive again, or remove {listed.name} to have it fetched "
                "again; for images, --on_bad_image skip goes on without them."
            )

    def _list_file(self, split: Split) -> Path:
        return self.options.data_root / FOLDER / "ImageSets" / "Main" / f"{split}.txt"

    def _listing(self, split: Split) -> VOCDetection:
        """Torchvision's list of image and annotation files; train and val come in one archive, test in another."""
        root = self.options.data_root
        if self._list_file(split).is_file():
            return VOCDetection(root, year="2007", image_set=split)
        try:
            root.mkdir(parents=True, exist_ok=True)
            # Several processes may find it absent at once; one downloads, the others wait and then find it there.
            with FileLock(root / "voc2007.lock"):
                absent = not self._list_file(split).is_file()
                return VOCDetection(root, year="2007", image_set=split, download=absent)
        except (OSError, RuntimeError) as error:
            raise AbsentSplitError(
                f"PASCAL VOC 2007 is not under '{root}' (no {self._list_file(split)}) and could not be downloaded "
                f"({type(error).__name__}: {error}). Set --data_root to the folder that holds "
                f"{FOLDER.as_posix()}/{{JPEGImages,Annotations,ImageSets/Main,SegmentationClass}}, or unpack the "
                f"archives VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar in '{root}'."
            ) from error


class VOCSource:
    """One list of images; annotations are read once, images when asked for.

    Args:
        images: Image files.
        annotations: The XML file of each.
        mask_folder: Folder of `<image id>.png` files, which only some images have.
    """

    def __init__(self, images: Sequence[str], annotations: Sequence[str], mask_folder: Path) -> None:
        self.paths = list(images)
        self.image_ids = [Path(path).stem for path in images]
        self.annotations = [_read(Path(path)) for path in annotations]
        self.labels = [_labels(annotation) for annotation in self.annotations]
        self.mask_folder = mask_folder
        self.masked = {path.stem for path in mask_folder.glob("*.png")} & set(self.image_ids)
        self.has_masks = bool(self.masked)
        self.has_cues = False
        self.has_boxes = any(one.edges for annotation in self.annotations for one in annotation.objects)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        """The image at this position; raises BadImageError if it or its mask is unreadable."""
        image_id, path = self.image_ids[index], self.paths[index]
        # Boxes and masks were drawn on the pixels as stored, whatever a camera wrote into the EXIF block.
        image = load_image(path, use_exif=False)
        mask = None
        if image_id in self.masked:
            mask = load_mask(self.mask_folder / f"{image_id}.png", image.size, path)
        annotation = self.annotations[index]
        return Sample(image, self.labels[index], image_id, mask, boxes=_boxes(annotation, image.size))


def _read(file: Path) -> Annotation:
    annotation = read_annotation(file)
    unknown = [one.name for one in annotation.objects if one.name not in INDEX_OF]
    if unknown:
        raise ValueError(
            f"Annotation {file} names the unknown class '{unknown[0]}'; valid are: {', '.join(VOC_CLASSES)}."
        )
    return annotation


def _labels(annotation: Annotation) -> tuple[int, ...]:
    """Classes of which any object is listed, "difficult" ones included (as the reference)."""
    return tuple(sorted({INDEX_OF[one.name] for one in annotation.objects}))


def _boxes(annotation: Annotation, image_size: tuple[int, int]) -> tuple[Box, ...]:
    """All boxes, also of "difficult" objects, so that every label has one; an object without edges has none.

    VOC counts pixels from 1, and the last ones belong to the object: the first pixel's left edge is 0, its right one 1.
    """
    size = annotation.size or image_size
    return tuple(
        Box.from_pixels(INDEX_OF[one.name], (left - 1, top - 1, right, bottom), size, difficult=one.difficult)
        for one in annotation.objects
        if one.edges
        for left, top, right, bottom in [one.edges]
    )
