"""A photograph of any size is explained at its own size, prepared as in training."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_models import CLASSES, SIZE, WindowNet, freeze

from datamodules import DataOptions, build_datamodule
from datamodules.dataset import SampleDataset
from datamodules.images import BadImageError, load_image
from datamodules.transforms import SampleTransform
from explainer.attribution import METHODS, AttributionMethod
from explainer.capture import CannotExplain
from explainer.explaining import (
    class_indices,
    class_probabilities_of,
    classes_to_explain,
    enlarged,
    explain_photograph,
    explain_prepared,
    prepare,
    recognised,
)
from explainer.explanandum import ClassifierCard


class Brightness(AttributionMethod):
    """The brightness of each pixel, whatever the class; fails on the class `fails`."""

    unit_range = True
    fails = None

    def __call__(self, image, target):
        if self.fails in target.tolist():
            raise CannotExplain("not this class")
        return image.mean(dim=1)


@pytest.fixture
def method():
    return Brightness(freeze(WindowNet()))


def photograph(size=(90, 40), box=(60, 10, 90, 20), mode="RGB"):
    """Black, with a white box (left, top, right, bottom)."""
    image = Image.new("RGB", size)
    image.paste("white", box)
    return image.convert(mode)


@pytest.mark.parametrize("size", [(90, 40), (7, 300), (20, 20), (1, 1)])
def test_the_mask_has_the_photographs_own_size(method, size):
    explanation = explain_photograph(Image.new("RGB", size, "white"), method)
    width, height = size
    assert explanation.mask(0).shape == explanation.target_mask().shape == (height, width)
    assert explanation.mask(0).dtype == torch.float32
    torch.testing.assert_close(explanation.mask(0), torch.ones(height, width))


def test_the_mask_lies_where_the_thing_lies_in_the_photograph(method):
    mask = explain_photograph(photograph(), method, ["cat"]).mask(0)
    truth = torch.from_numpy(np.asarray(photograph(mode="L")) / 255)
    assert mask[12:18, 64:86].min() > 0.9
    assert mask[truth == 0].mean() < 0.05
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(90.0), indexing="ij")
    centre = ((mask * rows).sum() / mask.sum()).item(), ((mask * columns).sum() / mask.sum()).item()
    assert centre == pytest.approx((14.5, 74.5), abs=0.5)


def test_a_turned_photograph_is_explained_upright(method, tmp_path):
    turned = photograph().transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        explanation = explain_photograph(opened, method, ["cat"])
    assert explanation.photograph.size == (90, 40)
    torch.testing.assert_close(explanation.mask(0), explain_photograph(photograph(), method, ["cat"]).mask(0))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_mode_is_the_same_picture(method, mode):
    expected = explain_photograph(photograph(), method, ["cat"]).mask(0)
    torch.testing.assert_close(explain_photograph(photograph(mode=mode), method, ["cat"]).mask(0), expected)


def test_a_16_bit_picture_is_no_white_sheet(method):
    deep = Image.fromarray(np.asarray(photograph(mode="L")).astype(np.uint16) * 257)
    expected = explain_photograph(photograph(), method, ["cat"]).mask(0)
    torch.testing.assert_close(explain_photograph(deep, method, ["cat"]).mask(0), expected)


def test_an_image_is_prepared_just_as_a_data_set_prepares_it(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.png")
    (tmp_path / "labels.csv").write_text("image,split,labels\n1.png,test,cat\n2.png,train,dog\n")
    options = DataOptions(tmp_path, image_size=SIZE, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), workers=0)
    dataset = build_datamodule("folder", options).dataset("test")
    assert isinstance(dataset, SampleDataset) and isinstance(dataset.transform, SampleTransform)
    its_card = ClassifierCard("toy", CLASSES, SIZE, options.mean, options.std)
    assert torch.equal(prepare(load_image(tmp_path / "1.png"), its_card), dataset[0].image)


def test_a_mask_at_its_own_size_is_the_map_itself():
    values = torch.rand(SIZE, SIZE)
    torch.testing.assert_close(enlarged(values, (SIZE, SIZE)), values)
    assert enlarged(values, (3, 2)).mean() == pytest.approx(values.mean().item(), abs=0.05)  # antialiased


def test_recognised_are_all_above_one_half_or_the_best_of_a_softmax():
    probabilities = torch.tensor([[0.2, 0.6, 0.7], [0.1, 0.2, 0.3]])
    assert recognised(probabilities, "multi_label").tolist() == [[False, True, True], [False, False, False]]
    assert recognised(probabilities, "single_label").tolist() == [[False, False, True], [False, False, True]]


def test_explained_are_the_most_probable_and_all_recognised():
    probabilities = torch.tensor([[0.2, 0.6, 0.7], [0.1, 0.2, 0.3]])
    assert classes_to_explain(probabilities, "multi_label", 1).tolist() == [[False, True, True], [False, False, True]]
    assert classes_to_explain(probabilities, "multi_label", 9).all()


def test_the_most_probable_class_comes_first_and_the_target_mask_merges_the_recognised(method):
    explanation = explain_photograph(photograph(box=(0, 0, 90, 40)), method)
    values = [one.probability for one in explanation.classes]
    assert values == sorted(values, reverse=True)
    assert all(one.recognised for one in explanation.target_classes)
    dark = explain_photograph(Image.new("RGB", (9, 9)), Brightness(freeze(WindowNet(), output="single_label")))
    assert [one.index for one in dark.target_classes] == [dark.classes[0].index]


def test_classes_are_named_or_numbered():
    assert class_indices(["dog", "0", "dog"], CLASSES) == [1, 0]
    with pytest.raises(ValueError, match=r"Unknown class 'dgo'; did you mean dog\? .*3 classes: cat, dog, hen"):
        class_indices(["dgo"], CLASSES)
    with pytest.raises(ValueError, match="a number from 0 to 2"):
        class_indices(["3"], CLASSES)
    with pytest.raises(ValueError, match="Several classes are called 'crane'.*1, 2"):
        class_indices(["crane"], ("cat", "crane", "crane"))


def test_a_method_that_fails_on_a_class_says_so_and_keeps_the_others(method):
    method.fails = 1
    image = photograph()
    images = prepare(image, method.explanandum.card)[None]
    probabilities = class_probabilities_of(images, method.explanandum)
    wanted = torch.ones(1, 3, dtype=torch.bool)
    (explanation,) = explain_prepared([image], images, probabilities, wanted, method)
    assert set(explanation.maps) == {0, 2}
    assert "not this class" in explanation.failures[1]
    assert explanation.target_mask().shape == (40, 90)
    with pytest.raises(CannotExplain, match="not this class"):
        explanation.mask(1)
    with pytest.raises(CannotExplain, match="not this class"):
        explain_photograph(image, method, ["dog"])


def test_a_batch_is_explained_as_its_photographs_one_by_one():
    explanandum = freeze(WindowNet())
    method = METHODS["gradient"](explanandum)
    photographs = [photograph(), photograph((33, 77), (0, 0, 20, 30))]
    images = torch.stack([prepare(one, explanandum.card) for one in photographs])
    probabilities = class_probabilities_of(images, explanandum)
    wanted = torch.tensor([[True, False, False], [False, True, True]])
    batch = explain_prepared(photographs, images, probabilities, wanted, method)
    for image, together, names in zip(photographs, batch, (["cat"], ["dog", "hen"]), strict=True):
        alone = explain_photograph(image, method, names)
        assert [one.index for one in alone.classes] == [one.index for one in together.classes]
        for index in alone.maps:
            torch.testing.assert_close(alone.maps[index], together.maps[index])
            assert alone.maps[index].max() <= 1


def test_a_bad_files_complaint_leaves_the_remedy_of_data_sets_out(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(BadImageError) as refused:
        load_image(tmp_path / "text.png")
    assert refused.value.complaint.endswith("it is not an image of a known format.")
