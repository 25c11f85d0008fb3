"""Teacher maps come with their images: enlarged, flipped and turned alike, in the order of the labels."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from small_data import batches, options

from datamodules import ImageDataModule
from datamodules.base import Sample
from datamodules.batch import TeacherMaps
from datamodules.images import load_image
from datamodules.transforms import IMAGENET_MEAN, IMAGENET_STD, SampleTransform
from explainer.distillation.teachers import PREPROCESSING

CLASSES = ("left", "right", "nowhere")
LABELS = [(1, 0), (), (0,), (1,), (0, 1), ()]


class HalfSource:
    """Images whose left half is red: a teacher that marks the left half must stay on the red."""

    has_masks = has_cues = has_boxes = False

    def __init__(self):
        self.image_ids = [f"image{index}" for index in range(len(LABELS))]
        self.labels = LABELS

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        red = np.zeros((32, 32), np.uint8)
        red[:, :16] = 255
        return Sample(Image.fromarray(np.stack([red, red * 0, 255 - red], axis=2)), LABELS[index], f"image{index}")


class HalfModule(ImageDataModule):
    classes = CLASSES

    def source(self, split):
        return HalfSource()


class LeftAndRight:
    """The first teacher marks the half of the class, the second nothing; a picklable callable, for workers."""

    def __call__(self, image_id, labels):
        maps = torch.zeros(len(labels), 2, 8, 8, dtype=torch.uint8)
        for row, label in enumerate(labels):
            half = slice(0, 4) if label == 0 else slice(4, 8)
            maps[row, 0, :, half] = 255
        return TeacherMaps(maps, torch.tensor([[1.0, 0.0]]).repeat(len(labels), 1))


def taught(**changes):
    module = HalfModule(options(image_size=32, batch_size=6, **changes))
    for split in ("train", "val"):
        module.teach(split, LeftAndRight())
    return module


def red_and_marked(batch):
    """For each pair of an image and a class, where the class's half is, and where the teacher says it is."""
    image_index, target = batch.labels.bool().nonzero(as_tuple=True)
    assert len(batch.teacher_maps) == len(target)
    for pair, (index, label) in enumerate(zip(image_index.tolist(), target.tolist(), strict=True)):
        red = batch.image[index, 0] > batch.image[index, 2]  # whatever the colour jitter did
        yield (red if label == 0 else ~red), batch.teacher_maps[pair, 0] > 127


@pytest.mark.parametrize("workers", [0, 1])
def test_maps_are_enlarged_and_in_the_order_of_the_labels(workers):
    (batch,) = batches(taught(workers=workers).val_dataloader())
    assert batch.teacher_maps.shape == (6, 2, 32, 32)
    assert batch.teacher_maps.dtype == torch.uint8
    assert batch.teacher_weights.tolist() == [[1.0, 0.0]] * 6
    for where, marked in red_and_marked(batch):
        assert (where == marked).float().mean() > 0.95  # enlarging blurs the edge


def test_flips_and_turns_move_image_and_map_alike():
    module = taught(augment=True)
    red_is_left = set()
    for epoch in range(4):
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)
        (batch,) = batches(loader)
        for where, marked in red_and_marked(batch):
            red_is_left.add(bool(batch.image[0, 0, 16, 8] > batch.image[0, 2, 16, 8]))
            assert (where == marked)[6:-6, 6:-6].float().mean() > 0.9  # the corners are filled with nothing
    assert red_is_left == {True, False}, "no flip was seen"
    assert batch.teacher_maps[:, 1].max() == 0


def test_augmentation_of_the_image_is_the_same_with_and_without_teachers():
    plain = HalfModule(options(image_size=32, batch_size=6, augment=True))
    (alone,) = batches(plain.train_dataloader())
    (with_maps,) = batches(taught(augment=True).train_dataloader())
    assert alone.image.equal(with_maps.image)
    assert alone.teacher_maps is None


def test_images_without_a_class_have_no_maps_and_a_batch_of_them_has_none():
    dataset = taught().dataset("train")
    item = dataset[1]
    assert item.teacher_maps.shape == (0, 2, 32, 32)
    assert item.teacher_weights.shape == (0, 2)
    augmented = taught(augment=True).dataset("train")[0, 1]
    assert augmented.teacher_maps.shape == (0, 2, 32, 32)
    (batch,) = batches(taught().part("train", ["image1", "image5"]))
    assert batch.teacher_maps is None  # `part` is for the teachers themselves


def test_a_part_holds_the_named_images_in_order_as_they_are():
    module = taught(augment=True)
    (batch,) = batches(module.part("train", {"image4", "image0"}))
    assert batch.image_id == ("image0", "image4")
    (whole,) = batches(HalfModule(options(image_size=32, batch_size=6)).train_dataloader())
    assert batch.image[0].equal(whole.image[whole.image_id.index("image0")])


def test_test_images_have_no_teachers():
    (batch,) = batches(taught().test_dataloader())
    assert batch.teacher_maps is None


def test_a_taught_batch_goes_through_pinned_memory(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 0)
    (batch,) = batches(taught().val_dataloader())
    pinned = batch.pin_memory()
    assert pinned.teacher_maps.equal(batch.teacher_maps)
    assert pinned.teacher_weights.equal(batch.teacher_weights)
    assert pinned.image_id == batch.image_id


NORMALISED = {
    1: [
        [[-162, -61, 49, 150]] * 4,
        [[-167] * 4, [-79] * 4, [22] * 4, [110] * 4],
        [[15, 36, 37, 65], [58, 46, 44, 27], [30, 39, 41, 53], [53, 44, 43, 32]],
    ]
}
"""What becomes of the picture below, in hundredths, by the version of the preprocessing."""


def test_the_version_of_the_preprocessing_is_raised_with_every_change_of_it(tmp_path):
    down, across = np.mgrid[:9, :13]
    picture = np.stack([20 * across, 25 * down, 255 * ((across // 2 + down // 2) % 2)], axis=2).astype(np.uint8)
    transform = SampleTransform(4, IMAGENET_MEAN, IMAGENET_STD)
    plain = Image.fromarray(picture)
    turned = Image.Exif()
    turned[ImageOps.ExifTags.Base.Orientation] = 6  # to be turned by a quarter to the right
    plain.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    plain.convert("RGBA").save(tmp_path / "alpha.png")
    expected = torch.tensor(NORMALISED[PREPROCESSING]) / 100
    for file in ("turned.png", "alpha.png"):
        image = transform(Sample(load_image(tmp_path / file), (), file)).image
        torch.testing.assert_close(image, expected, atol=0.03, rtol=0)  # a grey level is .02
