"""Masking and losses agree with the paper's equations, written out as plain loops in `reference`.

B images, C classes, H×W pixels; masks lie in [0, 1]. Labels are float32, as the data sets yield them.
"""

import math

import pytest
import torch
from reference import nn_explainer as reference
from reference.convert import per_image
from torch import Tensor

from explainer.losses import (
    area_bound,
    bound_loss,
    classification_loss,
    mask_area,
    negative_entropy,
    total_variation,
)
from explainer.masking import apply_mask, merge_masks

# Z·.05 and Z·.3 are whole numbers for 4×5, 10×6 and 20×20: a rounding error in Z·a would lose a pixel there.
SHAPES = [(4, 3, 4, 5), (3, 5, 10, 6), (2, 7, 20, 20), (3, 4, 7, 11), (2, 6, 13, 3), (2, 3, 1, 9)]
CASES = [(seed, shape) for seed, shape in enumerate(SHAPES)] + [
    (seed + 100, shape) for seed, shape in enumerate(SHAPES)
]
CASE_NAMES = [f"seed{seed}-{'x'.join(map(str, shape))}" for seed, shape in CASES]
every_case = pytest.mark.parametrize(("seed", "shape"), CASES, ids=CASE_NAMES)

MIN_AREA, MAX_AREA = 0.05, 0.3


def close(actual: Tensor, expected: Tensor | float, atol: float = 1e-6) -> None:
    """Compare values alone; where the data type is promised, a test of its own says so."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.detach().double(), expected, atol=atol, rtol=0)


def random_logits(seed: int, shape: tuple[int, ...], scale: float = 3.0) -> Tensor:
    """Float64 logits on both sides of zero."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_labels(seed: int, batch: int, classes: int) -> Tensor:
    """Multi-hot labels whose first image has no class and whose second has all."""
    labels = torch.rand(batch, classes, generator=torch.Generator().manual_seed(seed + 1)).lt(0.4).float()
    labels[0], labels[1] = 0, 1
    return labels


def distinct_values(seed: int, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Evenly spaced float64 values in random order: no ties, no value at a kink of a loss."""
    count = math.prod(shape)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.linspace(low, high, count, dtype=torch.float64)[order].reshape(shape).requires_grad_()


def image_bound(logits: list, labels: list) -> float:
    """The last term of Eq. 6 with the paper's bounds, from mask logits."""
    return reference.bound_term([reference.class_mask(mask) for mask in logits], labels, MIN_AREA, MAX_AREA)


# Masks


@every_case
def test_merged_masks_are_pixelwise_maxima(seed: int, shape: tuple[int, ...]) -> None:
    """The target mask is the maximum over present classes, the non-target mask over all others (Sec. 3)."""
    logits, labels = random_logits(seed, shape), random_labels(seed, *shape[:2])
    target, non_target = merge_masks(logits, labels)
    assert target.shape == non_target.shape == (shape[0], *shape[2:])
    close(target, per_image(reference.target_mask, logits, labels))
    close(non_target, per_image(reference.non_target_mask, logits, labels))


@pytest.mark.parametrize("present", [0.0, 1.0])
def test_an_empty_set_of_classes_gives_a_zero_mask(present: float) -> None:
    """No present class: nothing is kept. No absent class: nothing is a false positive. Gradients stay finite."""
    logits = random_logits(3, (2, 4, 5, 6)).requires_grad_()
    target, non_target = merge_masks(logits, torch.full((2, 4), present))
    empty, full = (non_target, target) if present else (target, non_target)
    assert torch.equal(empty, torch.zeros_like(empty))
    close(full, per_image(reference.target_mask, logits, torch.ones(2, 4)))
    (target.sum() + non_target.sum()).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_an_empty_mask_passes_on_no_gradient() -> None:
    """The zero target mask of an image without a class is a constant; its neighbour in the batch still learns."""
    logits = random_logits(4, (2, 3, 4, 5)).requires_grad_()
    target, _ = merge_masks(logits, torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    target.sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[0], torch.zeros_like(logits[0]))
    assert (logits.grad[1, 1] > 0).all()
    assert torch.equal(logits.grad[1, [0, 2]], torch.zeros_like(logits[1, [0, 2]]))


def test_merging_does_not_depend_on_the_rest_of_the_batch() -> None:
    """Images without, with some and with all classes give in one batch what they give alone."""
    logits, labels = random_logits(5, (4, 5, 6, 7)), random_labels(5, 4, 5)
    together = merge_masks(logits, labels)
    for b in range(4):
        alone = merge_masks(logits[b : b + 1], labels[b : b + 1])
        for mask, single in zip(together, alone, strict=True):
            torch.testing.assert_close(mask[b], single[0], atol=1e-12, rtol=0)


def test_gradient_of_merged_masks() -> None:
    """Away from ties the gradient of both masks equals finite differences."""
    logits = distinct_values(6, (3, 4, 3, 2), -2.0, 2.0)
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).float()
    assert torch.autograd.gradcheck(lambda x: merge_masks(x, labels), logits)


