"""The drawn scenes are repeatable, their masks and labels agree, and the planted shortcut changes nothing else."""

import numpy as np
import pytest

from datamodules.base import SPLITS, DataOptions, Sample
from datamodules.shapes import CLASSES, SMALLEST_IMAGE, ShapesDataModule, ShapesOptions, ShapesSource
from datamodules.shapes_catalogue import SHAPES
from datamodules.shapes_drawing import HUE_JITTER, draw_object, photographs
from datamodules.shapes_scene import Background, Canvas, draw_scene

SIDE = 64
SCENES = 250


def _scenes(split: str = "train", side: int = SIDE, count: int = SCENES, **options: object) -> list[Sample]:
    source = ShapesSource(split, side, ShapesOptions(**options))
    return [source[index] for index in range(count)]


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return _scenes()


def _same(first: Sample, second: Sample) -> bool:
    return first.labels == second.labels and all(
        np.array_equal(first[part], second[part]) for part in (Sample._fields.index(n) for n in ("image", "mask"))
    )


def test_a_scene_depends_on_seed_split_and_index_alone(scenes: list[Sample]) -> None:
    other = ShapesSource("train", SIDE, ShapesOptions(train_size=20, val_size=7))
    assert all(_same(other[index], scenes[index]) for index in (13, 2, 19, 2, 0))


def test_splits_and_seeds_share_no_scene() -> None:
    groups = [_scenes(split, count=40, seed=seed) for split in SPLITS for seed in (0, 1)]
    pictures = {np.asarray(sample.image).tobytes() for group in groups for sample in group}
    assert len(pictures) == 6 * 40


def test_names_are_unique_within_the_data_set() -> None:
    names = [name for split in SPLITS for name in ShapesSource(split, SIDE, ShapesOptions()).image_ids]
    assert len(set(names)) == 4000 + 400 + 400


def test_the_labels_are_the_classes_in_the_mask(scenes: list[Sample]) -> None:
    for sample in scenes:
        assert sample.labels == tuple(int(value) - 1 for value in np.unique(sample.mask) if value)


def test_the_labels_of_a_split_are_those_of_its_scenes(scenes: list[Sample]) -> None:
    source = ShapesSource("train", SIDE, ShapesOptions(train_size=12))
    assert list(source.labels) == [sample.labels for sample in scenes[:12]]


def test_every_label_is_plain_to_see(scenes: list[Sample]) -> None:
    for sample in scenes:
        pixels = np.bincount(np.asarray(sample.mask).ravel(), minlength=len(CLASSES) + 1)
        assert pixels[1:][list(sample.labels)].min() >= 0.01 * SIDE**2


def test_scenes_have_several_labels_and_every_class_occurs_about_equally_often(scenes: list[Sample]) -> None:
    counts = np.array([len(sample.labels) for sample in scenes])
    assert set(counts) == {1, 2, 3, 4}
    assert (counts > 1).mean() > 0.6
    frequency = np.bincount([label for sample in scenes for label in sample.labels]) / len(scenes)
    assert len(CLASSES) >= 8
    assert len(frequency) == len(CLASSES)
    assert frequency.min() > 0.5 * frequency.max()


def test_objects_cover_a_fifth_of_the_picture_and_never_most_of_it(scenes: list[Sample]) -> None:
    covered = [(np.asarray(sample.mask) > 0).mean() for sample in scenes]
    assert 0.14 < np.mean(covered) < 0.26
    assert max(covered) < 0.6


def _plain(ink: int) -> Background:
    return lambda _, side: np.full((side, side, 3), ink, np.float32)


def test_the_mask_is_where_the_background_shows_less_than_half() -> None:
    for seed in range(20):
        black, white = (draw_scene(np.random.default_rng(seed), 96, _plain(ink)) for ink in (0, 255))
        assert np.array_equal(black.mask, white.mask)
        transparency = (white.picture.astype(float) - black.picture).mean(-1) / 255
        assert transparency[black.mask > 0].max() <= 0.51
        # Two half-covering edges that cross can hide more than half of a pixel that belongs to neither.
        assert (transparency[black.mask == 0] > 0.49).mean() > 0.998
        assert np.all(transparency[~black.touched] == 1)


@pytest.mark.parametrize("name", CLASSES)
def test_a_shape_fits_its_patch_and_is_solid_inside(name: str) -> None:
    for seed in range(10):
        cutout = draw_object(np.random.default_rng(seed), name, 40)
        assert cutout.colour.shape == (*cutout.coverage.shape, 3)
        assert 0 <= cutout.colour.min() <= cutout.colour.max() <= 255
        assert 0.15 < cutout.coverage.mean() < 0.8
        assert cutout.coverage.max() == 1
        assert cutout.coverage[[0, -1]].max() == cutout.coverage[:, [0, -1]].max() == 0


