"""Blurring, masked forward passes and sums of masks, which perturbation methods share."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d
from toy_models import SmallNet, freeze

from explainer.attribution.perturb import (
    CPU_CHUNK,
    class_scores,
    gaussian_blur,
    masked_images,
    masked_logits,
    resolved_chunk_size,
    weighted_sum,
)


class Watched:
    """A classifier of mean and maximum that notes the batches it sees."""

    def __init__(self):
        self.batches = []

    def __call__(self, image):
        assert not torch.is_grad_enabled()
        self.batches.append(len(image))
        return torch.stack([image.mean(dim=(1, 2, 3)), image.amax(dim=(1, 2, 3))], dim=1)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def answers(classifier, image, masks, **options):
    chunks, logits = zip(*masked_logits(classifier, image, masks, **options), strict=True)
    return torch.cat(chunks, dim=-3), torch.cat(logits, dim=1)


@pytest.mark.parametrize(("height", "width"), [(60, 70), (24, 40), (5, 1), (1, 1)])
def test_blur_is_scipys_with_mirrored_borders_even_for_a_kernel_larger_than_the_image(height, width):
    image = noise(2, 3, height, width).double()
    taps = np.exp(-(np.arange(-24, 25) ** 2) / (2 * 100.0**2))
    taps /= taps.sum()
    expected = convolve1d(convolve1d(image.numpy(), taps, axis=2, mode="mirror"), taps, axis=3, mode="mirror")
    torch.testing.assert_close(gaussian_blur(image, 49, 100.0), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_blur_leaves_a_flat_image_alone_and_keeps_the_dtype():
    for dtype in (torch.float32, torch.bfloat16):
        image = torch.full((1, 3, 24, 40), 1.5, dtype=dtype)
        torch.testing.assert_close(gaussian_blur(image, 49, 100.0), image)


def test_blur_wants_a_kernel_with_a_centre():
    with pytest.raises(ValueError, match="kernel_size is 50; give an odd number"):
        gaussian_blur(noise(1, 3, 8, 8), 50, 1.0)


@pytest.mark.parametrize("own", [False, True])
def test_answers_do_not_depend_on_the_size_of_a_chunk(own):
    image, masks = noise(3, 3, 8, 6), noise(*([3] if own else []), 11, 8, 6, seed=1)
    expected = None
    for size in (1, 2, 7, 1000, "auto"):
        chunks, logits = answers(Watched(), image, masks, baseline=0.25, chunk_size=size)
        assert torch.equal(chunks, masks)
        expected = logits if expected is None else expected
        torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-7)


def test_each_image_meets_each_mask_and_its_own_baseline():
    image, masks, baseline = noise(2, 3, 8, 6), noise(2, 5, 8, 6, seed=1), noise(2, 3, 8, 6, seed=2)
    _, logits = answers(Watched(), image, masks, baseline=baseline, chunk_size=4)
    for index in range(2):
        for number in range(5):
            mask = masks[index, number]
            mixed = image[index] * mask + baseline[index] * (1 - mask)
            torch.testing.assert_close(logits[index, number], torch.stack([mixed.mean(), mixed.max()]))


def test_the_largest_batch_does_not_grow_with_the_number_of_masks():
    for count in (10, 1000):
        classifier, made = Watched(), []

        def masks(start, stop, made=made):
            made.append(stop - start)
            return torch.ones(stop - start, 4, 4)

        for _ in masked_logits(classifier, noise(3, 3, 4, 4), masks, count, chunk_size=8):
            pass
        assert max(classifier.batches) <= 8
        assert sum(classifier.batches) == 3 * count
        assert max(made) <= 8


def test_a_batch_of_more_images_than_a_chunk_is_split():
    classifier = Watched()
    answers(classifier, noise(20, 3, 4, 4), torch.ones(3, 4, 4), chunk_size=8)
    assert max(classifier.batches) == 8
    assert sum(classifier.batches) == 60


def test_whole_masks_give_exactly_the_image_and_empty_ones_exactly_the_baseline():
    image, baseline = torch.randn(2, 3, 8, 6) * 1e3, torch.randn(2, 3, 8, 6)
    masks = torch.stack([torch.ones(8, 6), torch.zeros(8, 6)])
    kept = masked_images(image, masks, baseline).unflatten(0, (2, 2))
    assert torch.equal(kept[:, 0], image)
    assert torch.equal(kept[:, 1], baseline)


def test_masked_images_keep_the_memory_format():
    image = noise(2, 3, 8, 6).contiguous(memory_format=torch.channels_last)
    inputs = masked_images(image, torch.ones(4, 8, 6), torch.tensor(0.0))
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_asking_leaves_the_callers_gradients_switched_on():
    for _ in masked_logits(Watched(), noise(1, 3, 4, 4), torch.ones(3, 4, 4), chunk_size=1):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("output", ["multi_label", "single_label"])
def test_scores_are_the_classifiers_probabilities(output):
    explanandum, logits = freeze(SmallNet(), output=output), torch.randn(2, 5, 3)
    expected = logits.sigmoid() if output == "multi_label" else logits.softmax(dim=-1)
    torch.testing.assert_close(class_scores(explanandum, logits), expected)


def test_masks_are_summed_by_weight_in_float32_also_under_autocast():
    weights, masks = noise(2, 7), noise(7, 8, 6, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        total = weighted_sum(weights, masks)
    torch.testing.assert_close(total, (weights[:, :, None, None] * masks).sum(dim=1))


def test_a_chunk_is_a_positive_number_or_auto():
    assert resolved_chunk_size(5, noise(1, 3, 8, 8)) == 5
    assert resolved_chunk_size("auto", noise(1, 3, 8, 8)) == CPU_CHUNK
    with pytest.raises(ValueError, match="chunk_size is 0"):
        resolved_chunk_size(0, noise(1, 3, 8, 8))


def test_a_function_that_makes_masks_needs_their_number():
    with pytest.raises(ValueError, match="count"):
        next(masked_logits(Watched(), noise(1, 3, 4, 4), lambda start, stop: torch.ones(stop - start, 4, 4)))
