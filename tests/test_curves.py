"""Insertion and deletion: closed forms for a classifier that is linear in the pixels, ties, steps, and the two metrics.

N images, S steps, C classes, H×W pixels.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from toy_models import SIZE, SmallNet, card, freeze

from explainer.attribution.perturb import gaussian_blur
from explainer.metrics import curves as module
from explainer.metrics.curves import (
    CurveOptions,
    DeletionAUC,
    InsertionAUC,
    auc,
    baseline_image,
    changed_pixels,
    curve_fractions,
    deletion_curve,
    importance_ranks,
    insertion_curve,
    insertion_deletion_curves,
    over_all,
)

CURVES = {"insertion": insertion_curve, "deletion": deletion_curve}
both_curves = pytest.mark.parametrize("curve", CURVES.values(), ids=list(CURVES))
TARGET = torch.tensor([1, 0, 2])


class SharesOfLight(nn.Module):
    """A class's probability is the sum of the pixels, weighted by its own weights, which add up to one.

    The logits are such that a sigmoid of them gives this sum, or, for `single_label`, a softmax the sum's share in
    those of all classes. Notes the images that it sees.
    """

    def __init__(self, size=SIZE, classes=3, single_label=False):
        super().__init__()
        weights = noise(classes, size, size, seed=7)
        self.weights = nn.Parameter(weights / weights.sum(dim=(1, 2), keepdim=True))
        self.single_label = single_label
        self.seen = []

    def probability(self, image):
        return torch.einsum("bhw,chw->bc", image.mean(dim=1), self.weights.to(image.dtype))

    def forward(self, image):
        assert not torch.is_grad_enabled()
        self.seen.append(image.clone())
        p = self.probability(image.double())
        return p.log() if self.single_label else p.logit()


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def linear(size=SIZE, single_label=False):
    return freeze(
        SharesOfLight(size, single_label=single_label), output="single_label" if single_label else "multi_label"
    )


def images(count=3, size=SIZE, seed=1):
    return noise(count, 3, size, size, seed=seed)


def contributions(explanandum, difference, target):
    """What each pixel adds to the target's probability, [N,H·W]."""
    return (difference.double().mean(dim=1) * explanandum.model.weights.double()[target]).flatten(1)


def smooth_case(seed=3):
    """A classifier that reads everything, and maps that say little of it."""
    return freeze(SmallNet()), torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


# Closed forms


@pytest.mark.parametrize("baseline", ["blur", "zero"])
def test_inserting_by_contribution_gives_their_sorted_cumulative_sum(baseline):
    explanandum, image = linear(), images()
    options = CurveOptions(step=1, baseline=baseline, kernel_size=9, sigma=4.0)
    start = baseline_image(explanandum, image, options)
    gain = contributions(explanandum, image - start, TARGET)
    curve = insertion_curve(explanandum, image, gain.view(3, SIZE, SIZE), TARGET, options)
    before = explanandum.model.probability(start.double()).gather(1, TARGET[:, None])
    expected = torch.cat([before, before + gain.sort(dim=1, descending=True).values.cumsum(dim=1)], dim=1)
    torch.testing.assert_close(curve, expected.float(), rtol=0, atol=1e-6)
    assert curve.dtype == torch.float32


@pytest.mark.parametrize("baseline", ["blur", "zero"])
def test_deleting_by_contribution_takes_the_same_sum_away(baseline):
    explanandum, image = linear(), images()
    options = CurveOptions(step=1, baseline=baseline, kernel_size=9, sigma=4.0)
    loss = contributions(explanandum, image - baseline_image(explanandum, image, options), TARGET)
    curve = deletion_curve(explanandum, image, loss.view(3, SIZE, SIZE), TARGET, options)
    before = explanandum.model.probability(image.double()).gather(1, TARGET[:, None])
    expected = torch.cat([before, before - loss.sort(dim=1, descending=True).values.cumsum(dim=1)], dim=1)
    torch.testing.assert_close(curve, expected.clamp(0, 1).float(), rtol=0, atol=1e-6)