def test_an_object_may_not_hide_most_of_an_earlier_one() -> None:
    canvas = Canvas(np.zeros((SIDE, SIDE, 3), np.float32))
    square = draw_object(np.random.default_rng(0), "square", 24)
    assert canvas.add(square, 1, 10, 10)
    assert not canvas.add(square, 2, 14, 12)
    assert canvas.add(square, 3, 10, 32)
    assert set(np.unique(canvas.scene().mask)) == {0, 1, 3}


def test_colour_alone_does_not_tell_the_classes_apart() -> None:
    hues = sorted(shape.hue for shape in SHAPES.values())
    assert np.diff([*hues, hues[0] + 360]).max() < 2 * HUE_JITTER


def test_photographs_are_colour_pictures_of_bounded_size_from_the_wheel() -> None:
    assert len(photographs()) >= 10
    assert all(image.mode == "RGB" and 200 < max(image.size) <= 512 for image in photographs())


def test_the_shortcut_changes_the_cue_pixels_only(scenes: list[Sample]) -> None:
    for plain, planted in zip(scenes[:150], _scenes(count=150, shortcut_class="ring"), strict=True):
        cue = np.asarray(planted.cue_mask) > 0
        changed = (np.asarray(plain.image) != np.asarray(planted.image)).any(-1)
        assert not changed[~cue].any()
        assert changed[cue].mean() > 0.9 if cue.any() else not changed.any()
        assert plain.labels == planted.labels
        assert np.array_equal(plain.mask, planted.mask)
        assert plain.cue_mask is None


def test_the_cue_lies_outside_every_object_and_is_all_or_nothing() -> None:
    for sample in _scenes(count=100, shortcut_class="disc", shortcut_probability=0.5):
        cue = np.asarray(sample.cue_mask)
        assert set(np.unique(cue)) <= {0, 255}
        assert not np.asarray(sample.mask)[cue > 0].any()
        assert not cue.any() or (cue > 0).sum() >= 36 - 4


@pytest.mark.parametrize("probability", [0.9, 1.0])
def test_the_cue_goes_with_the_class_as_often_as_asked(probability: float) -> None:
    sizes = {"count": 300, "side": SMALLEST_IMAGE}
    planted = _scenes(**sizes, shortcut_class="star", shortcut_probability=probability)
    cue = np.array([np.asarray(sample.cue_mask).any() for sample in planted])
    present = np.array([CLASSES.index("star") in sample.labels for sample in planted])
    assert cue[present].mean() == pytest.approx(probability, abs=0.13)
    assert cue[~present].mean() == pytest.approx(1 - probability, abs=0.08)


@pytest.mark.parametrize("side", [SMALLEST_IMAGE, 97, 224])
def test_scenes_are_drawn_at_the_size_asked_for(side: int) -> None:
    for sample in _scenes(side=side, count=5, shortcut_class="disc"):
        assert sample.mask is not None
        assert sample.cue_mask is not None
        assert sample.image.size == sample.mask.size == sample.cue_mask.size == (side, side)
        assert (sample.image.mode, sample.mask.mode, sample.cue_mask.mode) == ("RGB", "L", "L")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 0}, "train_size is 0"),
        ({"seed": -1}, "seed of the scenes is -1"),
        ({"shortcut_class": "disk"}, "Unknown shortcut_class 'disk'; choose one of: disc, square"),
        ({"shortcut_class": "disc", "shortcut_probability": 1.5}, "shortcut_probability is 1.5"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapesOptions(**options)


def test_an_image_too_small_for_shapes_is_an_error() -> None:
    with pytest.raises(ValueError, match="image_size is 16"):
        ShapesSource("val", 16, ShapesOptions())


def test_an_index_out_of_range_is_an_error_so_that_a_source_can_be_iterated() -> None:
    source = ShapesSource("val", SIDE, ShapesOptions(val_size=3))
    assert len(list(source)) == 3
    with pytest.raises(IndexError, match="Scene 3 of 3"):
        source[3]


def test_the_data_module_serves_batches_with_masks_and_cues() -> None:
    options = DataOptions(image_size=48, batch_size=4, workers=0)
    data = ShapesDataModule(options, ShapesOptions(val_size=8, shortcut_class="heart"))
    batch = next(iter(data.val_dataloader()))
    assert data.classes == CLASSES
    assert batch.image.shape == (4, 3, 48, 48)
    assert batch.labels.shape == (4, len(CLASSES))
    assert batch.mask is not None
    assert batch.cue_mask is not None
    present = [sorted({int(value) - 1 for value in mask.unique() if value}) for mask in batch.mask]
    assert present == [row.nonzero().flatten().tolist() for row in batch.labels]
    assert len(data.source("train")) == 4000
