"""Bootstrap intervals: closed forms, scipy's own draws, and what resampling images instead of values changes."""

import numpy as np
import pytest
import torch
from scipy import stats

from explainer import resampling as module
from explainer.bootstrap import (
    bootstrap,
    bootstrap_interval,
    bootstrap_mean,
    interval_of,
    paired_difference,
    tail_probability,
)
from explainer.resampling import SparseSums, mean_ratio, ratios, resampled, sums_per_image


def normal(*shape, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, size=shape)


@pytest.mark.parametrize("shape", [(40,), (40, 3), (1, 3), (2, 1)])
def test_shapes_and_kinds(shape):
    interval = bootstrap_interval(normal(*shape), draws=50)
    for part in interval:
        assert part.shape == shape[1:]
    assert interval.used.dtype == np.int64
    np.testing.assert_allclose(interval.value, normal(*shape).mean(axis=0))


def percentiles(images, level=0.95):
    """The level whose plain percentiles are as far out as ours."""
    return 1 - 2 * tail_probability(images, level)


def test_the_draws_are_scipys():
    values = normal(30, 4, seed=3)
    interval = bootstrap_interval(values, level=0.9, draws=300, seed=7)
    expected = stats.bootstrap(
        (values,), np.mean, axis=0, n_resamples=300, confidence_level=percentiles(30, 0.9), method="percentile", rng=7
    ).confidence_interval
    np.testing.assert_allclose((interval.low, interval.high), expected, rtol=1e-12, atol=1e-14)


def test_the_interval_of_a_mean_is_the_normal_one_for_many_images():
    values = normal(4000, seed=1)
    interval, half = bootstrap_interval(values, draws=4000), 1.96 * values.std() / np.sqrt(len(values))
    np.testing.assert_allclose((interval.low, interval.high), (values.mean() - half, values.mean() + half), atol=2e-3)


def test_about_95_of_100_intervals_cover_the_mean():
    samples = normal(100, 400, mean=2.0)  # 400 experiments of 100 images
    interval = bootstrap_interval(samples, draws=1000)
    covered = ((interval.low < 2) & (interval.high > 2)).mean()
    assert 0.9 < covered < 0.98


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("images", [4, 8, 30, 1000])
def test_the_percentiles_lie_where_student_s_interval_would_of_normal_means(images, level):
    """Hesterberg, 2015: z(a') sqrt((N - 1) / N) = t(a, N - 1), whose quantile is scipy's here."""
    expected = stats.norm.cdf(-np.sqrt(images / (images - 1)) * stats.t.ppf((1 + level) / 2, images - 1))
    assert tail_probability(images, level) == pytest.approx(expected, rel=0.01, abs=2e-5)
    assert tail_probability(images, level) < (1 - level) / 2


@pytest.mark.parametrize("kind", ["mean", "ratio"])
def test_of_eight_images_too_about_95_of_100_intervals_cover_the_truth_which_plain_percentiles_do_not(kind):
    """1000 experiments side by side; the ratio is that of two sums, as a mean over the classes of images is."""
    random, images, experiments = np.random.default_rng(2), 8, 1000
    trials = np.ones((images, experiments)) if kind == "mean" else random.integers(2, 7, (images, experiments))
    sums = np.concatenate([trials * random.normal(2.0, 1, (images, experiments)), trials], axis=1)
    found = resampled(ratios, sums, draws=1000)
    interval = interval_of(found, np.full(experiments, images))
    covered = ((interval.low < 2) & (interval.high > 2)).mean()
    low, high = np.quantile(found.drawn, (0.025, 0.975), axis=0)
    assert 0.92 < covered < 0.98
    assert ((low < 2) & (high > 2)).mean() < 0.9


