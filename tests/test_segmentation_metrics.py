"""The scores of Table 2 agree with Sec. 4.3 of NN-Explainer, written out as plain loops in `reference`.

B images, C classes, H×W pixels; masks lie in [0, 1].
"""

import math

import pytest
import torch
from reference import nn_explainer as reference
from reference.convert import ignored_pixels, nested, per_image
from torch import Tensor

from explainer.metrics.segmentation import SegmentationAgreement, agreement, saliency

REFERENCES = {"acc": reference.accuracy, "iou": reference.iou, "mae": reference.mae}
SHAPES = [(4, 5, 7), (3, 8, 6), (2, 1, 9), (5, 13, 4), (1, 3, 3)]
every_shape = pytest.mark.parametrize(("seed", "shape"), list(enumerate(SHAPES)))


def close(actual: Tensor, expected: Tensor | list[float]) -> None:
    """Compare values alone."""
    torch.testing.assert_close(actual.double(), torch.as_tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def random_mask(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Continuous masks with some exact 0 and 1 in them, float64."""
    return (1.4 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.2).clamp(
        0, 1
    )


def random_bool(seed: int, shape: tuple[int, ...], fraction: float) -> Tensor:
    """True in about this fraction of the pixels, and in at least one of each image."""
    chosen = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < fraction
    chosen[:, 0, 0] = True
    return chosen


@every_shape
@pytest.mark.parametrize("as_float", [False, True])
def test_agreement_equals_the_plain_loops(seed: int, shape: tuple[int, ...], as_float: bool) -> None:
    """Accuracy, IoU and MAE of continuous masks, one number an image, for a bool and a float ground truth."""
    mask, truth = random_mask(seed, shape), random_bool(seed + 50, shape, 0.35)
    scores = agreement(mask, truth.double() if as_float else truth, None)
    assert set(scores) == set(REFERENCES)
    for name, expected in REFERENCES.items():
        assert scores[name].shape == shape[:1]
        close(scores[name], per_image(expected, mask, truth))


@every_shape
def test_void_pixels_do_not_count(seed: int, shape: tuple[int, ...]) -> None:
    """Pixels that are not valid are left out of sums and of the pixel count."""
    mask, truth, valid = (
        random_mask(seed, shape),
        random_bool(seed + 50, shape, 0.35),
        random_bool(seed + 90, shape, 0.7),
    )
    scores = agreement(mask, truth, valid)
    for name, expected in REFERENCES.items():
        by_image = [expected(nested(mask[b]), nested(truth[b]), ignored_pixels(valid[b])) for b in range(shape[0])]
        close(scores[name], by_image)


def test_values_under_void_pixels_change_nothing() -> None:
    """Whatever mask and ground truth say in a void pixel, the scores stay."""
    shape = (3, 6, 5)
    mask, truth, valid = random_mask(1, shape), random_bool(2, shape, 0.4), random_bool(3, shape, 0.6)
    scores = agreement(mask, truth, valid)
    other = agreement(torch.where(valid, mask, 1 - mask), torch.where(valid, truth, ~truth), valid)
    for name in REFERENCES:
        close(other[name], scores[name])


def test_all_valid_is_the_same_as_no_validity_mask() -> None:
    """`valid=None` counts every pixel."""
    shape = (3, 6, 5)
    mask, truth = random_mask(4, shape), random_bool(5, shape, 0.4)
    everywhere = agreement(mask, truth, torch.ones(shape, dtype=torch.bool))
    for name, score in agreement(mask, truth, None).items():
        close(everywhere[name], score)


def test_accuracy_and_error_add_up_to_one() -> None:
    """Against a binary ground truth a soft mask is right where it is not wrong."""
    shape = (4, 7, 9)
    scores = agreement(random_mask(6, shape), random_bool(7, shape, 0.3), random_bool(8, shape, 0.8))
    close(scores["acc"] + scores["mae"], [1.0] * 4)


@pytest.mark.parametrize("on", [1, 10, 33, 60])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_masks_follow_from_the_foreground_fraction(on: int, value: float) -> None:
    """The columns 0, 0.5 and 1 of Table 2, in closed form for an image with a foreground fraction f."""
    f = on / 60
    truth = torch.zeros(60, dtype=torch.bool)
    truth[torch.randperm(60, generator=torch.Generator().manual_seed(on))[:on]] = True
    mask = torch.full((1, 6, 10), value, dtype=torch.float64)
    scores = agreement(mask, truth.reshape(1, 6, 10), None)
    acc, iou, mae = {
        0.0: (1 - f, 0.0, f),
        0.5: (0.5, 0.5 * f / (f + 0.5 * (1 - f)), 0.5),
        1.0: (f, f, 1 - f),
    }[value]
    close(scores["acc"], [acc])
    close(scores["iou"], [iou])
    close(scores["mae"], [mae])


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_ground_truth_agrees_with_itself(fraction: float) -> None:
    """The column G.T. of Table 2: 1, 1 and 0, also where the image is all background or all foreground."""
    truth = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(9)) < fraction
    scores = agreement(truth.float(), truth, None)
    close(scores["acc"], [1.0] * 3)
    close(scores["iou"], [1.0] * 3)
    close(scores["mae"], [0.0] * 3)


def test_any_mask_against_an_empty_ground_truth_has_no_overlap() -> None:
    """Only an empty mask matches an empty ground truth; the faintest mask scores an IoU of 0."""
    mask = torch.zeros(2, 4, 5)
    mask[1, 2, 3] = 1e-3
    close(agreement(mask, torch.zeros(2, 4, 5, dtype=torch.bool), None)["iou"], [1.0, 0.0])


@every_shape
@pytest.mark.parametrize("classes", [3, 5, 7])
def test_saliency_equals_eq_9(seed: int, shape: tuple[int, ...], classes: int) -> None:
    """Log area, floored at 5 %, less the log of the summed probability of the present classes."""
    generator = torch.Generator().manual_seed(seed)
    mask = random_mask(seed, shape) * torch.rand(shape[0], 1, 1, generator=generator, dtype=torch.float64) ** 3
    probabilities = torch.randn(shape[0], classes, generator=generator, dtype=torch.float64).softmax(dim=1)
    labels = (torch.rand(shape[0], classes, generator=generator) < 0.5).float()
    labels[:, seed % classes] = 1
    score = saliency(mask, probabilities.log(), labels)
    assert score.shape == shape[:1]
    close(score, per_image(reference.saliency, mask, probabilities, labels))


def test_saliency_is_zero_for_a_full_mask_and_a_sure_classifier() -> None:
    """Log 1 less log 1; with a probability of one half in two present classes each as well."""
    probabilities = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    close(saliency(torch.ones(2, 4, 5), probabilities.log(), labels), [0.0, 0.0])


@pytest.mark.parametrize(("area", "counted"), [(0.0, 0.05), (0.01, 0.05), (0.05, 0.05), (0.2, 0.2)])
def test_saliency_gives_no_credit_below_five_percent(area: float, counted: float) -> None:
    """Masks smaller than 5 % of the image count as 5 %."""
    score = saliency(
        torch.full((1, 10, 10), area, dtype=torch.float64), torch.tensor([[0.8, 0.2]]).double().log(), torch.eye(2)[:1]
    )
    close(score, [math.log(counted) - math.log(0.8)])


def test_saliency_stays_finite_where_a_probability_underflows() -> None:
    """A class that the classifier is sure is not there, by 120 logits, is bad but not infinitely bad."""
    log_probabilities = torch.tensor([[0.0, -120.0]]).log_softmax(dim=1)
    close(saliency(torch.ones(1, 4, 4), log_probabilities, torch.tensor([[0.0, 1.0]])), [120.0])


def test_images_without_a_valid_pixel_or_a_class_are_left_out_of_the_means_that_they_lack() -> None:
    """One of them would turn a mean into NaN or infinity for good."""
    shape = (4, 6, 5)
    mask, truth, valid = random_mask(1, shape), random_bool(2, shape, 0.4), random_bool(3, shape, 0.6)
    valid[1] = False
    log_probabilities, labels = torch.randn(4, 3, dtype=torch.float64).log_softmax(dim=1), torch.eye(3)[[0, 1, 2, 0]]
    labels[2] = 0
    whole, first, second = (SegmentationAgreement() for _ in range(3))
    batch = (mask, truth, valid, log_probabilities, labels)
    whole.update(*batch)
    for metric, part in ((first, slice(0, 2)), (second, slice(2, 4))):
        metric.update(*(value[part] for value in batch))
    first.merge_state(second)
    found = whole.compute()
    assert first.compute() == pytest.approx(found)
    assert [found[name] for name in ("images", "agreement_images", "saliency_images")] == [4, 3, 3]
    scores = agreement(*(value[[0, 2, 3]] for value in (mask, truth, valid)))
    for name, values in scores.items():
        assert found[name] == pytest.approx(100 * values.mean().item())
    kept = [0, 1, 3]
    assert found["sal"] == pytest.approx(saliency(mask[kept], log_probabilities[kept], labels[kept]).mean().item())


def test_without_an_image_that_has_a_score_its_mean_is_nan() -> None:
    """And the counts say why."""
    metric = SegmentationAgreement()
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    metric.update(torch.ones(1, 4, 4), nothing, nothing, torch.zeros(1, 3).log_softmax(dim=1), torch.zeros(1, 3))
    found = metric.compute()
    assert all(math.isnan(found[name]) for name in ("acc", "iou", "mae", "sal"))
    assert [found[name] for name in ("images", "agreement_images", "saliency_images")] == [1, 0, 0]
