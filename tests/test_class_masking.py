"""Class-specific masking (NN-Explainer, Table 1) on classifiers whose answers are known.

B images, C classes, M masks, T rows, H×W pixels; masks lie in [0, 1].
"""

import math

import pytest
import torch
from toy_models import SIZE, SmallNet, WindowNet, freeze

from explainer.masking import apply_mask
from explainer.metrics.masking import (
    THRESHOLDS,
    UNMASKED,
    ClassMasking,
    class_masking_scores,
    class_specificity,
    masked_probabilities,
    masking_matrix,
    unmasked_scores,
)

SURE = 40.0
"""Factor on a WindowNet's logits that makes its softmax all but 0 and 1."""


def windows(classes=3):
    """A classifier that sees one square a class, and these squares [C,H,W] as masks."""
    net = freeze(WindowNet(classes))
    return (lambda image: SURE * net(image)), net.model.windows.windows.clone()


def brightness(image):
    """Two logits: the mean of the image, and 0."""
    mean = image.double().mean(dim=(1, 2, 3))
    return torch.stack([mean, torch.zeros_like(mean)], dim=1)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def one_by_one(classifier, image, masks, target, thresholds=THRESHOLDS):
    """Table 1's recipe as plain loops over images, masks and thresholds."""
    scores = torch.zeros(masks.shape[:2], dtype=torch.float64)
    for b in range(masks.shape[0]):
        for m in range(masks.shape[1]):
            for threshold in thresholds:
                kept = (masks[b, m] > threshold).float()
                logits = classifier(apply_mask(image[b : b + 1], kept[None]))
                scores[b, m] += logits.double().softmax(dim=1)[0, target[b]] / len(thresholds)
    return scores


def test_a_classifier_that_reads_one_square_a_class_gives_the_identity():
    classifier, squares = windows()
    image, target = torch.ones(3, 3, SIZE, SIZE), torch.arange(3)
    scores = class_masking_scores(classifier, image, squares.expand(3, -1, -1, -1), target)
    torch.testing.assert_close(scores, torch.eye(3), rtol=0, atol=1e-6)
    assert class_specificity(scores).item() == pytest.approx(1)
    torch.testing.assert_close(unmasked_scores(classifier, image, target), torch.full((3,), 1 / 3))


def test_masks_that_keep_everything_are_not_specific():
    classifier, _ = windows()
    image = noise(3, 3, SIZE, SIZE)
    scores = class_masking_scores(classifier, image, torch.ones(3, 3, SIZE, SIZE), torch.arange(3))
    torch.testing.assert_close(scores, unmasked_scores(classifier, image, torch.arange(3))[:, None].expand(3, 3))
    assert class_specificity(scores).item() == pytest.approx(0, abs=1e-6)


def test_masks_of_the_wrong_class_are_worse_than_none():
    classifier, squares = windows(2)
    scores = class_masking_scores(
        classifier, torch.ones(2, 3, SIZE, SIZE), squares.flip(0).expand(2, -1, -1, -1), torch.arange(2)
    )
    assert class_specificity(scores).item() == pytest.approx(-1)


