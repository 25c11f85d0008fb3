"""How class masks are pulled to teacher maps: values by hand, plain loops, gradients and schedules."""

import math

import numpy as np
import pytest
import torch

from datamodules.batch import Batch
from explainer.distillation.lesson import Lesson
from explainer.distillation.losses import LOSSES, distillation_losses, mean_over_images, teacher_shares
from explainer.distillation.options import DistillOptions

B, C, T, SIZE = 3, 4, 2, 6


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def labels():
    return torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]])


def logit(p):
    return math.log(p / (1 - p))


def plain_loss(name, masks, target):
    """Of one mask [H,W] and one map, pixel by pixel."""
    m, t = masks.double().flatten().tolist(), target.double().flatten().tolist()
    if name == "l1":
        return sum(abs(a - b) for a, b in zip(m, t, strict=True)) / len(m)
    if name == "mse":
        return sum((a - b) ** 2 for a, b in zip(m, t, strict=True)) / len(m)
    if name == "correlation":
        return 1 - np.corrcoef(m, t)[0, 1]
    total = 0.0
    for a, b in zip(m, t, strict=True):
        for target_part, mask_part in ((b, a), (1 - b, 1 - a)):
            if target_part > 0:
                total += target_part * math.log(target_part / mask_part)
    return total / len(m)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_plain_loops(name, labels, generator):
    logits = torch.randn(B, C, SIZE, SIZE, generator=generator)
    maps = torch.rand(3, T, SIZE, SIZE, generator=generator)
    weights = torch.tensor([[1.0, 0.0], [0.2, 0.6], [0.0, 0.0]])
    total, own = distillation_losses(logits, labels, maps, weights, name)
    pairs = [(0, 0), (0, 2), (2, 1)]
    each = [[plain_loss(name, logits[b, c].sigmoid(), maps[n, t]) for t in range(T)] for n, (b, c) in enumerate(pairs)]
    first = each[0][0]
    second = 0.25 * each[1][0] + 0.75 * each[1][1]
    assert total.item() == pytest.approx(((first + second) / 2 + 0 + 0) / B, rel=1e-4)
    assert own.tolist() == pytest.approx([(each[0][0] + each[1][0]) / 2, each[1][1]], rel=1e-4)


@pytest.mark.parametrize(("name", "value"), [("l1", 0.5), ("mse", 0.25), ("bce", math.log(2))])
def test_a_mask_of_one_half_against_a_hard_map_costs_what_the_formula_says(name, value):
    hard = torch.tensor([[[0.0, 1.0]]])
    assert LOSSES[name](torch.zeros(1, 1, 2), hard).item() == pytest.approx(value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_mask_that_equals_the_map_costs_nothing_and_is_not_moved(name, generator):
    target = torch.rand(2, SIZE, SIZE, generator=generator).clamp(0.05, 0.95)
    logits = torch.logit(target).requires_grad_()
    loss = LOSSES[name](logits, target)
    assert loss.tolist() == pytest.approx([0, 0], abs=1e-6)
    loss.sum().backward()
    assert logits.grad.abs().max() < 1e-4 if name != "l1" else True


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_the_gradient_lowers_the_loss(name, generator):
    target = torch.rand(1, SIZE, SIZE, generator=generator)
    logits = torch.randn(1, SIZE, SIZE, generator=generator, requires_grad=True)
    before = LOSSES[name](logits, target)
    before.sum().backward()
    after = LOSSES[name](logits.detach() - 0.1 * logits.grad, target)
    assert after.item() < before.item()


def test_correlation_does_not_care_for_size_and_contrast():
    target = torch.linspace(0, 1, 9).view(1, 3, 3)
    faint = torch.logit(0.1 + 0.2 * target)
    assert LOSSES["correlation"](faint, target).item() == pytest.approx(0, abs=1e-5)
    assert LOSSES["correlation"](-faint, target).item() == pytest.approx(2, abs=1e-2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_flat_maps_and_saturated_masks_give_finite_losses_and_gradients(name, value):
    logits = torch.full((1, 4, 4), 80.0, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((1, 4, 4), value))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    if name == "correlation":
        assert loss.item() == 1


def test_masks_of_absent_classes_are_left_alone(labels, generator):
    logits = torch.randn(B, C, SIZE, SIZE, generator=generator, requires_grad=True)
    total, _ = distillation_losses(logits, labels, torch.rand(3, T, SIZE, SIZE), torch.ones(3, T), "bce")
    total.backward()
    moved = logits.grad.flatten(2).abs().sum(dim=2) > 0
    assert moved.equal(labels.bool())


def test_shares_sum_to_one_or_are_all_zero():
    shares = teacher_shares(torch.tensor([[2.0, 6.0], [0.0, 0.0], [0.0, 3.0]]))
    assert shares.tolist() == [[0.25, 0.75], [0.0, 0.0], [0.0, 1.0]]


def test_an_image_without_a_class_counts_as_an_image_without_loss():
    assert mean_over_images(torch.tensor([2.0, 4.0, 6.0]), torch.tensor([0, 0, 2]), 3).item() == pytest.approx(3)
    assert mean_over_images(torch.zeros(0), torch.zeros(0, dtype=torch.long), 3).item() == 0


def test_a_batch_without_any_class_has_no_loss(generator):
    logits = torch.randn(2, C, SIZE, SIZE, generator=generator, requires_grad=True)
    total, own = distillation_losses(logits, torch.zeros(2, C), torch.zeros(0, T, SIZE, SIZE), torch.zeros(0, T), "bce")
    total.backward()
    assert total.item() == 0
    assert own.isnan().all()


def test_maps_that_do_not_belong_to_the_labels_are_an_error(labels):
    with pytest.raises(ValueError, match="3 classes are in the images, but 2 have teacher maps"):
        distillation_losses(torch.zeros(B, C, 2, 2), labels, torch.zeros(2, T, 2, 2), torch.ones(2, T), "l1")


@pytest.mark.parametrize(
    ("options", "epochs", "weight"),
    [
        ({}, 2.0, 0.3),
        ({"decay": 1}, 7.5, 1.0),
        ({"weight": 2.0, "warmup_epochs": 2, "decay": 0.5}, 1.9, 2.0),
        ({"weight": 2.0, "warmup_epochs": 2, "decay": 0.5}, 2.0, 2.0),
        ({"weight": 2.0, "warmup_epochs": 2, "decay": 0.5}, 3.0, 1.0),
        ({"weight": 2.0, "warmup_epochs": 2, "decay": 0.5}, 4.5, 2 * 0.5**2.5),
        ({"decay": 0.0, "warmup_epochs": 1}, 1.0, 1.0),
        ({"decay": 0.0, "warmup_epochs": 1}, 1.01, 0.0),
    ],
)
def test_the_weight_is_full_at_first_and_then_fades(options, epochs, weight):
    assert DistillOptions(**options).weight_at(epochs) == pytest.approx(weight)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": -1},
        {"decay": 1.1},
        {"decay": -0.1},
        {"warmup_epochs": -1},
        {"map_size": 0},
        {"batch_size": 0},
        {"shard": "0/4"},
        {"shard": "5/4"},
        {"shard": "two"},
        {"teachers": ["rise", "rise"]},
    ],
)
def test_options_that_can_not_be_are_errors_that_name_them(wrong):
    with pytest.raises(ValueError, match=f"--distill.{next(iter(wrong))}"):
        DistillOptions(**wrong)


