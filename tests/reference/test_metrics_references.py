"""The references of the metrics are right where the answer can be worked out by hand."""

import math

import pytest

from reference import curves, masking, pixels, pointing, recognition, similarity

CLOSE = {"abs": 1e-12}
LOG3 = math.log(3)


def total(image: pixels.Image) -> float:
    """A score that shows what has been put into an image: the sum of its values."""
    return sum(value for channel in image for row in channel for value in row)


# --- insertion and deletion ---


def test_pixels_are_ranked_by_decreasing_value() -> None:
    """Row by row in numbering and, unless another order is asked for, among equals."""
    saliency = [[0.2, 0.9, 0.2], [-1.0, 0.2, 0.5]]
    assert curves.ranking(saliency) == [1, 5, 0, 2, 4, 3]
    assert curves.ranking(saliency, ties=[5, 4, 3, 2, 1, 0]) == [1, 5, 4, 2, 0, 3]
    assert curves.ranking(saliency, ties=[2, 3, 0, 5, 1, 4]) == [1, 5, 2, 0, 4, 3]
    assert curves.ranking([[0.0, 0.0], [-0.0, 0.0]], ties=[3, 0, 2, 1]) == [3, 0, 2, 1]
    with pytest.raises(AssertionError):
        curves.ranking(saliency, ties=[0, 1, 2])


def test_steps_end_with_all_pixels() -> None:
    """By pixels the last step takes the rest; by fractions each point is rounded for itself."""
    assert curves.counts_by_pixels(6, 2) == [0, 2, 4, 6]
    assert curves.counts_by_pixels(7, 3) == [0, 3, 6, 7]
    assert curves.counts_by_pixels(2, 5) == [0, 2]
    assert curves.counts_by_fraction(6, 0.5) == [0, 3, 6]
    assert curves.counts_by_fraction(10, 0.1) == list(range(11))
    assert curves.counts_by_fraction(7, 0.25) == [0, 2, 4, 5, 7]  # 1.75, 3.5, 5.25
    assert curves.counts_by_fraction(10, 0.4) == [0, 4, 8, 10]
    assert curves.counts_by_fraction(8, 1.0) == [0, 8]


def test_the_papers_steps_on_224_pixels() -> None:
    """RISE's 224 pixels are 225 points, the Group-CAM code's 448 are 113, the paper's 1 % are 101."""
    size = 224 * 224
    assert len(curves.counts_by_pixels(size, 224)) == 225
    assert len(curves.counts_by_pixels(size, 448)) == 113
    by_percent = curves.counts_by_fraction(size, 0.01)
    assert len(by_percent) == 101
    assert by_percent[:4] == [0, 502, 1004, 1505]  # 501.76, 1003.52, 1505.28


def test_curves_of_a_sum_by_hand() -> None:
    """Pixels of 1, 2, 4 and 8, the largest first: what is inserted adds up, what is deleted is left out."""
    image = [[[1.0, 2.0], [4.0, 8.0]]]
    order = curves.ranking(image[0])
    assert order == [3, 2, 1, 0]
    assert curves.insertion_curve(image, curves.black(image), order, [0, 1, 2, 4], total) == [0, 8, 12, 15]
    assert curves.deletion_curve(image, curves.black(image), order, [0, 1, 2, 4], total) == [15, 7, 3, 0]
    assert image == [[[1.0, 2.0], [4.0, 8.0]]]


