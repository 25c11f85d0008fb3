"""The learning rate follows its schedule: constant or cosine, after a linear warm-up."""

import math

import pytest
import torch
from torch import nn

from explainer.optimizer import OptimizerOptions, adam

STEPS = 100


def rates(steps=STEPS, **options):
    """The learning rate of every step, and the one after the last."""
    network = nn.Linear(1, 1)
    made = adam(network.parameters(), OptimizerOptions(lr=0.5, **options), steps)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    found = []
    for _ in range(STEPS + 1):
        found.append(optimizer.param_groups[0]["lr"])
        network(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        scheduler.step()
    return found


def test_constant_is_constant_and_needs_no_end():
    assert rates(steps=math.inf) == [0.5] * (STEPS + 1)


def test_warm_up_rises_by_equal_parts_from_the_first_step_on():
    found = rates(warmup_steps=4)
    assert found[:6] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert found[5:] == [0.5] * (STEPS - 4)


def test_cosine_starts_at_the_full_rate_halves_in_the_middle_and_ends_at_zero():
    found = rates(schedule="cosine")
    assert found[0] == 0.5
    assert found[STEPS // 4] == pytest.approx(0.5 * (1 + math.sqrt(0.5)) / 2)
    assert found[STEPS // 2] == pytest.approx(0.25)
    assert found[STEPS] == pytest.approx(0, abs=1e-12)
    assert all(later < earlier for earlier, later in zip(found, found[1:], strict=False))


def test_cosine_after_a_warm_up_counts_from_the_first_step():
    found = rates(schedule="cosine", warmup_steps=9)
    for step in (0, 4, 9, 10, 50, 99):
        cosine = (1 + math.cos(math.pi * step / STEPS)) / 2
        assert found[step] == pytest.approx(0.5 * min(1, (step + 1) / 10) * cosine)
    assert found[0] == pytest.approx(0.05)
    assert found[50] == pytest.approx(0.25)


def test_beyond_the_last_step_the_rate_stays_zero():
    assert rates(steps=STEPS // 2, schedule="cosine")[STEPS // 2 :] == pytest.approx([0] * (STEPS // 2 + 1), abs=1e-12)


def test_frozen_parameters_are_left_out():
    network = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    (group,) = adam(network.parameters(), OptimizerOptions(), 1)["optimizer"].param_groups
    assert [id(value) for value in group["params"]] == [id(value) for value in network[1].parameters()]
