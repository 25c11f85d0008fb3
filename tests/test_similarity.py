"""Similarity of maps: Spearman's correlation as scipy has it, SSIM as scikit-image has it, and flat maps."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity as skimage_ssim

from explainer.metrics.scaling import to_unit_range
from explainer.metrics.similarity import rank_correlation, structural_similarity


def maps(seed, shape=(4, 14, 17), dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


MEASURES = pytest.mark.parametrize("measure", [rank_correlation, structural_similarity])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rank_correlation_is_scipys(ties, dtype):
    first = maps(0)
    second = 0.5 * first + maps(1)
    first, second = ((m * 2).round() if ties else m for m in (first, second))  # rounded: some ten values, many ties
    first, second = first.to(dtype), second.to(dtype)
    found = rank_correlation(first, second)
    expected = [
        spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first.float(), second.float(), strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == torch.float32


def test_rank_correlation_knows_only_the_order():
    first = maps(2)
    torch.testing.assert_close(rank_correlation(first, first.exp()), torch.ones(4))
    torch.testing.assert_close(rank_correlation(first, -first), -torch.ones(4))
    assert rank_correlation(first, maps(3)).abs().max() < 0.3


@MEASURES
def test_equal_maps_are_fully_alike_flat_ones_included(measure):
    same = torch.cat([maps(4), torch.zeros(1, 14, 17), torch.full((1, 14, 17), 3.0)])
    torch.testing.assert_close(measure(same, same.clone()), torch.ones(6))


@MEASURES
def test_scale_and_offset_make_no_difference(measure):
    first, second = maps(5), maps(6)
    torch.testing.assert_close(measure(100 * first - 3, second), measure(first, second), atol=1e-5, rtol=0)


@MEASURES
def test_pairs_do_not_influence_each_other(measure):
    first, second = maps(7), maps(8)
    alone = torch.cat([measure(first[i : i + 1], second[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(measure(first, second), alone)


def test_a_flat_map_is_unlike_any_other():
    first, flat = maps(9), torch.full((4, 14, 17), 0.3)
    assert rank_correlation(first, flat).tolist() == rank_correlation(flat, first).tolist() == [0.0] * 4
    assert structural_similarity(first, flat).max() < 0.1


def test_structural_similarity_is_scikit_images():
    first = maps(10, (3, 40, 32))
    second = first + 0.5 * maps(11, (3, 40, 32))
    scaled = [to_unit_range(m).numpy() for m in (first, second)]
    # scikit-image leaves a border of half a window out; torchmetrics mirrors the map there.
    expected = [
        skimage_ssim(
            *(np.pad(m, 5, "reflect") for m in pair),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for pair in zip(*scaled, strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(first, second), expected, atol=1e-4)


@MEASURES
def test_gradients_and_the_callers_maps_are_left_alone(measure):
    first, second = maps(12).requires_grad_(), maps(13)
    before = first.detach().clone(), second.clone()
    measure(first, second)
    assert torch.equal(first, before[0]) and torch.equal(second, before[1])
    assert measure(first[:0], second[:0]).shape == (0,)


def test_what_does_not_fit_is_refused():
    for measure in (rank_correlation, structural_similarity):
        with pytest.raises(ValueError, match="of one shape"):
            measure(maps(0), maps(0)[:2])
        with pytest.raises(ValueError, match="of one shape"):
            measure(maps(0)[0], maps(0)[0])
    with pytest.raises(ValueError, match="at least 11x11 pixels, got 7x7; resize"):
        structural_similarity(torch.rand(1, 7, 7), torch.rand(1, 7, 7))