def test_for_a_linear_classifier_insertion_and_deletion_add_up_to_both_ends():
    """What is in the inserted image is missing in the deleted one, whatever the map."""
    explanandum, image, maps = linear(), images(), noise(3, SIZE, SIZE, seed=9)
    ins, dele = (curve(explanandum, image, maps, TARGET, CurveOptions(step=0.05)) for curve in CURVES.values())
    torch.testing.assert_close(ins + dele, (ins[:, :1] + ins[:, -1:]).expand_as(ins), rtol=0, atol=1e-6)


def test_the_true_contributions_beat_noise_and_noise_beats_their_reverse():
    explanandum, image = linear(), images()
    options = CurveOptions(baseline="zero")
    gain = contributions(explanandum, image, TARGET).view(3, SIZE, SIZE)
    score = [
        over_all(*(auc(curve(explanandum, image, maps, TARGET, options)) for curve in CURVES.values()))
        for maps in (gain, noise(3, SIZE, SIZE, seed=5), -gain)
    ]
    assert (score[0] > score[1] + 0.02).all()
    assert (score[1] > score[2] + 0.02).all()
    torch.testing.assert_close(score[0], -score[2], rtol=0, atol=5e-3)  # not exact: steps of 10.24 pixels are rounded


def test_only_the_order_of_a_map_matters_also_for_negative_values():
    explanandum, image, maps = linear(), images(), noise(3, SIZE, SIZE, seed=9)
    expected = insertion_curve(explanandum, image, maps, TARGET)
    for same_order in (maps.double() - 100, (maps.double() * 3).exp(), maps.double() * 1e-30, maps * 0.25):
        assert torch.equal(insertion_curve(explanandum, image, same_order, TARGET), expected)


# Ends