def test_merged_masks_of_extreme_logits() -> None:
    """Logits of ±10 000 give masks of exactly 0 and 1 and finite gradients."""
    logits = torch.where(random_logits(7, (3, 4, 5, 6)) > 0, 1e4, -1e4).double().requires_grad_()
    labels = random_labels(7, 3, 4)
    target, non_target = merge_masks(logits, labels)
    close(target, per_image(reference.target_mask, logits, labels), atol=0)
    close(non_target, per_image(reference.non_target_mask, logits, labels), atol=0)
    (target.sum() + non_target.sum()).backward()
    assert logits.grad.isfinite().all()


def test_apply_mask_multiplies_every_channel() -> None:
    """The masked image is x ⊙ m (Sec. 3), with the normalised x."""
    image, mask = random_logits(8, (3, 3, 5, 8)), random_logits(9, (3, 5, 8)).sigmoid()
    masked = apply_mask(image, mask)
    assert masked.shape == image.shape
    close(masked, per_image(reference.masked_image, image, mask))
    close(apply_mask(image, torch.ones_like(mask)), image, atol=0)


def test_deleted_pixels_take_the_mean_colour() -> None:
    """A zero mask gives zeros, which is the mean colour of a normalised image, not black."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(10))
    normalised = (image - mean[:, None, None]) / std[:, None, None]
    masked = apply_mask(normalised, torch.zeros(2, 4, 6))
    assert masked.abs().max() == 0
    colour = masked * std[:, None, None] + mean[:, None, None]
    torch.testing.assert_close(colour, mean[:, None, None].expand_as(colour))


# Classification loss and negative entropy (Eq. 2 and 3)


@every_case
def test_classification_loss_equals_eq_2(seed: int, shape: tuple[int, ...]) -> None:
    """Binary cross-entropy over all C classes, mean over the images."""
    logits, labels = random_logits(seed, shape[:2]), random_labels(seed, *shape[:2])
    loss = classification_loss(logits, labels)
    assert loss.shape == ()
    close(loss, per_image(reference.classification_loss, logits, labels).mean())


@every_case
def test_negative_entropy_equals_eq_3(seed: int, shape: tuple[int, ...]) -> None:
    """Sum of p·log p of the softmax over C, mean over the images."""
    logits = random_logits(seed, shape[:2])
    loss = negative_entropy(logits)
    assert loss.shape == ()
    close(loss, per_image(reference.negative_entropy, logits).mean())


@pytest.mark.parametrize("classes", [3, 7, 20, 91])
@pytest.mark.parametrize("level", [-50.0, 0.0, 1e4])
def test_uniform_logits_have_the_lowest_negative_entropy(classes: int, level: float) -> None:
    """Equal logits of any height give -log(C)/C; any other logits give more."""
    uniform = torch.full((2, classes), level, dtype=torch.float64)
    close(negative_entropy(uniform), -math.log(classes) / classes)
    assert negative_entropy(random_logits(11, (2, classes))) > -math.log(classes) / classes


def test_undecided_classifier_costs_log_2() -> None:
    """Logits of zero cost log 2 a class, whatever the labels."""
    close(classification_loss(torch.zeros(3, 5, dtype=torch.float64), random_labels(12, 3, 5)), math.log(2))


@every_case
def test_a_single_label_classifier_costs_the_log_of_its_softmax(seed: int, shape: tuple[int, ...]) -> None:
    """-log p of the true class, p being the softmax; mean over the images, not divided by C."""
    logits = random_logits(seed, shape[:2])
    true = torch.arange(shape[0]) % shape[1]
    loss = classification_loss(logits, torch.eye(shape[1])[true], "single_label")
    assert loss.shape == ()
    expected = [-math.log(reference.softmax(row)[true[b]]) for b, row in enumerate(logits.tolist())]
    close(loss, sum(expected) / len(expected))


def test_a_single_label_classifier_that_is_undecided_costs_log_c() -> None:
    """Equal logits cost log C; the gradient is (softmax - label) / B."""
    logits, labels = torch.full((2, 5), 3.0, dtype=torch.float64, requires_grad=True), torch.eye(5)[[4, 0]]
    loss = classification_loss(logits, labels, "single_label")
    loss.backward()
    close(loss, math.log(5))
    close(logits.grad, (0.2 - labels) / 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_single_label_classifier_that_is_sure_and_wrong_costs_the_logits_difference(dtype: torch.dtype) -> None:
    """Logits of ±10 000: no infinite logarithm, no infinite gradient, float32 as under mixed precision."""
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = classification_loss(logits, torch.tensor([[0.0, 1.0, 0.0]]), "single_label")
    assert loss.dtype == torch.float32
    close(loss, 2 * logits[0, 0].item(), atol=1e-2)
    loss.backward()
    close(logits.grad, [[1.0, -1.0, 0.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_extreme_logits_are_finite(dtype: torch.dtype) -> None:
    """Logits of ±10 000 cost what Eq. 2 and 3 say, with finite gradients."""
    logits = torch.where(random_logits(13, (4, 6)) > 0, 1e4, -1e4).to(dtype).requires_grad_()
    labels = random_labels(13, 4, 6)
    classification = classification_loss(logits, labels)
    entropy = negative_entropy(logits)
    close(classification, per_image(reference.classification_loss, logits, labels).mean(), atol=1e-2)
    close(entropy, per_image(reference.negative_entropy, logits).mean())
    (classification + entropy).backward()
    assert logits.grad.isfinite().all()


def test_gradients_of_the_classifier_losses() -> None:
    """The gradients of Eq. 2 and 3 equal finite differences."""
    logits, labels = random_logits(14, (3, 4)).requires_grad_(), random_labels(14, 3, 4)
    assert torch.autograd.gradcheck(lambda x: classification_loss(x, labels), logits)
    assert torch.autograd.gradcheck(negative_entropy, logits)


# Area and its bounds (Eq. 4 to 6)


@every_case
def test_area_is_the_mean(seed: int, shape: tuple[int, ...]) -> None:
    """A(m) is the mean of a mask, one number an image."""
    mask = random_logits(seed, (shape[0], *shape[2:])).sigmoid()
    area = mask_area(mask)
    assert area.shape == shape[:1]
    close(area, per_image(reference.area, mask))


@every_case
@pytest.mark.parametrize(("min_area", "max_area"), [(0.05, 0.3), (0.1, 0.5), (0.25, 0.75), (0.02, 0.98)])
def test_area_bound_equals_eq_5(seed: int, shape: tuple[int, ...], min_area: float, max_area: float) -> None:
    """B(s) equals the sum over the sorted mask, whatever the bounds."""
    mask = random_logits(seed, (shape[0], *shape[2:])).sigmoid()
    bound = area_bound(mask, min_area, max_area)
    assert bound.shape == shape[:1]
    expected = per_image(lambda m: reference.area_bound(m, min_area, max_area), mask)
    close(bound, expected)


@every_case
def test_area_bound_with_ties(seed: int, shape: tuple[int, ...]) -> None:
    """Masks of only a few different values, exact 0 and 1 among them, are bounded like any other."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 4, (shape[0], *shape[2:]), generator=generator).double() / 3
    close(area_bound(mask), per_image(lambda m: reference.area_bound(m, MIN_AREA, MAX_AREA), mask))


