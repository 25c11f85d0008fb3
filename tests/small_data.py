"""What the tests of the data sets share: small options, small images, and the folder of real photographs."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import DataOptions, build_datamodule

REAL_DATA = Path(os.environ.get("REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def options(root=".", **changes):
    """Small, in-process, not normalised: pixel values stay readable."""
    return DataOptions(**{"data_root": root, "image_size": 8, "batch_size": 4, "workers": 0, **IDENTITY, **changes})


def batches(loader):
    """All batches of a loader."""
    return list(loader)


def save_image(path, colour=(200, 100, 50), size=(12, 6)):
    """Write an image of one colour, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def inside(boxes, label, shape):
    """Whether a pixel's centre lies in any box of a class, bool of shape (H, W)."""
    row, column = ((np.arange(size) + 0.5) / size for size in shape)
    region = np.zeros(shape, bool)
    for box in (one for one in boxes if one.label == label):
        rows, columns = (row >= box.top) & (row < box.bottom), (column >= box.left) & (column < box.right)
        region |= rows[:, None] & columns
    return region


def real(name, root, holds):
    """The data set on the real photographs, or a skipped test where they are absent."""
    if not (root / holds).is_dir():
        pytest.skip(f"no {holds} under {root}; set REAL_DATA to the folder that holds them")
    return build_datamodule(name, DataOptions(data_root=root, workers=0, batch_size=8, image_size=64))
