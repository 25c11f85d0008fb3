"""The reference is right where the answer can be worked out by hand."""

import math

import pytest

from reference import nn_explainer as reference

CLOSE = {"abs": 1e-12}
GROUND_TRUTH = [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
FOREGROUND = 3 / 8


def filled(value: float, height: int = 2, width: int = 4) -> list[list[float]]:
    """A constant mask."""
    return [[value] * width for _ in range(height)]


def test_sigmoid_known_points() -> None:
    """σ(0) = 1/2, σ(ln 3) = 3/4, σ(t) + σ(-t) = 1, and no overflow far out."""
    assert reference.sigmoid(0) == 0.5
    assert reference.sigmoid(math.log(3)) == pytest.approx(0.75, **CLOSE)
    assert reference.sigmoid(2.5) + reference.sigmoid(-2.5) == pytest.approx(1, **CLOSE)
    assert (reference.sigmoid(1e4), reference.sigmoid(-1e4)) == (1.0, 0.0)
    assert reference.log_sigmoid(math.log(3)) == pytest.approx(math.log(0.75), **CLOSE)
    assert reference.log_sigmoid(-1e4) == -1e4


def test_masks_are_split_by_label() -> None:
    """Each merged mask takes the higher of its own classes' masks in every pixel."""
    logits = [[[0.0, math.log(3)]], [[math.log(3), 0.0]], [[-math.log(3), -math.log(3)]]]
    assert reference.target_mask(logits, [1, 1, 0])[0] == pytest.approx([0.75, 0.75], **CLOSE)
    assert reference.non_target_mask(logits, [1, 1, 0])[0] == pytest.approx([0.25, 0.25], **CLOSE)
    assert reference.target_mask(logits, [0, 0, 0]) == [[0.0, 0.0]]
    assert reference.non_target_mask(logits, [1, 1, 1]) == [[0.0, 0.0]]


def test_classification_loss_by_hand() -> None:
    """Probabilities (3/4, 1/2) with labels (1, 0) costs (ln 4/3 + ln 2) / 2."""
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert reference.classification_loss([math.log(3), 0.0], [1, 0]) == pytest.approx(expected, **CLOSE)
    assert reference.classification_loss([1e4, -1e4], [0, 1]) == 1e4


def test_negative_entropy_by_hand() -> None:
    """Uniform logits give -ln(C)/C, a certain class 0, odds of 3:1 the entropy of a biased coin."""
    assert reference.negative_entropy([7.0] * 5) == pytest.approx(-math.log(5) / 5, **CLOSE)
    assert reference.negative_entropy([1e4, 0.0, -1e4]) == 0
    expected = (0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / 2
    assert reference.negative_entropy([math.log(3), 0.0]) == pytest.approx(expected, **CLOSE)


def test_area_bound_by_hand() -> None:
    """Of 20 pixels 1 must be on and 6 may be: .1 is missing on the first, the 7th and 8th are .5 too high."""
    mask = [[0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.9, 0.0], [0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]]
    assert reference.area(mask) == pytest.approx(4.4 / 20, **CLOSE)
    assert reference.area_bound(mask, 0.05, 0.3) == pytest.approx(0.1 / 20 + 2 * 0.5 / 20, **CLOSE)
    assert reference.area_bound(filled(1.0), 0.05, 0.3) == pytest.approx(6 / 8, **CLOSE)
    assert reference.area_bound(filled(0.0), 0.3, 0.6) == pytest.approx(2 / 8, **CLOSE)


def test_bound_term_is_a_mean_over_present_classes() -> None:
    """Two present classes count half each, absent ones not at all."""
    masks = [filled(1.0), filled(0.0), filled(0.5)]
    assert reference.bound_term(masks, [1, 1, 0], 0.3, 0.6) == pytest.approx((4 / 8 + 2 / 8) / 2, **CLOSE)
    assert reference.bound_term(masks, [0, 0, 0], 0.3, 0.6) == 0


def test_total_variation_by_hand() -> None:
    """Differences inside the mask only: here two horizontal and two vertical ones."""
    assert reference.total_variation([[0.0, 1.0], [0.5, 0.5]]) == pytest.approx((1 + 0 + 0.5 + 0.5) / 4, **CLOSE)
    assert reference.total_variation(filled(0.3)) == 0
    assert reference.total_variation([[0.0, 0.0, 1.0, 1.0]] * 3) == pytest.approx(1 / 4, **CLOSE)


@pytest.mark.parametrize(
    ("value", "acc", "overlap", "error"),
    [
        (0.0, 1 - FOREGROUND, 0.0, FOREGROUND),
        (0.5, 0.5, 0.5 * FOREGROUND / (FOREGROUND + 0.5 * (1 - FOREGROUND)), 0.5),
        (1.0, FOREGROUND, FOREGROUND, 1 - FOREGROUND),
    ],
)
def test_constant_masks_score_what_the_foreground_fraction_says(
    value: float, acc: float, overlap: float, error: float
) -> None:
    """The columns 0, 0.5 and 1 of Table 2."""
    mask = filled(value)
    assert reference.accuracy(mask, GROUND_TRUTH) == pytest.approx(acc, **CLOSE)
    assert reference.iou(mask, GROUND_TRUTH) == pytest.approx(overlap, **CLOSE)
    assert reference.mae(mask, GROUND_TRUTH) == pytest.approx(error, **CLOSE)


def test_ground_truth_scores_full_marks() -> None:
    """The column G.T. of Table 2, also for an image without foreground."""
    for truth in (GROUND_TRUTH, filled(0.0)):
        assert reference.accuracy(truth, truth) == 1
        assert reference.iou(truth, truth) == 1
        assert reference.mae(truth, truth) == 0


def test_ignored_pixels_do_not_count() -> None:
    """Without its three foreground pixels the image is all background."""
    ignored = [(0, 0), (0, 1), (1, 0)]
    assert reference.accuracy(filled(0.25), GROUND_TRUTH, ignored) == pytest.approx(0.75, **CLOSE)
    assert reference.iou(filled(0.25), GROUND_TRUTH, ignored) == 0
    assert reference.mae(filled(0.25), GROUND_TRUTH, ignored) == pytest.approx(0.25, **CLOSE)


def test_saliency_by_hand() -> None:
    """Log area, never below log .05, less the log of the present classes' probability."""
    assert reference.saliency(filled(0.4), [0.5, 0.3, 0.2], [1, 1, 0]) == pytest.approx(math.log(0.5), **CLOSE)
    assert reference.saliency(filled(0.01), [1.0, 0.0], [1, 0]) == pytest.approx(math.log(0.05), **CLOSE)


def test_the_loss_is_put_together_by_hand() -> None:
    """Two pixels, masks (3/4, 1/2) of the present class and (1/2, 1/4) of the other, a classifier of pixel sums."""
    log3 = math.log(3)
    logits = [[[log3, 0.0]], [[0.0, -log3]]]
    image = [[[1.0, 2.0]], [[0.0, 0.0]], [[0.0, 0.0]]]
    terms = reference.loss_terms(image, [1, 0], logits, lambda pixels: [sum(pixels[0][0]), 0.0], (0.5, 0.5))
    complement = 1 / (1 + math.exp(-1.25))  # the complement's logits are 1/4 + 2/2 and 0
    expected = {
        "classification": (math.log(1 + math.exp(-1.75)) + math.log(2)) / 2,  # the masked image's are 3/4 + 1 and 0
        "entropy": (complement * math.log(complement) + (1 - complement) * math.log(1 - complement)) / 2,
        "area_target": 0.625,
        "area_nontarget": 0.375,
        "bound": (0.25 + 0.5) / 2,
        "tv": (0.25 + 0.25) / 2,
    }
    assert terms == pytest.approx(expected, **CLOSE)
    weights = {"entropy": 10.0, "area_target": 100.0, "area_nontarget": 1000.0, "bound": 1e4, "tv": 1e5}
    by_hand = sum({"classification": 1.0, **weights}[name] * value for name, value in expected.items())
    assert reference.explainer_loss(terms, weights) == pytest.approx(by_hand, rel=1e-12)