@pytest.mark.parametrize(("height", "width"), [(4, 5), (10, 10), (20, 30), (7, 9), (13, 31), (3, 2), (56, 48)])
def test_area_bound_of_full_and_empty_masks(height: int, width: int) -> None:
    """A mask of ones is 1 - ⌊Z·.3⌋/Z too large, a mask of zeros ⌊Z·.05⌋/Z too small; the defaults are the paper's."""
    pixels = height * width
    ones = torch.ones(2, height, width, dtype=torch.float64)
    close(area_bound(ones), torch.full((2,), 1 - (3 * pixels // 10) / pixels))
    close(area_bound(torch.zeros_like(ones)), torch.full((2,), (pixels // 20) / pixels))


def test_area_bound_is_exact_at_the_papers_image_size() -> None:
    """At 224×224, in float32, the bounds are ⌊2508.8⌋ and ⌊15052.8⌋ pixels."""
    pixels = 224 * 224
    ones = torch.ones(1, 224, 224)
    close(area_bound(ones), [1 - 15052 / pixels], atol=2e-7)
    close(area_bound(torch.zeros_like(ones)), [2508 / pixels], atol=2e-7)


@pytest.mark.parametrize(("on", "expected"), [(1, 4 / 100), (5, 0.0), (17, 0.0), (30, 0.0), (31, 1 / 100)])
def test_area_between_the_bounds_is_free(on: int, expected: float) -> None:
    """A binary mask with 5 to 30 of its 100 pixels on costs nothing, wherever they lie."""
    mask = torch.zeros(100, dtype=torch.float64)
    mask[torch.randperm(100, generator=torch.Generator().manual_seed(on))[:on]] = 1
    close(area_bound(mask.reshape(1, 4, 25)), [expected])


def test_area_bound_ignores_the_arrangement() -> None:
    """Only the sorted values count, also for a mask that is not contiguous in memory."""
    mask = random_logits(15, (2, 6, 9)).sigmoid()
    close(area_bound(mask.transpose(1, 2)), area_bound(mask), atol=1e-12)
    close(area_bound(mask.flip(1, 2)), area_bound(mask), atol=1e-12)


def test_area_bound_of_no_masks_at_all() -> None:
    """A batch without a single present class asks for the bounds of zero masks."""
    assert area_bound(torch.zeros(0, 4, 5)).shape == (0,)


def test_gradient_of_area_bound() -> None:
    """Away from ties the gradient of B equals finite differences, for several bounds."""
    mask = distinct_values(16, (2, 4, 5), 0.05, 0.95)
    for min_area, max_area in [(0.05, 0.3), (0.2, 0.5), (0.1, 0.9)]:
        assert torch.autograd.gradcheck(lambda m, a=min_area, b=max_area: area_bound(m, a, b), mask)


@pytest.mark.parametrize("value", [0.1, 0.5, 0.9])
def test_gradient_of_area_bound_at_ties(value: float) -> None:
    """In a constant mask the gradients still add up to (Z - ⌊Za⌋ - ⌊Zb⌋)/Z, the slope of raising all pixels at once."""
    mask = torch.full((1, 4, 5), value, dtype=torch.float64, requires_grad=True)
    area_bound(mask).sum().backward()
    close(mask.grad.sum(), (20 - 1 - 6) / 20)


@every_case
def test_bound_loss_equals_the_last_term_of_eq_6(seed: int, shape: tuple[int, ...]) -> None:
    """Mean over an image's classes, then over all images of the batch, those without a class included."""
    logits, labels = random_logits(seed, shape), random_labels(seed, *shape[:2])
    loss = bound_loss(logits, labels)
    assert loss.shape == ()
    close(loss, per_image(image_bound, logits, labels).mean())


def test_bound_loss_passes_its_bounds_on() -> None:
    """Other areas than the paper's reach Eq. 5."""
    logits, labels = random_logits(17, (4, 5, 6, 7)), random_labels(17, 4, 5)

    def expected(image_logits: list, image_labels: list) -> float:
        masks = [reference.class_mask(mask) for mask in image_logits]
        return reference.bound_term(masks, image_labels, 0.2, 0.6)

    close(bound_loss(logits, labels, min_area=0.2, max_area=0.6), per_image(expected, logits, labels).mean())


def test_bound_loss_is_a_mean_over_present_classes() -> None:
    """An image with the same class mask three times costs what it costs with that mask once."""
    logits = random_logits(18, (1, 1, 6, 7)).expand(1, 3, 6, 7)
    once, thrice = torch.tensor([[0.0, 1.0, 0.0]]), torch.ones(1, 3)
    close(bound_loss(logits, thrice), bound_loss(logits, once), atol=1e-12)
    assert bound_loss(logits, once) > 0


def test_absent_classes_get_no_bound_gradient() -> None:
    """Only the masks of present classes are bounded; an image without a class contributes a constant 0."""
    logits = random_logits(19, (2, 3, 4, 5)).requires_grad_()
    bound_loss(logits, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1].abs().sum() > 0
    assert logits.grad[0, [0, 2]].abs().sum() == 0
    assert logits.grad[1].abs().sum() == 0


def test_a_batch_without_any_class_has_zero_bound_loss() -> None:
    """No class anywhere: the loss is 0, not 0/0, and can still be part of a sum that is differentiated."""
    logits = random_logits(20, (2, 3, 4, 5)).requires_grad_()
    loss = bound_loss(logits, torch.zeros(2, 3))
    close(loss, 0.0, atol=0)
    (loss + 0 * logits.sum()).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_gradient_of_bound_loss() -> None:
    """Away from ties the gradient through the sigmoid equals finite differences."""
    logits = distinct_values(21, (3, 3, 4, 5), -2.0, 2.0)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]]).float()
    assert torch.autograd.gradcheck(lambda x: bound_loss(x, labels, 0.2, 0.5), logits)


def test_bound_loss_of_extreme_logits() -> None:
    """Logits of ±10 000 are masks of exactly 0 and 1, with finite gradients."""
    logits = torch.where(random_logits(22, (3, 4, 5, 6)) > 0, 1e4, -1e4).double().requires_grad_()
    labels = random_labels(22, 3, 4)
    loss = bound_loss(logits, labels)
    close(loss, per_image(image_bound, logits, labels).mean())
    loss.backward()
    assert logits.grad.isfinite().all()


# Smoothness (Eq. 7)


@every_case
def test_total_variation_equals_eq_7(seed: int, shape: tuple[int, ...]) -> None:
    """Sum of neighbour differences over Z, without wrapping around or padding; one number an image."""
    mask = random_logits(seed, (shape[0], *shape[2:])).sigmoid()
    variation = total_variation(mask)
    assert variation.shape == shape[:1]
    close(variation, per_image(reference.total_variation, mask))


@pytest.mark.parametrize("value", [0.0, 0.37, 1.0])
def test_constant_masks_are_smooth(value: float) -> None:
    """A constant mask has no variation: no border is added around it."""
    close(total_variation(torch.full((2, 5, 8), value, dtype=torch.float64)), [0.0, 0.0], atol=0)


def test_one_step_costs_its_length() -> None:
    """Half black, half white: one edge of H (or W) pixels, so 1/W (or 1/H) a pixel, at the border too."""
    for column in (1, 3, 5):
        mask = torch.zeros(1, 4, 6, dtype=torch.float64)
        mask[:, :, column:] = 1
        close(total_variation(mask), [1 / 6])
        close(total_variation(mask.transpose(1, 2)), [1 / 6])


@pytest.mark.parametrize(("row", "column", "neighbours"), [(0, 0, 2), (3, 5, 2), (0, 2, 3), (2, 5, 3), (1, 2, 4)])
def test_a_single_pixel_costs_its_neighbours(row: int, column: int, neighbours: int) -> None:
    """One white pixel differs from its 4 neighbours, 3 at an edge, 2 in a corner."""
    mask = torch.zeros(1, 4, 6, dtype=torch.float64)
    mask[0, row, column] = 1
    close(total_variation(mask), [neighbours / 24])


def test_a_mask_of_one_pixel() -> None:
    """A 1×1 mask has no neighbours, and both of its bounds round down to no pixel."""
    mask = torch.full((1, 1, 1), 0.25, dtype=torch.float64)
    close(total_variation(mask), [0.0], atol=0)
    close(mask_area(mask), [0.25])
    close(area_bound(mask), [0.25])


def test_gradient_of_total_variation() -> None:
    """Away from ties the gradient of TV equals finite differences."""
    assert torch.autograd.gradcheck(total_variation, distinct_values(23, (2, 4, 5), 0.05, 0.95))


# Precision and edge cases of the whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scalar_losses_of_half_precision_inputs_are_float32(dtype: torch.dtype) -> None:
    """Under mixed precision the losses are computed in float32, from the rounded logits."""
    scores, labels = random_logits(24, (4, 5)).to(dtype), random_labels(24, 4, 5)
    mask_logits = random_logits(25, (4, 5, 6, 7)).to(dtype)
    losses = {
        "classification": (classification_loss(scores, labels), reference.classification_loss, (scores, labels)),
        "entropy": (negative_entropy(scores), reference.negative_entropy, (scores,)),
        "bound": (bound_loss(mask_logits, labels), image_bound, (mask_logits, labels)),
    }
    for name, (loss, expected, inputs) in losses.items():
        assert loss.dtype == torch.float32, name
        close(loss, per_image(expected, *inputs).mean(), atol=1e-5)


@pytest.mark.parametrize("present", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_stay_finite_without_or_with_all_classes(present: float, scale: float) -> None:
    """An image with no class, or with every class, trains on: finite losses and gradients, at extreme logits too."""
    logits, scores = random_logits(26, (2, 4, 5, 6), scale), random_logits(27, (2, 4), scale)
    logits, scores = logits.float().requires_grad_(), scores.float().requires_grad_()
    labels = torch.full((2, 4), present)
    target, non_target = merge_masks(logits, labels)
    mask_terms = [mask_area(m).mean() + total_variation(m).mean() for m in (target, non_target)]
    terms = [
        *mask_terms,
        classification_loss(scores, labels),
        negative_entropy(scores),
        bound_loss(logits, labels),
    ]
    assert torch.stack(terms).isfinite().all()
    torch.stack(terms).sum().backward()
    assert logits.grad.isfinite().all()
    assert scores.grad.isfinite().all()