def test_a_pixel_changes_in_all_channels() -> None:
    """Pixel 3 of a 2×3 image is the first of its second row, in each channel."""
    image = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]]]
    only_fourth = [[[0.0, 0.0, 0.0], [4.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [40.0, 0.0, 0.0]]]
    assert curves.changed(curves.black(image), image, [3]) == only_fourth
    assert curves.changed(curves.black(image), image, [5, 1, 0, 3, 2, 4]) == image
    assert curves.changed(image, curves.black(image), []) == image


def test_insertion_may_start_from_a_blurred_image() -> None:
    """A blurred dot is lower in its middle; inserting the dot lifts it to what it was."""
    dot = [[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]
    blurred = pixels.gaussian_blur(dot, 3, 1.0)
    side = math.exp(-1 / 2)
    middle = 1 / (1 + 2 * side) ** 2
    centre = lambda image: image[0][1][1]  # noqa: E731
    order = curves.ranking(dot[0])
    assert curves.insertion_curve(dot, blurred, order, [0, 1, 9], centre) == pytest.approx([middle, 1, 1], **CLOSE)
    assert curves.deletion_curve(dot, blurred, order, [0, 1, 9], centre) == pytest.approx([1, middle, middle], **CLOSE)


def test_area_under_a_curve_by_hand() -> None:
    """A constant has its own value, a straight line its middle; widths matter only where steps differ."""
    assert curves.auc([0.3] * 7) == pytest.approx(0.3, **CLOSE)
    assert curves.auc([0.0, 0.5, 1.0]) == pytest.approx(0.5, **CLOSE)
    assert curves.auc([1.0, 0.0, 0.0, 0.0, 0.0]) == pytest.approx(1 / 8, **CLOSE)
    assert curves.auc([0.0, 8.0, 12.0, 15.0]) == pytest.approx((4 + 10 + 13.5) / 3, **CLOSE)
    assert curves.auc([0.0, 8.0, 12.0, 15.0], [0, 1, 2, 4]) == pytest.approx((4 + 10 + 2 * 13.5) / 4, **CLOSE)
    assert curves.auc([0.0, 1.0, 0.0], [0, 3, 6]) == curves.auc([0.0, 1.0, 0.0])


def test_over_all_score_of_the_paper() -> None:
    """Group-CAM, Table 1: 64.91 - 11.29."""
    assert curves.over_all(64.91, 11.29) == pytest.approx(53.62, **CLOSE)


# --- pointing game ---


def at(point: tuple[int, int], height: int = 20, width: int = 30) -> list[list[float]]:
    """1 at one point, 0 elsewhere."""
    return [[1.0 if (i, j) == point else 0.0 for j in range(width)] for i in range(height)]


def test_without_tolerance_the_point_has_to_be_inside() -> None:
    """Also in images that aren't square: rows come first."""
    assert pointing.hit(at((3, 25)), at((3, 25)), 0) == 1
    assert pointing.hit(at((3, 25)), at((3, 24)), 0) == 0
    assert pointing.hit(at((3, 5)), at((5, 3)), 0) == 0


def test_tolerance_is_a_euclidean_distance_that_is_not_reached() -> None:
    """3-4-5 triangles: at a distance of 5, a tolerance of 5 misses and one of 5.1 hits."""
    assert pointing.hit(at((4, 4)), at((7, 8)), 5) == 0
    assert pointing.hit(at((4, 4)), at((7, 8)), 5.1) == 1
    assert pointing.hit(at((4, 4)), at((1, 8)), 5) == 0
    assert pointing.hit(at((4, 4)), at((1, 7)), 5) == 1
    assert pointing.hit(at((0, 0)), at((9, 12)), 15) == 0
    assert pointing.hit(at((0, 0)), at((9, 11)), 15) == 1
    assert pointing.hit(at((0, 0)), at((0, 15)), 15) == 0
    assert pointing.hit(at((0, 0)), at((10, 10)), 15) == 1  # 14.14, though 20 steps


def test_a_tolerance_of_one_adds_nothing() -> None:
    """The next pixel is exactly one away."""
    assert pointing.hit(at((3, 3)), at((3, 3)), 1) == 1
    assert pointing.hit(at((3, 3)), at((3, 4)), 1) == 0
    assert pointing.hit(at((3, 3)), at((3, 4)), 1.01) == 1


def test_any_object_of_the_class_will_do() -> None:
    """A region may have several parts; none at all can't be hit."""
    both = [[1.0, 0.0, 0.0, 0.0, 1.0]]
    assert [pointing.hit([row], both, 0) for row in ([9.0, 1, 1, 1, 1], [0, 0, 9.0, 0, 0], [0, 0, 0, 0, 9.0])] == [
        1,
        0,
        1,
    ]
    assert pointing.hit([[0.0, 0.0, 9.0, 0.0, 0.0]], both, 2) == 0
    assert pointing.hit([[0.0, 0.0, 9.0, 0.0, 0.0]], both, 2.5) == 1
    assert pointing.hit([[0.0, 1.0]], [[0.0, 0.0]], 15) == 0


def test_tied_maxima_count_by_the_share_that_hits() -> None:
    """A flat map hits as often as a random point would: the region's share of the image."""
    region = [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    assert pointing.hit([[0.7, 0.0, 0.0, 0.0], [0.0, 0.0, 0.7, 0.7]], region, 0) == pytest.approx(1 / 3, **CLOSE)
    assert pointing.hit([[-2.0] * 4] * 2, region, 0) == 3 / 8
    assert pointing.hit([[-2.0] * 4] * 2, region, 1.2) == 5 / 8  # its neighbours (0, 2) and (1, 1), too
    assert pointing.hit([[-2.0] * 4] * 2, region, 1.5) == 6 / 8  # diagonal ones as well: (1, 2)


def test_classes_count_equally() -> None:
    """Three images of class 7 don't outweigh the one of class 2; classes never asked don't matter."""
    hits = [(7, 1.0), (2, 1.0), (7, 0.0), (7, 0.5)]
    assert pointing.class_rates(hits) == {2: 1.0, 7: 0.5}
    assert pointing.mean_rate(hits) == 0.75


# --- class-specific masking ---


def sums(image: pixels.Image) -> list[float]:
    """A classifier of three classes: a class's logit is ln 3 times the sum of its channel."""
    return [LOG3 * sum(value for row in channel for value in row) for channel in image]


def test_a_mask_is_cut_strictly() -> None:
    """What equals the threshold is out."""
    assert masking.THRESHOLDS == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert masking.binarised([[0.5, 0.3], [0.31, 0.0]], 0.3) == [[1, 0], [1, 0]]
    assert [masking.binarised([[k / 10]], k / 10) for k in range(1, 10)] == [[[0]]] * 9


def test_masked_confidence_by_hand() -> None:
    """Two pixels of .15 and .55: both pass .1, one passes .2 to .5, none the rest; 3ⁿ to 1 for the class."""
    image = [[[1.0, 1.0]], [[0.0, 0.0]]]
    assert masking.confidence(image, 0, sums) == pytest.approx(9 / 10, **CLOSE)
    expected = (9 / 10 + 4 * 3 / 4 + 4 * 1 / 2) / 9
    assert masking.masked_confidence(image, [[0.15, 0.55]], 0, sums) == pytest.approx(expected, **CLOSE)
    assert masking.masked_confidence(image, [[0.15, 0.55]], 1, sums) == pytest.approx(1 - expected, **CLOSE)
    assert masking.masked_confidence(image, [[0.15, 0.55]], 0, sums, [0.3]) == pytest.approx(3 / 4, **CLOSE)
    at_threshold = (4 * 3 / 4 + 5 * 1 / 2) / 9
    assert masking.masked_confidence(image, [[0.0, 0.5]], 0, sums) == pytest.approx(at_threshold, **CLOSE)
    assert masking.masked_confidence(image, [[1.0, 1.0]], 0, sums) == pytest.approx(9 / 10, **CLOSE)


def test_matrix_by_hand() -> None:
    """Classes 2 and 0 of three: rows are what is asked for, columns whose mask is laid on."""
    left, right, whole = [[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]
    zero_left = [[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]]  # 3:1:1 while its left pixel is there
    both = [[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 2.0]]]  # 3:1:1, 1:1:9 or, whole, 3:1:9
    other = [[[5.0, 5.0]], [[5.0, 5.0]], [[5.0, 5.0]]]
    samples = [
        masking.Sample(zero_left, [1, 0, 0], {0: left, 2: right}),
        masking.Sample(both, [1, 0, 1], {0: left, 2: whole}),
        masking.Sample(other, [0, 1, 0], {0: whole, 2: whole}),
    ]
    none = masking.unmasked(samples, [2, 0], sums)
    assert none == pytest.approx([9 / 13, (3 / 5 + 3 / 13) / 2], **CLOSE)
    table = masking.matrix(samples, [2, 0], sums)
    assert table[0] == pytest.approx([9 / 13, 1 / 5], **CLOSE)
    assert table[1] == pytest.approx([(1 / 3 + 3 / 13) / 2, (3 / 5 + 3 / 5) / 2], **CLOSE)
    merit = (9 / 13 + 3 / 5) / 2 - (1 / 5 + (1 / 3 + 3 / 13) / 2) / 2
    assert masking.figure_of_merit(table) == pytest.approx(merit, **CLOSE)


def test_a_class_without_images_has_no_mean() -> None:
    """Neither good nor bad: not a number."""
    samples = [masking.Sample([[[1.0]], [[0.0]]], [1, 0], {0: [[1.0]], 1: [[0.0]]})]
    assert masking.matrix(samples, [0, 1], sums)[0] == pytest.approx([3 / 4, 1 / 2], **CLOSE)
    assert all(math.isnan(value) for value in masking.matrix(samples, [0, 1], sums)[1])
    assert math.isnan(masking.unmasked(samples, [1], sums)[0])


def test_figure_of_merit_of_the_paper() -> None:
    """The Explainer's part of Table 1: 267.37 over 5 on the diagonal, 116.12 over 20 beside it."""
    table = [
        [15.29, 4.91, 4.82, 4.82, 2.72],
        [6.71, 62.92, 6.67, 6.66, 7.11],
        [6.09, 6.18, 60.55, 6.33, 5.74],
        [4.67, 4.70, 5.93, 57.60, 4.58],
        [8.90, 6.18, 5.83, 6.57, 71.01],
    ]
    assert masking.figure_of_merit(table) == pytest.approx(53.474 - 5.806, **CLOSE)
    assert masking.figure_of_merit([[1.0, 0.0], [0.0, 1.0]]) == 1
    assert masking.figure_of_merit([[0.4, 0.4], [0.4, 0.4]]) == 0


# --- precision, recall, F-score ---

# Class 0: two hits, a false alarm, a miss; class 1: one hit, three misses; class 2: one false alarm, never there.
LOGITS = [[2.0, 1.0, -9.0], [0.5, -1.0, -9.0], [3.0, -2.0, -9.0], [-0.5, -0.1, 4.0]]
LABELS = [[1, 1, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]]


def test_scores_of_one_class_by_hand() -> None:
    """2/3, 2/3, 4/6; 1, 1/4, 2/5; and nothing but zeros where nothing is right or nothing is defined."""
    counted = recognition.counts(LOGITS, LABELS, 0)
    assert counted == [(2, 1, 1), (1, 0, 3), (0, 1, 0)]
    assert recognition.scores(counted[0]) == pytest.approx((2 / 3, 2 / 3, 2 / 3), **CLOSE)
    assert recognition.scores(counted[1]) == pytest.approx((1, 1 / 4, 2 / 5), **CLOSE)
    assert recognition.scores(counted[2]) == (0, 0, 0)
    assert recognition.scores(recognition.Counts(0, 0, 0)) == (0, 0, 0)
    assert recognition.scores(recognition.Counts(0, 0, 2)) == (0, 0, 0)


def test_macro_and_pooled_means_differ() -> None:
    """Macro takes the mean of the classes' scores, pooled the scores of 3 hits, 2 false alarms and 4 misses."""
    expected = ((2 / 3 + 1) / 3, (2 / 3 + 1 / 4) / 3, (2 / 3 + 2 / 5) / 3)
    assert recognition.macro(LOGITS, LABELS, 0) == pytest.approx(expected, **CLOSE)
    assert recognition.pooled(LOGITS, LABELS, 0) == pytest.approx((3 / 5, 3 / 7, 6 / 12), **CLOSE)


def test_a_logit_at_the_threshold_is_a_prediction() -> None:
    """At -1, -1 counts, and with it -.5 and -.1: three hits for each of the first two classes."""
    assert recognition.counts(LOGITS, LABELS, -1) == [(3, 1, 0), (3, 0, 1), (0, 1, 0)]
    assert recognition.counts(LOGITS, LABELS, -0.999)[1] == (2, 0, 2)


@pytest.mark.parametrize(
    ("precision", "recall", "f_score"),
    [
        (88.4, 63.9, 74.2),
        (86.4, 62.9, 72.8),
        (85.2, 72.3, 78.2),
        (77.3, 69.6, 73.2),
        (73.5, 45.4, 56.1),
        (66.9, 45.0, 53.8),
        (77.6, 44.6, 56.6),
        (69.1, 48.9, 57.3),
    ],
)
def test_table_4_has_the_f_score_of_its_own_precision_and_recall(
    precision: float, recall: float, f_score: float
) -> None:
    """Within rounding, as pooled counts have it."""
    assert 2 * precision * recall / (precision + recall) == pytest.approx(f_score, abs=0.1)


# --- rank correlation ---


def test_equal_values_share_their_ranks() -> None:
    """The places 2 and 3 become 2.5 twice."""
    assert similarity.ranks([10.0, 30.0, 20.0, 20.0]) == [1, 4, 2.5, 2.5]
    assert similarity.ranks([5.0, 5.0, 5.0]) == [2, 2, 2]
    assert similarity.ranks([-1.0, 0.0, -0.0]) == [1, 2.5, 2.5]


def test_spearman_by_hand() -> None:
    """Without ties 1 - 6 Σd² / n(n² - 1): two swapped pairs of four give 1 - 24/60; with a tie 4.5 / √(4.5·5)."""
    rising = [[1.0, 2.0], [3.0, 4.0]]
    assert similarity.spearman(rising, [[2.0, 1.0], [4.0, 3.0]]) == pytest.approx(0.6, **CLOSE)
    assert similarity.spearman(rising, [[1.0, 2.0], [2.0, 3.0]]) == pytest.approx(math.sqrt(0.9), **CLOSE)
    assert similarity.spearman([[1.0, 1.0], [2.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]]) == 0


def test_spearman_sees_order_only() -> None:
    """Rising functions change nothing, falling ones the sign."""
    first = [[0.3, -2.0, 5.0], [1.0, 0.0, 0.7]]
    assert similarity.spearman(first, [[math.exp(value) for value in row] for row in first]) == pytest.approx(
        1, **CLOSE
    )
    assert similarity.spearman(first, [[-(value**3) for value in row] for row in first]) == pytest.approx(-1, **CLOSE)


def test_nothing_correlates_with_a_flat_map() -> None:
    """Not even another flat map."""
    assert similarity.spearman([[0.3, 0.3]], [[0.0, 1.0]]) == 0
    assert similarity.spearman([[0.3, 0.3]], [[0.3, 0.3]]) == 0