@both_curves
@pytest.mark.parametrize("baseline", ["blur", "zero", "black"])
def test_the_ends_are_exactly_the_image_and_the_baseline_image(curve, baseline):
    explanandum, image = linear(), images()
    explanandum.card = replace(card(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    options = CurveOptions(step=0.3, baseline=baseline)
    curve(explanandum, image, noise(3, SIZE, SIZE), TARGET, options)
    seen = torch.cat(explanandum.model.seen).unflatten(0, (3, -1))
    replacement = {
        "blur": gaussian_blur(image, 51, 50.0),
        "zero": torch.zeros_like(image),
        "black": (-torch.tensor([0.5, 0.4, 0.3]) / torch.tensor([0.2, 0.3, 0.4]))[:, None, None].expand_as(image),
    }[baseline]
    ends = (replacement, image) if curve is insertion_curve else (image, replacement)
    assert torch.equal(seen[:, 0], ends[0])
    assert torch.equal(seen[:, -1], ends[1])
    assert torch.equal(seen.eq(image[:, None]).logical_or(seen.eq(replacement[:, None])), torch.ones_like(seen).bool())


@pytest.mark.parametrize("output", ["multi_label", "single_label"])
@pytest.mark.parametrize("score", ["own", "softmax"])
def test_the_ends_have_the_classifiers_probability_or_its_softmax(output, score):
    explanandum, image = freeze(SmallNet(), output=output), images()
    curve = insertion_curve(explanandum, image, noise(3, SIZE, SIZE), TARGET, CurveOptions(step=0.25, score=score))
    for column, pixels in ((0, gaussian_blur(image, 51, 50.0)), (-1, image)):
        logits = explanandum(pixels)
        sigmoid = output == "multi_label" and score == "own"
        expected = logits.sigmoid() if sigmoid else logits.softmax(dim=1)
        torch.testing.assert_close(curve[:, column], expected.gather(1, TARGET[:, None])[:, 0])


def test_a_softmax_curve_follows_the_closed_form_too():
    explanandum, image = linear(single_label=True), images()
    maps = noise(3, SIZE, SIZE, seed=9)
    options = CurveOptions(step=SIZE, baseline="blur")
    curve = insertion_curve(explanandum, image, maps, TARGET, options)
    start, ranks = gaussian_blur(image, 51, 50.0), importance_ranks(maps)
    for point, count in enumerate(changed_pixels(SIZE, SIZE**2)):
        mixed = torch.where((ranks < count)[:, None], image, start)
        shares = explanandum.model.probability(mixed.double())
        expected = (shares / shares.sum(dim=1, keepdim=True)).gather(1, TARGET[:, None])[:, 0]
        torch.testing.assert_close(curve[:, point], expected.float(), rtol=0, atol=1e-6)


# Ties


def test_without_ties_the_ranks_are_the_descending_order():
    maps = noise(4, 9, 7).double() - 0.5
    ranks = importance_ranks(maps)
    assert ranks.shape == maps.shape
    order = maps.flatten(1).argsort(dim=1, descending=True)
    assert torch.equal(ranks.flatten(1).gather(1, order), torch.arange(63, dtype=torch.int32).expand(4, -1))
    assert torch.equal(importance_ranks(maps, seed=1), ranks)


def test_ranks_are_a_permutation_that_respects_the_values_where_many_are_tied():
    maps = (noise(5, 12, 10) * 4).floor()
    ranks = importance_ranks(maps).flatten(1)
    assert torch.equal(ranks.sort(dim=1).values, torch.arange(120, dtype=torch.int32).expand(5, -1))
    by_rank = torch.empty(5, 120).scatter_(1, ranks.long(), maps.flatten(1))
    assert (by_rank.diff(dim=1) <= 0).all()


def test_the_order_of_tied_pixels_depends_on_the_seed_and_the_size_alone():
    flat = torch.zeros(3, 16, 12)
    ranks = importance_ranks(flat)
    assert torch.equal(ranks[0], ranks[2])
    assert torch.equal(importance_ranks(flat[:1] + 5.0)[0], ranks[0])
    torch.manual_seed(1234)
    assert torch.equal(importance_ranks(flat), ranks)
    assert not torch.equal(importance_ranks(flat, seed=1), ranks)


def test_drawing_the_order_leaves_the_callers_random_numbers_alone():
    state = torch.random.get_rng_state()
    importance_ranks(torch.zeros(1, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_tied_pixels_do_not_follow_each_other_by_index():
    """Spearman's correlation of a flat map's ranks with rows, columns and indices is that of noise."""
    size = 64
    ranks = importance_ranks(torch.zeros(1, size, size))[0].double().flatten()
    down, across = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for place in (down, across, down * size + across):
        assert torch.corrcoef(torch.stack([ranks, place.flatten().double()]))[0, 1].abs() < 4 / size


def test_minus_zero_is_tied_with_zero():
    flat = torch.zeros(1, 16, 16)
    signed = torch.where(noise(1, 16, 16) < 0.5, flat, -flat)
    assert torch.equal(importance_ranks(signed), importance_ranks(flat))


@both_curves
def test_a_flat_map_gives_nearly_the_straight_line(curve):
    """By chance alone each share of the pixels carries that share of a linear classifier's probability."""
    explanandum, image = linear(), images()
    flat = [
        curve(explanandum, image, torch.ones(3, SIZE, SIZE), TARGET, CurveOptions(baseline="zero", seed=seed))
        for seed in range(20)
    ]
    ends = flat[0][:, [0, -1]].double()
    fractions = curve_fractions(0.01, SIZE, SIZE)
    line = torch.lerp(ends[:, :1].expand(-1, 101), ends[:, 1:].expand(-1, 101), fractions)
    assert (flat[0] - line).abs().max() < 0.03
    torch.testing.assert_close(torch.stack(flat).double().mean(dim=0), line, rtol=0, atol=0.007)


def test_a_flat_map_does_not_win_where_index_order_would():
    """All the light is in the upper rows, which come first by index; a flat map is no better than random ones."""
    explanandum = linear()
    image = torch.where(torch.arange(SIZE)[:, None] < SIZE // 4, torch.ones(1, 3, SIZE, SIZE), 1e-3)
    options = CurveOptions(baseline="zero", step=0.02)

    def score(maps):
        many = image.expand(len(maps), -1, -1, -1)
        target = torch.ones(len(maps), dtype=torch.long)
        return over_all(*(auc(curve(explanandum, many, maps, target, options)) for curve in CURVES.values()))

    by_index = score(-torch.arange(SIZE**2).view(1, SIZE, SIZE).float())
    flat, random = score(torch.zeros(1, SIZE, SIZE)), score(noise(40, SIZE, SIZE, seed=2))
    assert by_index > random.max() + 0.1
    assert (flat - random.mean()).abs() < 4 * random.std()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("size", [12, 192])  # large enough for a radix sort
def test_ranks_are_those_of_a_stable_sort_for_values_of_any_sign_size_and_kind(dtype, size):
    spread = torch.randn(2, size, size, generator=torch.Generator().manual_seed(3)).double()
    maps = (spread * 4).round().mul(0.75 * 10 ** (spread.flip(0) * 2).round()).to(dtype)
    maps[0, 0] = torch.tensor([-0.0, 0.0, 1.0]).to(dtype).repeat(size // 3)
    shuffle = torch.randperm(size**2, generator=torch.Generator().manual_seed(5))
    order = shuffle[maps.flatten(1)[:, shuffle].sort(dim=1, descending=True, stable=True).indices]
    by_rank = importance_ranks(maps, seed=5).flatten(1).gather(1, order)
    assert torch.equal(by_rank, torch.arange(size**2, dtype=torch.int32).expand(2, -1))


def test_values_that_only_float64_can_tell_apart_are_in_order():
    maps = 1 + torch.arange(12, dtype=torch.float64).view(1, 3, 4) * 1e-14
    assert importance_ranks(maps).flatten().tolist() == list(range(11, -1, -1))


def test_an_order_that_was_drawn_in_inference_mode_serves_maps_with_gradients():
    with torch.inference_mode():
        expected = importance_ranks(torch.zeros(1, 5, 11))
    assert torch.equal(importance_ranks(torch.zeros(1, 5, 11, requires_grad=True)), expected)


# Steps


@pytest.mark.parametrize(
    ("step", "pixels", "expected"),
    [
        (0.25, 8, [0, 2, 4, 6, 8]),
        (0.4, 10, [0, 4, 8, 10]),
        (3, 8, [0, 3, 6, 8]),
        (4.0, 8, [0, 4, 8]),
        (1, 3, [0, 1, 2, 3]),
        (100, 8, [0, 8]),
        (0.9, 10, [0, 9, 10]),
        (0.3, 5, [0, 2, 3, 4, 5]),
    ],
)
def test_steps_are_a_share_of_the_pixels_or_their_number_and_the_last_takes_the_rest(step, pixels, expected):
    assert changed_pixels(step, pixels) == expected
    assert torch.equal(curve_fractions(step, 1, pixels) * pixels, torch.tensor(expected).double())


@pytest.mark.parametrize(("step", "points"), [(0.01, 101), (224, 225), (448, 113), (1 / 49, 50), (0.03, 35)])
def test_the_papers_steps_give_their_number_of_points(step, points):
    fractions = curve_fractions(step, 224, 224)
    assert len(fractions) == points
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert (fractions.diff() > 0).all()
    if step < 1:
        assert (fractions[:-1] - step * torch.arange(points - 1)).abs().max() <= 0.5 / 224**2


@both_curves
@pytest.mark.parametrize("step", [0.4, 300])
def test_the_image_changes_by_just_these_pixels(curve, step):
    explanandum, image = linear(), images(1)
    curve(explanandum, image, noise(1, SIZE, SIZE), TARGET[:1], CurveOptions(step=step, baseline="zero"))
    changed = torch.tensor(changed_pixels(step, SIZE**2))
    left = (torch.cat(explanandum.model.seen)[:, 0] != 0).sum(dim=(1, 2))
    assert torch.equal(left, changed if curve is insertion_curve else SIZE**2 - changed)


def test_an_image_need_not_be_square():
    explanandum, image = freeze(SmallNet()), noise(2, 3, 16, 24)
    curve = insertion_curve(explanandum, image, noise(2, 16, 24), TARGET[:2], CurveOptions(step=100))
    assert curve.shape == (2, len(curve_fractions(100, 16, 24))) == (2, 5)


@pytest.mark.parametrize("step", [0, -0.1, 1.5, 224.5, float("nan"), float("inf")])
def test_a_step_is_a_share_or_a_whole_number(step):
    with pytest.raises(ValueError, match="step is .*give a share of the pixels below 1 or a whole number"):
        CurveOptions(step=step)


def test_an_unknown_baseline_or_score_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown baseline 'grey'; choose one of: blur, zero, black"):
        CurveOptions(baseline="grey")
    with pytest.raises(ValueError, match="Unknown score 'logit'; choose one of: own, softmax"):
        CurveOptions(score="logit")


# Batches and chunks


@both_curves
def test_a_batch_gives_what_its_images_give_one_by_one(curve):
    explanandum, image = smooth_case()
    maps = (noise(3, SIZE, SIZE, seed=4) * 5).floor()
    single = [curve(explanandum, image[i, None], maps[i, None], TARGET[i, None]) for i in range(3)]
    torch.testing.assert_close(curve(explanandum, image, maps, TARGET), torch.cat(single), rtol=1e-5, atol=1e-6)


@both_curves
def test_the_size_of_a_chunk_changes_nothing_and_is_never_exceeded(curve):
    explanandum, image = smooth_case()
    image, target = torch.cat([image, image.flip(0)])[:5], torch.tensor([1, 0, 2, 0, 1])
    maps, batches = noise(5, SIZE, SIZE), []
    explanandum.model.register_forward_pre_hook(lambda _module, inputs: batches.append(len(inputs[0])))
    expected = curve(explanandum, image, maps, target, CurveOptions(step=0.05))
    assert expected.shape == (5, 21)
    for size in (1, 2, 3, 7, 1000):
        batches.clear()
        found = curve(explanandum, image, maps, target, CurveOptions(step=0.05, chunk_size=size))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert max(batches) <= size
        assert sum(batches) == 5 * 21, "No pass beyond those of the curve."


@both_curves
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_classifier_sees_the_images_memory_format(curve, layout):
    explanandum, image = smooth_case()
    expected, formats = curve(explanandum, image, noise(3, SIZE, SIZE), TARGET), set()
    explanandum.model.register_forward_pre_hook(lambda _module, inputs: formats.add(inputs[0].stride()))
    found = curve(explanandum, image.contiguous(memory_format=layout), noise(3, SIZE, SIZE), TARGET)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert formats == {image.contiguous(memory_format=layout).stride()}


@both_curves
def test_images_that_are_a_part_of_larger_ones_give_the_same_curve(curve):
    explanandum, large = freeze(SmallNet()), images(3, SIZE + 4)
    maps = noise(3, SIZE, SIZE)
    for part in (large[..., 1:-3, 2:-2], large.contiguous(memory_format=torch.channels_last)[..., 1:-3, 2:-2]):
        expected = curve(explanandum, part.contiguous(), maps, TARGET)
        torch.testing.assert_close(curve(explanandum, part, maps, TARGET), expected, rtol=1e-5, atol=1e-6)


@both_curves
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_another_precision_change_by_the_same_pixels(curve, dtype):
    """More pixels than these floats can count."""
    size, points = 80, changed_pixels(0.07, 80**2)
    explanandum = linear(size)
    image = images(1, size).clamp(min=0.1).to(dtype)
    curve(explanandum, image, noise(1, size, size), TARGET[:1], CurveOptions(step=0.07, baseline="zero"))
    seen, ranks = torch.cat(explanandum.model.seen), importance_ranks(noise(1, size, size))
    changed = ranks < torch.tensor(points)[:, None, None]
    kept = changed if curve is insertion_curve else ~changed
    assert seen.dtype == dtype
    assert torch.equal(seen, image * kept[:, None])


# Both curves at once

PAIRS = {
    "same": (CurveOptions(0.1), CurveOptions(0.1)),
    "baseline": (CurveOptions(0.1, "blur"), CurveOptions(0.1, "zero")),
    "blur": (CurveOptions(0.1, sigma=9.0), CurveOptions(0.1, kernel_size=7)),
    "seed": (CurveOptions(0.1, seed=2), CurveOptions(0.1, seed=3)),
    "step and score": (CurveOptions(0.3, score="softmax"), CurveOptions(100)),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=list(PAIRS))
@pytest.mark.parametrize("count", [0, 3, 40])  # also more images than are in a chunk
def test_both_curves_at_once_are_exactly_the_two_alone(pair, count):
    explanandum, image, maps = freeze(SmallNet()), images(count), (noise(count, SIZE, SIZE) * 5).floor()
    target = torch.arange(count) % 3
    found = insertion_deletion_curves(explanandum, image, maps, target, *pair)
    for one, curve, options in zip(found, CURVES.values(), pair, strict=True):
        assert torch.equal(one, curve(explanandum, image, maps, target, options))


@pytest.mark.parametrize(
    ("name", "sorts", "blurs"),
    [("same", 1, 1), ("baseline", 1, 1), ("blur", 1, 2), ("seed", 2, 1), ("step and score", 1, 1)],
)
def test_what_both_curves_share_is_made_once(name, sorts, blurs, monkeypatch):
    made = []

    def counted(function):
        return lambda *arguments: (made.append(function), function(*arguments))[1]

    monkeypatch.setattr(module, "importance_ranks", counted(importance_ranks))
    monkeypatch.setattr(module, "gaussian_blur", counted(gaussian_blur))
    insertion_deletion_curves(freeze(SmallNet()), images(), noise(3, SIZE, SIZE), TARGET, *PAIRS[name])
    assert [made.count(function) for function in (importance_ranks, gaussian_blur)] == [sorts, blurs]


def test_of_two_chunk_sizes_the_smaller_one_counts():
    explanandum, image = smooth_case()
    maps, batches = noise(3, SIZE, SIZE), []
    expected = insertion_deletion_curves(explanandum, image, maps, TARGET)
    explanandum.model.register_forward_pre_hook(lambda _module, inputs: batches.append(len(inputs[0])))
    found = insertion_deletion_curves(
        explanandum, image, maps, TARGET, CurveOptions(chunk_size=50), CurveOptions(chunk_size=2)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert max(batches) == 2
    assert sum(batches) == 3 * 2 * 101


def test_no_image_gives_no_curve():
    explanandum = freeze(SmallNet())
    curve = deletion_curve(explanandum, torch.zeros(0, 3, SIZE, SIZE), torch.zeros(0, SIZE, SIZE), TARGET[:0])
    assert curve.shape == (0, 101)


def test_gradients_and_inference_mode_make_no_difference():
    explanandum, image = smooth_case()
    maps = noise(3, SIZE, SIZE)
    expected = insertion_curve(explanandum, image, maps, TARGET, CurveOptions(step=0.2))
    found = insertion_curve(explanandum, image.requires_grad_(), maps.requires_grad_(), TARGET, CurveOptions(step=0.2))
    assert not found.requires_grad
    assert torch.equal(found, expected)
    with torch.inference_mode():
        assert torch.equal(insertion_curve(explanandum, image, maps, TARGET, CurveOptions(step=0.2)), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_map_that_is_not_finite_is_refused_with_the_number_of_such_maps(bad):
    explanandum, image, maps = linear(), images(), noise(3, SIZE, SIZE)
    maps[0, 3, 4] = maps[2, 0, 0] = maps[2, 1, 1] = bad
    for curve in CURVES.values():
        with pytest.raises(ValueError, match="2 of 3 maps hold NaN or infinity"):
            curve(explanandum, image, maps, TARGET)
    assert not explanandum.model.seen


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match="maps are 3 × 7 × 7, but the images want 3 × 32 × 32"):
        insertion_curve(linear(), images(), noise(3, 7, 7), TARGET)


# Areas


def test_the_area_is_the_mean_height():
    curve = torch.tensor([[0.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.0, 0.5, 1.0]])
    torch.testing.assert_close(auc(curve), torch.tensor([0.75, 0.5, 0.5]))
    random = noise(4, 225)
    expected = (random.sum(dim=1) - (random[:, 0] + random[:, -1]) / 2) / 224  # RISE's formula
    torch.testing.assert_close(auc(random), expected)
    torch.testing.assert_close(auc(random, curve_fractions(224, 224, 224)), expected)


@pytest.mark.parametrize("step", [0.3, 0.07, 333, 1000])
def test_the_area_of_a_straight_line_is_a_half_also_if_the_last_step_is_shorter(step):
    fractions = curve_fractions(step, SIZE, SIZE)
    assert fractions.diff()[-1] < fractions.diff()[0]
    torch.testing.assert_close(auc(fractions[None].float(), fractions), torch.tensor([0.5]))


def test_the_over_all_score_is_the_difference():
    found = over_all(torch.tensor([0.6491, 0.2]), torch.tensor([0.1129, 0.5]))
    torch.testing.assert_close(found, torch.tensor([0.5362, -0.3]))


# Metrics

METRICS = {InsertionAUC: insertion_curve, DeletionAUC: deletion_curve}
both_metrics = pytest.mark.parametrize("kind", METRICS, ids=lambda kind: kind.__name__)


@both_metrics
def test_a_metric_is_the_mean_over_images_of_the_function(kind):
    explanandum, image = smooth_case()
    maps = noise(3, SIZE, SIZE)
    metric = kind(explanandum, step=0.3, baseline="zero")
    metric.update(image[:2], maps[:2], TARGET[:2])
    metric.update(image[2:], maps[2:], TARGET[2:])
    curve = METRICS[kind](explanandum, image, maps, TARGET, CurveOptions(step=0.3, baseline="zero"))
    torch.testing.assert_close(metric.compute(), auc(curve, metric.fractions).mean())
    torch.testing.assert_close(metric.mean_curve(), curve.mean(dim=0))
    torch.testing.assert_close(auc(metric.mean_curve()[None], metric.fractions)[0], metric.compute())
    assert metric.images == 3


@both_metrics
def test_two_uneven_halves_merged_are_the_whole(kind):
    explanandum, image = smooth_case()
    maps, options = noise(3, SIZE, SIZE), CurveOptions(step=0.1)
    whole, first, second = (kind(explanandum, options) for _ in range(3))
    whole.update(image, maps, TARGET)
    first.update(image[:1], maps[:1], TARGET[:1])
    second.update(image[1:], maps[1:], TARGET[1:])
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), whole.compute())
    torch.testing.assert_close(first.mean_curve(), whole.mean_curve())
    assert first.images == 3


def test_the_mean_curve_is_that_of_all_processes_and_leaves_the_own_sums_alone():
    explanandum, image = smooth_case()
    maps = noise(3, SIZE, SIZE)
    metrics = [InsertionAUC(explanandum, step=0.1) for _ in range(3)]
    for metric, part in zip(metrics, (slice(0, 1), slice(1, 3), slice(0, 3)), strict=True):
        metric.update(image[part], maps[part], TARGET[part])
    own, other, whole = metrics
    others = iter([other.area, other.heights, other.images] * 2)
    own.distributed_available_fn = lambda: True
    own.dist_sync_fn = lambda state, group=None: [state, next(others)]
    torch.testing.assert_close(own.mean_curve(), whole.mean_curve())
    torch.testing.assert_close(own.compute(), whole.compute())
    assert own.images == 1


def test_options_can_be_given_together_with_changes_and_a_misspelt_one_is_refused():
    metric = DeletionAUC(linear(), CurveOptions(step=0.5, seed=3), baseline="zero")
    assert metric.options == CurveOptions(step=0.5, seed=3, baseline="zero")
    with pytest.raises(TypeError, match="basline"):
        DeletionAUC(linear(), basline="zero")


def test_a_metric_takes_images_of_another_size_only_with_steps_that_fit():
    explanandum = freeze(SmallNet())
    image, maps, target = noise(1, 3, 16, 24), noise(1, 16, 24), TARGET[:1]
    metric = InsertionAUC(explanandum, step=0.1)
    metric.update(image, maps, target)
    assert metric.mean_curve().shape == (11,)
    with pytest.raises(ValueError, match="16 × 24 pixels take 4 steps, those of the explanandum's card 11"):
        InsertionAUC(explanandum, step=100).update(image, maps, target)


def test_a_metric_starts_anew_after_a_reset_and_a_failure_adds_nothing():
    explanandum, image = smooth_case()
    metric = InsertionAUC(explanandum, step=0.5)
    maps = noise(3, SIZE, SIZE)
    metric.update(image, maps, TARGET)
    metric.reset()
    assert metric.images == 0
    with pytest.raises(ValueError, match="3 of 3 maps"):
        metric.update(image, maps * torch.nan, TARGET)
    metric.update(image[:1], maps[:1], TARGET[:1])
    assert metric.images == 1
    assert 0 < metric.compute() < 1


def test_a_metric_leaves_the_explanandum_as_it_found_it():
    explanandum, image = smooth_case()
    before = explanandum.fingerprint
    metric = DeletionAUC(explanandum, step=0.5)
    metric.train()
    metric.update(image, noise(3, SIZE, SIZE), TARGET)
    assert explanandum.fingerprint == before
    assert not any(module.training for module in explanandum.modules())