def test_sparse_sums_are_those_of_the_whole_table():
    """Also with an image that contributes nothing, a place that none contributes to, and entries that add up."""
    sums = np.random.default_rng(0).integers(1, 5, (40, 6)) * (np.random.default_rng(1).random((40, 6)) < 0.2)
    sums[3], sums[:, 1] = 0, 0
    image, column = sums.nonzero()
    halves = SparseSums(40, 6, *(np.tile(place, 2) for place in (image, column)), np.tile(sums[image, column] / 2, 2))
    dense, sparse = resampled(mean_ratio, sums), resampled(mean_ratio, halves)
    assert sparse.value == dense.value
    np.testing.assert_allclose(sparse.drawn, dense.drawn, rtol=1e-12)
    nothing = SparseSums(5, 2, np.array([], int), np.array([], int), np.array([]))
    assert np.isnan(resampled(ratios, nothing, draws=3).drawn).all()
    with pytest.raises(ValueError, match="finite sums"):
        resampled(ratios, SparseSums(1, 2, np.array([0]), np.array([1]), np.array([np.inf])))


def test_resamples_of_the_same_images_may_be_subtracted():
    first, second = normal(50), normal(50, seed=1)
    parts = [resampled(ratios, np.stack([values, np.ones(50)], axis=1)) for values in (first, second)]
    found = interval_of(parts[0].minus(parts[1]), np.array([50]))
    expected = paired_difference(first, second)
    np.testing.assert_allclose([part.item() for part in found[:3]], expected[:3], rtol=1e-9)


def test_equal_seeds_draw_equal_images_for_every_method():
    values = normal(50, 2)
    both, again = bootstrap_interval(values, seed=5), bootstrap_interval(values, seed=5)
    alone, other = bootstrap_interval(values[:, 1], seed=5), bootstrap_interval(values[:, 1], seed=6)
    np.testing.assert_array_equal(both.low, again.low)
    np.testing.assert_allclose((both.low[1], both.high[1]), (alone.low, alone.high), rtol=1e-12)
    assert alone.low != other.low


def test_memory_is_bounded_and_makes_no_difference(monkeypatch):
    values = normal(50, 2)
    expected = bootstrap_interval(values, draws=101)
    for size in (1, 50 * module.BYTES_A_DRAW * 7):
        monkeypatch.setattr(module, "CHUNK_BYTES", size)
        np.testing.assert_allclose(bootstrap_interval(values, draws=101), expected, rtol=1e-12)


def test_values_that_are_nan_are_left_out_and_counted():
    values = normal(30)
    with_holes = np.insert(values, [0, 4, 30], np.nan)
    plain, holes = bootstrap_interval(values), bootstrap_interval(with_holes)
    np.testing.assert_array_equal((plain.value, plain.low, plain.high), (holes.value, holes.low, holes.high))
    assert (plain.used, plain.left_out, holes.used, holes.left_out) == (30, 0, 30, 3)


def test_each_column_leaves_out_its_own():
    values = normal(30, 2)
    values[:10, 1] = np.nan
    interval = bootstrap_interval(values)
    assert interval.used.tolist() == [30, 20] and interval.left_out.tolist() == [0, 10]
    np.testing.assert_allclose(interval.value, (values[:, 0].mean(), values[10:, 1].mean()))
    assert (interval.low < interval.value).all() and (interval.value < interval.high).all()
    np.testing.assert_allclose(interval.low[0], bootstrap_interval(values[:, 0]).low, rtol=1e-12)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [0.5], [np.nan, 0.5]])
def test_fewer_than_two_images_have_no_bounds(values):
    interval = bootstrap_interval(np.array(values))
    assert np.isnan(interval.low) and np.isnan(interval.high)
    assert np.isnan(interval.value) == (not np.isfinite(values).any())
    columns = bootstrap_interval(np.stack([np.array([np.nan, 0.5, np.nan]), normal(3)], axis=1))
    assert np.isnan(columns.low).tolist() == np.isnan(columns.high).tolist() == [True, False]


def test_tensors_of_any_precision_are_taken():
    values = torch.linspace(0, 1, 9, requires_grad=True)
    for dtype in (torch.float64, torch.bfloat16, torch.bool):
        interval = bootstrap_interval(values.to(dtype))
        assert interval.value == values.to(dtype).double().mean()