def test_a_shard_is_counted_from_one():
    assert DistillOptions(shard="3/16").part() == (2, 16)


def make_batch(labels, maps, weights):
    return Batch(
        torch.zeros(len(labels), 3, SIZE, SIZE), labels, tuple("abc"), teacher_maps=maps, teacher_weights=weights
    )


def test_student_and_teacher_that_agree_have_full_likeness(labels):
    maps = (torch.linspace(0, 1, SIZE * SIZE).view(1, 1, SIZE, SIZE).repeat(3, T, 1, 1) * 255).round().to(torch.uint8)
    logits = torch.logit((maps[0, 0].float() / 255).clamp(1e-4, 1 - 1e-4)).repeat(B, C, 1, 1)
    weights = torch.tensor([[1.0, 0], [1.0, 0], [1.0, 0]])
    alike, absent = Lesson(DistillOptions(["one", "two"])).likeness(logits, make_batch(labels, maps, weights))
    assert alike.rank_correlation.item() == pytest.approx(1, abs=1e-4)
    assert alike.iou.item() == pytest.approx(1, abs=1e-3)
    assert (alike.pairs, absent.pairs) == (3, 0)


def test_soft_iou_is_the_sum_of_minima_over_that_of_maxima():
    maps = torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8)  # 0, .2, .4, 1
    logits = torch.tensor([[[[0.0, logit(0.4)], [logit(0.4), logit(0.5)]]]])  # .5, .4, .4, .5
    batch = Batch(
        torch.zeros(1, 3, 2, 2), torch.ones(1, 1), ("a",), teacher_maps=maps, teacher_weights=torch.ones(1, 1)
    )
    (alike,) = Lesson(DistillOptions(["one"])).likeness(logits, batch)
    assert alike.iou.item() == pytest.approx((0 + 0.2 + 0.4 + 0.5) / (0.5 + 0.4 + 0.4 + 1), rel=1e-4)


def test_a_batch_without_teacher_maps_is_a_clear_error(labels):
    batch = Batch(torch.zeros(B, 3, SIZE, SIZE), labels, tuple("abc"))
    with pytest.raises(ValueError, match="no teacher maps"):
        Lesson(DistillOptions(["one"])).losses(torch.zeros(B, C, SIZE, SIZE), batch)
