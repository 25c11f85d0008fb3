"""COCO 2014: 80 classes; train and val are parts of train2014, test is val2014; masks from the instances."""

import contextlib
import io
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.base import ImageDataModule
from datamodules.batch import VOID, Box
from datamodules.images import BadImageError, load_image
from datamodules.sample import AbsentSplitError, Sample, Split

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
SPLIT_SEED = 42
"""Of the 90/10 split of train2014: a constant, so that --seed does not move images between train and val."""
TRAIN_SHARE = 0.9


class COCOImage(NamedTuple):
    """One image's annotations; `instances` is JSON text, see `_read`."""

    file_name: str
    size: tuple[int, int]
    labels: tuple[int, ...]
    instances: bytes


class COCODataModule(ImageDataModule):
    """COCO 2014; `data_root` holds train2014/, val2014/ and annotations/. Nothing is downloaded."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The 80 classes in the order of COCO's category ids, which have gaps (1..90)."""
        return COCO_CLASSES

    def source(self, split: Split) -> "COCOSource":
        """Train and val are a fixed 90/10 split of train2014, test is val2014.

        Raises:
            AbsentSplitError: (a FileNotFoundError) If annotations or the image folder are missing.
            ValueError: If the annotation file does not have COCO's 80 categories.
        """
        subset = "val2014" if split == "test" else "train2014"
        folder = self.options.data_root / subset
        annotations = self.options.data_root / "annotations" / f"instances_{subset}.json"
        for path in (annotations, folder):
            if not path.exists():
                raise AbsentSplitError(
                    f"'{path}' is missing. --data_root must hold train2014/, val2014/ and "
                    "annotations/instances_{train,val}2014.json: fetch train2014.zip, val2014.zip and "
                    "annotations_trainval2014.zip from cocodataset.org and unpack them there."
                )
        images = _read(annotations)
        return COCOSource(folder, images if split == "test" else _part(images, split))


def _part(images: tuple[COCOImage, ...], split: Split) -> tuple[COCOImage, ...]:
    """The train or val part of train2014, each in the order of the image ids."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    count = round(TRAIN_SHARE * len(images))
    chosen = order[:count] if split == "train" else order[count:]
    return tuple(images[index] for index in sorted(chosen))


class COCOSource:
    """Images of a folder with instance annotations; masks are rasterised when asked for.

    Args:
        folder: Where the image files lie.
        images: The images and their annotations.
    """

    def __init__(self, folder: Path, images: tuple[COCOImage, ...]) -> None:
        self.folder, self.images = folder, images
        self.image_ids = [Path(image.file_name).stem for image in images]
        self.labels = [image.labels for image in images]
        self.has_masks = True
        self.has_cues = False
        self.has_boxes = any(image.labels for image in images)  # an annotation has both

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The image at this position; raises BadImageError if it is unreadable or not the annotated one."""
        entry = self.images[index]
        path = self.folder / entry.file_name
        # Instances were outlined on the pixels as stored, whatever a camera wrote into the EXIF block.
        image = load_image(path, use_exif=False)
        if image.size != entry.size:
            raise BadImageError(
                f"Image {path} is {image.size[0]}x{image.size[1]} pixels but its annotations are for "
                f"{entry.size[0]}x{entry.size[1]}; fetch the file again, or pass --on_bad_image skip."
            )
        instances = json.loads(entry.instances)
        mask = Image.fromarray(rasterise(instances, entry.size))
        boxes = tuple(_box(instance, entry.size) for instance in instances)
        return Sample(image, entry.labels, self.image_ids[index], mask, boxes=boxes)


def _box(instance: dict[str, Any], size: tuple[int, int]) -> Box:
    """COCO's x, y, width and height -> fractions.

    A crowd's box is one too, though its pixels are void in the mask: the labels count crowds, so each class of an
    image has a box. (TorchRay, too, takes all annotations of a class for its region.) COCO marks none as difficult.
    """
    left, top, width, height = instance["bbox"]
    return Box.from_pixels(instance["value"] - 1, (left, top, left + width, top + height), size)


def rasterise(instances: list[dict[str, Any]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Paint instances into one class-index mask.

    Crowd regions come first, as void: they outline a group roughly, so a member outlined by itself inside one is
    the surer statement and is painted over it. Then large instances before small ones, which would else vanish.

    Args:
        instances: Each with `segmentation` (COCO's polygons or run lengths), `value` (i + 1), `area`, `iscrowd`.
        size: (width, height).

    Returns:
        uint8 [height,width]: 0 background, i + 1 for class i, 255 void.
    """
    mask = np.zeros((size[1], size[0]), np.uint8)
    with warnings.catch_warnings():
        # pycocotools 2.0.11 hands its arrays over in a way that NumPy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        for instance in sorted(instances, key=lambda one: (not one["iscrowd"], -one["area"])):
            region = _decode(instance["segmentation"], size)
            mask[region] = VOID if instance["iscrowd"] else instance["value"]
    return mask


def _decode(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Polygons, plain or compressed run lengths -> bool [height,width]."""
    from pycocotools import mask as coco_mask

    width, height = size
    if isinstance(segmentation, list):
        # A polygon needs three corners; pycocotools would take four numbers for a box.
        segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not segmentation:
            return np.zeros((height, width), bool)
        run_lengths = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        run_lengths = coco_mask.frPyObjects(segmentation, height, width)
    else:
        run_lengths = segmentation
    region: NDArray[np.bool_] = coco_mask.decode(run_lengths).astype(bool)
    return region


@cache
def _read(annotations: Path) -> tuple[COCOImage, ...]:
    """The images of an annotation file, by id. Kept, since train and val share a file that takes long to read.

    The instances stay JSON text until an image is asked for: as Python lists train2014's polygons take gigabytes, and
    every worker process would copy them bit by bit, merely by touching their reference counts.
    """
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotations))
    ids = sorted(coco.cats)
    names = tuple(coco.cats[category]["name"] for category in ids)
    if names != COCO_CLASSES:
        raise ValueError(
            f"{annotations} has {len(names)} categories ({', '.join(names[:3])}, ...), expected COCO's 80 "
            f"({', '.join(COCO_CLASSES[:3])}, ...). For other classes use --dataset folder."
        )
    index_of = {category: index for index, category in enumerate(ids)}
    # An image without annotations has an empty list here, hence no positive class.
    return tuple(_entry(coco.imgs[image], coco.imgToAnns.get(image, []), index_of) for image in sorted(coco.imgs))


def _entry(image: dict[str, Any], annotations: list[dict[str, Any]], index_of: dict[int, int]) -> COCOImage:
    """A class is positive if any annotation names it, crowds included (as the reference)."""
    labels = sorted({index_of[one["category_id"]] for one in annotations})
    instances = [
        {
            "segmentation": one["segmentation"],
            "bbox": one["bbox"],
            "value": index_of[one["category_id"]] + 1,
            "area": one["area"],
            "iscrowd": one.get("iscrowd", 0),
        }
        for one in annotations
    ]
    text = json.dumps(instances, separators=(",", ":")).encode()
    return COCOImage(image["file_name"], (image["width"], image["height"]), tuple(labels), text)