def test_a_constant_has_no_width():
    assert [float(part) for part in bootstrap_interval(np.full(20, 0.25))[:3]] == [0.25] * 3


def test_images_are_resampled_not_their_values():
    per_image = normal(60, seed=2)
    copies = np.repeat(per_image, 5)  # 5 equal values an image say no more than one
    names = np.repeat([f"image {index:02}" for index in range(60)], 5)
    shuffled = np.random.default_rng(0).permutation(300)
    clustered = bootstrap_mean(copies[shuffled], names[shuffled])
    np.testing.assert_allclose(clustered[:3], bootstrap_interval(per_image)[:3], rtol=1e-12)
    naive = bootstrap_interval(copies)
    assert 1.8 < (clustered.high - clustered.low) / (naive.high - naive.low) < 2.7  # sqrt(5)
    assert clustered.used == 300


def test_the_mean_is_over_values_however_many_an_image_has():
    interval = bootstrap_mean([1.0, 2.0, 6.0, np.nan], ["a", "b", "b", "c"])
    assert (interval.value, interval.used, interval.left_out) == (3.0, 3, 1)
    assert (interval.low, interval.high) == (1.0, 4.0)  # only a, or only b
    assert np.isnan(bootstrap_mean([1.0, 2.0], ["a", "a"]).low), "a single image"


def test_identical_methods_do_not_differ_and_paired_ones_do_though_their_intervals_overlap():
    first = normal(80, mean=0.5)
    same = paired_difference(first, first)
    assert [float(part) for part in same[:3]] == [0.0] * 3
    second = first - 0.1 + 0.05 * normal(80, seed=9)
    difference = paired_difference(first, second)
    one, other = bootstrap_interval(first), bootstrap_interval(second)
    assert difference.low > 0 and one.low < other.high
    np.testing.assert_allclose(difference.value, (first - second).mean())
    holes = np.where(np.arange(80) < 3, np.nan, second)
    assert paired_difference(first, holes).left_out == 3


def test_rates_per_class_and_their_mean():
    """Hits and trials of 3 classes, 4 images; the last class is never there."""
    hits = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    trials = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0]])
    sums = np.concatenate([hits, trials], axis=1)
    rates, mean = bootstrap(ratios, sums), bootstrap(mean_ratio, sums)
    assert rates.value[:2].tolist() == [0.75, 0.5] and np.isnan([rates.value[2], rates.low[2], rates.high[2]]).all()
    assert mean.value == 0.625 and mean.value.shape == ()
    assert 0 <= mean.low < mean.value < mean.high <= 1
    assert (rates.low[1], rates.high[1]) == (0, 1)
    assert rates.used.tolist() == [4, 4, 4]


def test_an_f_score_of_counts_agrees_with_scipy():
    counts = np.random.default_rng(4).integers(0, 5, (25, 3))

    def f_score(totals):
        true_positive, false_positive, false_negative = totals.T
        return 2 * true_positive / (2 * true_positive + false_positive + false_negative)

    interval = bootstrap(f_score, counts, draws=200, seed=1)
    expected = stats.bootstrap(
        tuple(counts.T), lambda *columns: f_score(np.array(columns).sum(axis=1)[None])[0],
        paired=True, vectorized=False, n_resamples=200, method="percentile", rng=1, confidence_level=percentiles(25),
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose((interval.low, interval.high), expected)


def test_sums_per_image_add_up_what_belongs_together():
    sums = sums_per_image([[1, 10], [2, 20], [3, 30]], ["b", "a", "b"])
    assert sums.tolist() == [[2, 20], [4, 40]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([1.0, 2.0], ["a"]), "2 values but 1 image ids"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), r"shapes \(2,\) and \(1,\)"),
        (lambda: bootstrap(ratios, [[np.nan, 1.0]]), "finite sums"),
        (lambda: bootstrap(ratios, [1.0, 2.0]), r"got shape \(2,\)"),
        (lambda: bootstrap_interval([1.0, 2.0], level=95), "0 < level < 1"),
        (lambda: bootstrap_interval([1.0, 2.0], draws=0), "draws >= 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
