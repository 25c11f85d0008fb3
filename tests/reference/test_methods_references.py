"""The references of the attribution methods are right where the answer can be worked out by hand."""

import math

import pytest

from reference import group_cam, igos, pami, pixels, rise

CLOSE = {"abs": 1e-12}


def close(actual, expected):
    """Two nested lists agree in shape and value."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        if isinstance(other, list):
            close(one, other)
        else:
            assert one == pytest.approx(other, **CLOSE)


# --- pixels ---


def test_bilinear_by_hand():
    """Cells' middles of two points on four: outside constant, inside a quarter and three quarters of the way."""
    close(pixels.bilinear([[0.0, 1.0]], 1, 4), [[0.0, 0.25, 0.75, 1.0]])
    close(pixels.bilinear([[0.0], [3.0]], 3, 2), [[0.0, 0.0], [1.5, 1.5], [3.0, 3.0]])
    close(pixels.bilinear([[0.0, 1.0]], 1, 3, align_corners=True), [[0.0, 0.5, 1.0]])
    close(pixels.bilinear([[0.0, 1.0], [2.0, 3.0]], 2, 4)[1], [2.0, 2.25, 2.75, 3.0])
    close(pixels.bilinear([[1.0, 2.0], [5.0, 7.0]], 2, 2), [[1.0, 2.0], [5.0, 7.0]])


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_transposed_resize_is_the_adjoint(align_corners):
    """<up(a), b> = <a, upᵀ(b)>."""
    small, large = [[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], [[(3 * i - j * j) / 7 for j in range(7)] for i in range(5)]
    up = pixels.bilinear(small, 5, 7, align_corners)
    down = pixels.bilinear_transposed(large, 2, 3, align_corners)
    left = sum(u * b for row, other in zip(up, large, strict=True) for u, b in zip(row, other, strict=True))
    right = sum(a * d for row, other in zip(small, down, strict=True) for a, d in zip(row, other, strict=True))
    assert left == pytest.approx(right, **CLOSE)


def test_blur_by_hand():
    """A constant stays; a bright corner sees its neighbours twice and is seen by them once on each side."""
    close(pixels.gaussian_blur([pixels.filled(0.7, 3, 4)], 5, 2.0), [pixels.filled(0.7, 3, 4)])
    side = math.exp(-1 / (2 * 1.5**2))
    middle, side = 1 / (1 + 2 * side), side / (1 + 2 * side)
    close(pixels.gaussian_blur([[[1.0, 0.0, 0.0]] * 2], 3, 1.5)[0][0], [middle, side, 0.0])
    close(pixels.gaussian_blur([[[0.0, 1.0, 0.0]] * 2], 3, 1.5)[0][0], [2 * side, middle, 2 * side])


def test_blend_and_scale_by_hand():
    """A mask of 1 keeps the image, 0 the baseline image; a flat mask has no scale."""
    close(pixels.blended([[[4.0, 4.0, 4.0]]], [[[0.0, 0.0, 8.0]]], [[0.0, 1.0, 0.25]]), [[[0.0, 4.0, 7.0]]])
    close(pixels.min_max([[1.0, 2.0], [3.0, 5.0]]), [[0.0, 0.25], [0.5, 1.0]])
    assert pixels.min_max(pixels.filled(0.3, 2, 2)) is None


# --- PAMI ---


def test_pami_of_a_sum_gives_its_summands():
    """The contribution of a word to a sum over words is the word's weight: PAMI's core knows nothing of images."""
    weights = {"good": 3.0, "not": -2.0, "the": 0.0}
    score = lambda words: sum(weights[word] for word in words)  # noqa: E731
    assert pami.contributions(["not", "the", "good"], lambda word: [word], score) == [-2.0, 0.0, 3.0]


def test_pami_averages_over_the_parts_that_cover_a_pixel():
    """Scores 2 and 4: only the first part, both, only the second, none."""
    close(pami.importance([2.0, 4.0], [[[1.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0, 0.0]]]), [[2.0, 3.0, 4.0, 0.0]])


def test_pami_circles_by_hand():
    """Radius 1 is a plus sign; the border cuts it; rows come before columns."""
    close(pami.circle(3, 4, (1, 2), 1), [[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 1, 0]])
    close(pami.circle(2, 3, (0, 0), 1), [[1, 1, 0], [1, 0, 0]])
    close(pami.circle(3, 3, (1, 1), 1.4), [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    windows = pami.circular_windows(3, 7, 0, 2)
    assert len(windows) == 2 * 4
    centres = [(i, j) for window in windows for i in range(3) for j in range(7) if window[i][j]]
    assert centres == [(0, 0), (0, 2), (0, 4), (0, 6), (2, 0), (2, 2), (2, 4), (2, 6)]


def test_pami_second_run_segments_the_first_map():
    """Two halves score 1 and 3; the second run asks for what the first map's segmentation says, on the same image."""
    image = [[1.0, 1.0, 3.0, 5.0]]
    keep_only = lambda mask: [x * m for x, m in zip(image[0], mask[0], strict=True)]  # noqa: E731
    halves_or_single = {1.0: [[[0, 0, 7, 7]]], 2.0: [[[0, 0, 7, 7]], [[1, 1, 2, 3]]]}
    segment = lambda candidate: halves_or_single[candidate[0][0]]  # noqa: E731
    close(pami.pre_segmentation(image, segment, keep_only, sum), [[2.0, 2.0, 8.0, 8.0]])
    twice = pami.pre_segmentation(image, segment, keep_only, sum, second_candidate=lambda first: first)
    close(twice, [[2.0, 2.0, (8 + 3) / 2, (8 + 5) / 2]])


# --- Group-CAM ---


def test_group_cam_parts_by_hand():
    """Weights are means; uneven groups; a percentile between two values; what equals the threshold goes."""
    assert group_cam.weights([[[1.0, 2.0], [3.0, 6.0]], [[-1.0, 1.0], [0.0, 0.0]]]) == [3.0, 0.0]
    assert group_cam.consecutive_groups(8, 3) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert group_cam.consecutive_groups(2, 3) == [[0], [1], []]
    assert group_cam.percentile([4.0, 0.0, 2.0, 1.0], 50) == 1.5
    assert group_cam.percentile([4.0, 0.0, 2.0], 100) == 4.0
    close(group_cam.denoised([[1.0, 2.0, 3.0]], 50), [[0.0, 0.0, 3.0]])
    close(group_cam.denoised([[5.0, 5.0]], 70), [[0.0, 0.0]])
    close(group_cam.group_mask([[[1.0, 2.0]], [[3.0, -4.0]]], [1.0, 2.0], [0, 1]), [[7.0, 0.0]])


def test_group_cam_by_hand():
    """Of two groups one is negative, hence flat; the other's mask is (0, 0, 1/2, 1), its gain the bright pixel's."""
    image = [[[0.0, 0.0], [0.0, 1.0]]]
    ones = pixels.filled(1.0, 2, 2)
    activations = [[[0.0, 1.0], [2.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
    options = {"groups": 2, "theta": 50, "blur_size": 3, "blur_sigma": 1.0}
    saliency = group_cam.group_cam(image, activations, [ones, pixels.scaled(ones, -1)], lambda x: x[0][1][1], **options)
    middle = 1 / (1 + 2 * math.exp(-0.5))
    gain = 1 - middle**2
    close(saliency, [[0.0, 0.0], [gain / 2, gain]])


def test_group_cam_keeps_negative_gains_inside_the_sum_only():
    """A group that lowers the score is subtracted; where nothing else is left the map is 0."""
    image = [[[1.0, 0.0]] * 2]
    activations = [[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2]
    gradients = [pixels.filled(1.0, 2, 2)] * 2
    options = {"groups": 2, "theta": 0, "blur_size": 3, "blur_sigma": 1.0}
    saliency = group_cam.group_cam(image, activations, gradients, lambda x: x[0][0][0] - x[0][0][1], **options)
    # Both kept halves move their own pixel away from the blurred one by 2·side, upwards in the score.
    side = math.exp(-0.5) / (1 + 2 * math.exp(-0.5))
    close(saliency, [[2 * side, 2 * side]] * 2)
    saliency = group_cam.group_cam(image, activations, gradients, lambda x: x[0][0][0] + x[0][0][1], **options)
    close(saliency, [[2 * side, 0.0]] * 2)


# --- RISE ---


def test_rise_mask_by_hand():
    """One row of cells 2 pixels wide, grown to 6 pixels; the crop begins at the shift."""
    draws = [[0.2, 0.8], [0.2, 0.8]]
    grown = pixels.bilinear([[1.0, 0.0]], 1, 6)[0]
    close(grown, [1.0, 1.0, 2 / 3, 1 / 3, 0.0, 0.0])
    for shift in range(3):
        close(rise.mask(draws, 0.5, 4, 4, (0, shift)), [grown[shift : shift + 4]] * 4)
    close(rise.mask(draws, 0.9, 4, 4, (1, 1)), pixels.filled(1.0, 4, 4))
    close(rise.mask(draws, 0.2, 4, 4, (1, 1)), pixels.filled(0.0, 4, 4))
    assert rise.cell_size(7, 3) == 3


def test_rise_saliency_by_hand():
    """Two masks that keep one pixel each: every pixel gets its own score, times 1 / (2 · 0.5)."""
    masks = [[[1.0, 0.0]], [[0.0, 1.0]]]
    close(rise.saliency([[[3.0, 5.0]]], masks, lambda x: sum(x[0][0]), 0.5), [[3.0, 5.0]])
    close(rise.saliency([[[3.0, 5.0]]], masks, lambda x: sum(x[0][0]), 0.25), [[6.0, 10.0]])


# --- I-GOS ---


def linear_problem(l1=0.0, tv=0.0):
    """Two rows of four pixels over black; the score is a weighted sum of the upper row."""
    weights, row = [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.0, 0.0]
    score = lambda x: sum(w * v for w, v in zip(weights, x[0][0], strict=True))  # noqa: E731
    gradient = lambda x: [[weights, [0.0] * 4]]  # noqa: E731
    return igos.Problem([[row, row]], [pixels.filled(0.0, 2, 4)], score, gradient, l1, tv)


def test_igos_terms_by_hand():
    """Means, not sums; each direction has its own mean."""
    mask = [[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]]
    assert igos.deleted_area(mask) == pytest.approx(1.5 / 6, **CLOSE)
    assert igos.total_variation(mask) == pytest.approx((0 + 0.25 + 1) / 3 + (0.25 + 0.25) / 4, **CLOSE)
    for term, gradient in [
        (igos.total_variation, igos.total_variation_gradient),
        (igos.deleted_area, igos.deleted_area_gradient),
    ]:
        slopes = gradient(mask)
        for i in range(2):
            for j in range(3):
                up, down = ([list(row) for row in mask] for _ in range(2))
                up[i][j] += 1e-6
                down[i][j] -= 1e-6
                assert slopes[i][j] == pytest.approx((term(up) - term(down)) / 2e-6, abs=1e-8)


def test_igos_objective_by_hand():
    """The mask (1, 0) grows to (1, 3/4, 1/4, 0); half of the small mask is deleted."""
    problem = linear_problem(l1=2.0, tv=3.0)
    assert igos.objective(problem, [[1.0, 1.0]] * 2) == 1 + 2 + 6
    assert igos.objective(problem, [[1.0, 0.0]] * 2) == pytest.approx(1 + 1.5 + 1.5 + 2 * 0.5 + 3 * 1, **CLOSE)


def test_igos_integrated_gradient_by_hand():
    """Of a linear score every step's gradient is s/S times the last one: (S + 1) / 2S of the plain gradient."""
    for steps in (1, 4):
        expected = [(steps + 1) / (2 * steps) * value for value in (1.0, 2.0, 6.0, 0.0)]
        gradient = igos.integrated_gradient(linear_problem(), [[1.0] * 4] * 2, steps)
        close(gradient, [expected, [0.0] * 4])


def test_igos_integrated_gradient_is_that_of_the_mean_score():
    """It is the gradient by m of the mean over s of the noisy scores plus the regulariser, by finite differences."""
    image = [[[1.0, -1.0, 2.0, 0.5], [0.3, 0.1, 1.0, 2.0], [1.0, 1.5, 0.2, 0.0]]]
    baseline = [pixels.filled(0.4, 3, 4)]
    flat = lambda x: [value for row in x[0] for value in row]  # noqa: E731
    weights = [0.1, 0.3, -0.2, 0.5, 0.2, 0.1, 0.4, -0.3, 0.2, 0.6, 0.1, 0.2]
    inner = lambda x: sum(w * v for w, v in zip(weights, flat(x), strict=True))  # noqa: E731
    score = lambda x: math.tanh(inner(x))  # noqa: E731
    gradient = lambda x: [  # noqa: E731
        [[(1 - math.tanh(inner(x)) ** 2) * weights[4 * i + j] for j in range(4)] for i in range(3)]
    ]
    problem = igos.Problem(image, baseline, score, gradient, 0.7, 0.9)
    mask = [[0.2, 0.9], [0.6, 0.4]]
    noise = [[pixels.scaled(image[0], 0.1 * step)] for step in range(3)]

    def mean_score(m):
        noisy = [[pixels.added(igos.masked(problem, m, (s + 1) / 3)[0], noise[s][0])] for s in range(3)]
        return sum(score(x) for x in noisy) / 3 + 0.7 * igos.deleted_area(m) + 0.9 * igos.total_variation(m)

    slopes = igos.integrated_gradient(problem, mask, 3, noise)
    for i in range(2):
        for j in range(2):
            up, down = ([list(row) for row in mask] for _ in range(2))
            up[i][j] += 1e-6
            down[i][j] -= 1e-6
            assert slopes[i][j] == pytest.approx((mean_score(up) - mean_score(down)) / 2e-6, abs=1e-8)


def test_igos_line_search_by_hand():
    """The bowl (m - ½)² from m = 1, slope 1: steps of 200, 40 and 8 end at 0, as high as before; 1.6 does too."""
    bowl = lambda mask: (mask[0][0] - 0.5) ** 2  # noqa: E731
    moved, step = igos.line_search(bowl, [[1.0]], [[1.0]])
    assert step == pytest.approx(200 * 0.2**4)
    close(moved, [[1 - 200 * 0.2**4]])
    assert igos.line_search(bowl, [[1.0]], [[1.0]], first_step=0.5) == ([[0.5]], 0.5)


def test_igos_line_search_demands_enough():
    """A fall of exactly armijo · t · |g|² is accepted, a shorter one isn't; then the mask stays after 11 trials."""
    asked = []

    def slope(mask):
        asked.append(mask)
        return mask[0][0] * 0.25

    assert igos.line_search(slope, [[1.0]], [[0.5]], first_step=1.0, armijo=0.5) == ([[0.5]], 1.0)
    asked.clear()
    assert igos.line_search(slope, [[1.0]], [[0.5]], armijo=0.6) == ([[1.0]], 0.0)
    assert len(asked) == 1 + 11


def test_igos_optimise_deletes_what_carries_the_score():
    """Without regularisers the pixels that the score reads go; the one that is black anyway stays."""
    problem = linear_problem()
    mask = igos.optimise(problem, [[1.0] * 4] * 2, iterations=1, steps=2)
    close(mask, [[0.0, 0.0, 0.0, 1.0], [1.0] * 4])
    close(igos.heatmap(problem, mask), [[1.0, 1.0, 1.0, 0.0], [0.0] * 4])