@pytest.mark.parametrize("value", [0.0, 0.05, 0.1, 0.15, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pixel_stays_where_its_mask_is_strictly_above_the_threshold(value, dtype):
    """A flat mask keeps the whole image at the thresholds below it and none of it at the others, its own among them."""
    below = sum(threshold < value for threshold in THRESHOLDS)
    masks = torch.full((1, 1, 4, 5), value, dtype=dtype)
    score = class_masking_scores(brightness, torch.full((1, 3, 4, 5), 2.0), masks, torch.tensor([0]))
    kept = 1 / (1 + math.exp(-2))
    assert score.item() == pytest.approx((below * kept + (9 - below) * 0.5) / 9)


def test_thresholds_can_be_chosen():
    masks = torch.tensor([0.2, 0.6]).reshape(1, 2, 1, 1).expand(1, 2, 4, 5)
    scores = class_masking_scores(brightness, torch.full((1, 3, 4, 5), 2.0), masks, torch.tensor([1]), [0.5])
    torch.testing.assert_close(scores, torch.tensor([[0.5, 1 / (1 + math.exp(2))]]).double())


def test_scores_equal_plain_loops():
    explanandum = freeze(SmallNet())
    image, masks, target = noise(4, 3, SIZE, SIZE), noise(4, 2, SIZE, SIZE, seed=1), torch.tensor([2, 0, 1, 1])
    scores = class_masking_scores(explanandum, image, masks, target)
    assert scores.shape == (4, 2)
    torch.testing.assert_close(scores.double(), one_by_one(explanandum, image, masks, target), rtol=0, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 7, 1000, "auto"])
def test_the_scores_do_not_depend_on_the_chunk_size(chunk_size):
    explanandum = freeze(SmallNet())
    image, masks, target = noise(3, 3, SIZE, SIZE), noise(3, 2, SIZE, SIZE, seed=1), torch.tensor([2, 0, 1])
    sizes = []

    def watched(part):
        assert not torch.is_grad_enabled()
        sizes.append(len(part))
        return explanandum(part)

    for score, expected in [
        (
            class_masking_scores(watched, image, masks, target, chunk_size=chunk_size),
            class_masking_scores(explanandum, image, masks, target, chunk_size=4),
        ),
        (unmasked_scores(watched, image, target, chunk_size), unmasked_scores(explanandum, image, target, 3)),
    ]:
        torch.testing.assert_close(score, expected, rtol=0, atol=1e-6)
    assert sum(sizes) == 3 * 2 * 9 + 3
    assert chunk_size == "auto" or max(sizes) <= chunk_size


def test_a_batch_scores_what_its_images_score_alone():
    explanandum = freeze(SmallNet())
    image, masks, target = noise(3, 3, SIZE, SIZE), noise(3, 2, SIZE, SIZE, seed=1), torch.tensor([2, 0, 1])
    alone = [class_masking_scores(explanandum, image[b : b + 1], masks[b : b + 1], target[b : b + 1]) for b in range(3)]
    torch.testing.assert_close(
        class_masking_scores(explanandum, image, masks, target), torch.cat(alone), rtol=0, atol=1e-6
    )


def test_probabilities_of_all_classes_come_from_one_call_and_sum_to_one():
    explanandum = freeze(SmallNet())
    image, masks = noise(2, 3, SIZE, SIZE), noise(2, 4, SIZE, SIZE, seed=1)
    probabilities = masked_probabilities(explanandum, image, masks)
    assert probabilities.shape == (2, 4, 3)
    torch.testing.assert_close(probabilities.sum(dim=2), torch.ones(2, 4))
    for target in ([0, 2], [1, 1]):
        scores = class_masking_scores(explanandum, image, masks, torch.tensor(target))
        torch.testing.assert_close(scores, torch.stack([probabilities[b, :, target[b]] for b in range(2)]))


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_masks_outside_their_range_are_an_error(value):
    masks = torch.full((1, 1, 4, 4), 0.5)
    masks[0, 0, 2, 3] = value
    with pytest.raises(ValueError, match=r"outside \[0, 1\]; scale them"):
        masked_probabilities(brightness, torch.ones(1, 3, 4, 4), masks)


def test_masks_without_the_axis_of_classes_are_an_error():
    with pytest.raises(ValueError, match=r"give \[B,M,H,W\]"):
        masked_probabilities(brightness, torch.ones(4, 3, 4, 4), torch.ones(4, 4, 4))


def test_half_precision_is_scored_in_single_precision():
    masks = torch.full((1, 1, 4, 5), 0.5, dtype=torch.bfloat16)
    scores = class_masking_scores(
        lambda image: brightness(image).bfloat16(), torch.ones(1, 3, 4, 5), masks, torch.zeros(1).long()
    )
    assert scores.dtype == torch.float32


def test_the_matrix_holds_the_mean_of_each_cells_records():
    target = torch.tensor([4, 4, 7, 4, 4])
    mask = torch.tensor([4, 7, 4, 4, UNMASKED])
    probability = torch.tensor([0.5, 0.25, 0.125, 1.0, 0.75])
    matrix = masking_matrix(target, mask, probability, targets=[7, 4], masks=[UNMASKED, 7, 4])
    expected = torch.tensor([[math.nan, math.nan, 0.125], [0.75, 0.25, 0.75]]).double()
    torch.testing.assert_close(matrix, expected, equal_nan=True)


def test_records_that_belong_to_no_cell_are_an_error():
    one = torch.tensor([1])
    with pytest.raises(ValueError, match="target class is not among those of the table: 2, 3"):
        masking_matrix(one, one, torch.ones(1), [2, 3], [1])
    with pytest.raises(ValueError, match="mask class is not among those of the table: 2"):
        masking_matrix(one, one, torch.ones(1), [1], [2])


def test_the_figure_of_merit_is_the_diagonal_less_the_rest():
    matrix = torch.tensor([[0.8, 0.1, 0.3], [0.0, 0.4, 0.2], [0.1, 0.5, 0.6]])
    assert class_specificity(matrix).item() == pytest.approx(0.6 - 0.2)
    matrix[1] = math.nan  # a class without an image
    assert class_specificity(matrix).item() == pytest.approx(0.7 - 0.25)
    assert class_specificity(torch.ones(1, 1)).isnan()
    with pytest.raises(ValueError, match="as many columns as rows"):
        class_specificity(torch.ones(2, 3))


def test_table_1_of_the_paper_has_the_figures_of_merit_that_follow_from_it():
    """The numbers of the Explainer and of RISE, in percent."""
    learned = torch.tensor(
        [
            [15.29, 4.91, 4.82, 4.82, 2.72],
            [6.71, 62.92, 6.67, 6.66, 7.11],
            [6.09, 6.18, 60.55, 6.33, 5.74],
            [4.67, 4.70, 5.93, 57.60, 4.58],
            [8.90, 6.18, 5.83, 6.57, 71.01],
        ]
    )
    rise = torch.tensor(
        [
            [18.67, 10.94, 12.05, 10.70, 9.73],
            [29.75, 56.66, 30.27, 34.43, 32.42],
            [37.89, 39.28, 49.61, 41.89, 36.02],
            [19.64, 20.34, 23.72, 45.12, 22.83],
            [56.06, 53.39, 47.33, 54.81, 63.52],
        ]
    )
    assert class_specificity(learned).item() == pytest.approx(267.37 / 5 - 116.12 / 20, abs=1e-3)
    assert class_specificity(rise).item() == pytest.approx(233.58 / 5 - 623.49 / 20, abs=1e-3)


def filled(metric, target, scores, unmasked):
    metric.update(target, scores, unmasked)
    return metric


def test_the_metric_is_the_matrix_of_its_records():
    target = torch.tensor([6, 4, 6, 6])
    scores, unmasked = noise(4, 3), noise(4, seed=1)
    table = filled(ClassMasking([4, 6, 14]), target, scores, unmasked).compute()
    rows = target.repeat_interleave(3)
    expected = masking_matrix(rows, torch.tensor([4, 6, 14]).repeat(4), scores.flatten(), [4, 6, 14], [4, 6, 14])
    torch.testing.assert_close(table["matrix"], expected, equal_nan=True)
    torch.testing.assert_close(
        table["unmasked"],
        torch.stack([unmasked[1], unmasked[[0, 2, 3]].mean(), torch.tensor(math.nan)]).double(),
        equal_nan=True,
        rtol=0,
        atol=1e-6,
    )
    assert table["images"].tolist() == [1, 3, 0]
    assert table["class_specificity"] == pytest.approx(class_specificity(expected).item())


def test_states_of_several_processes_add_up():
    target = torch.arange(10) % 3
    scores, unmasked = noise(10, 3), noise(10, seed=1)
    whole = filled(ClassMasking(range(3)), target, scores, unmasked).compute()
    first, second = (
        filled(ClassMasking(range(3)), target[part], scores[part], unmasked[part])
        for part in (slice(0, 7), slice(7, 10))
    )
    first.merge_state(second)
    merged = first.compute()
    for name in ("matrix", "unmasked", "images"):
        torch.testing.assert_close(merged[name], whole[name])
    assert merged["class_specificity"] == pytest.approx(whole["class_specificity"])


def test_the_metric_refuses_an_image_of_another_class():
    with pytest.raises(ValueError, match="target class is not among"):
        filled(ClassMasking([4, 6]), torch.tensor([5]), torch.ones(1, 2), torch.ones(1))
