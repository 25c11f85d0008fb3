"""What is recorded of a classifier's passes is what went through it, and the classifier is left as it was."""

import pytest
import torch
from toy_models import BreakableNet, BrokenError, SmallNet, state_of

from explainer.passes import Pass, recorded, totals

IMAGE = torch.ones(3, 3, 8, 8)


def small():
    return SmallNet().eval().requires_grad_(False)


def test_a_pass_is_recorded_with_its_images_and_every_backward_pass_through_its_logits():
    model = small()
    with recorded(model) as passes:
        assert passes == []
        model(IMAGE)
        wanted = IMAGE[:2].clone().requires_grad_()
        logits = model(wanted)
        assert passes == [Pass(3, to_image=False), Pass(2, to_image=True)]
        for index in range(2):
            torch.autograd.grad(logits[:, index].sum(), wanted, retain_graph=True)
        model(wanted)  # of which no gradient is taken
    assert passes == [Pass(3, to_image=False), Pass(2, to_image=True, backward=2), Pass(2, to_image=True)]


def test_a_backward_pass_belongs_to_its_own_forward_pass_whatever_came_between():
    model = small()
    wanted = IMAGE.clone().requires_grad_()
    with recorded(model) as passes:
        first, _ = model(wanted), model(wanted[:1])
        first.sum().backward()
    assert [single.backward for single in passes] == [1, 0]


def test_a_gradient_for_weights_alone_is_not_one_for_the_images():
    model = SmallNet()
    with recorded(model) as passes:
        model(IMAGE).sum().backward()
    assert passes == [Pass(3, to_image=False, backward=1)]


def test_what_goes_through_the_model_outside_the_block_is_not_counted():
    model = small()
    model(IMAGE)
    with recorded(model) as passes:
        pass
    model(IMAGE)
    assert passes == []


def test_two_recordings_of_one_model_see_the_same():
    model = small()
    with recorded(model) as outer:
        model(IMAGE)
        with recorded(model) as inner:
            model(IMAGE[:1])
    assert outer == [Pass(3, to_image=False), *inner]
    assert inner == [Pass(1, to_image=False)]


def test_the_model_is_left_as_it_was_also_after_an_error():
    model = BreakableNet().eval()
    before = state_of(model)
    with recorded(model):
        model(IMAGE)
    assert state_of(model) == before
    model.breaks.broken = True
    with pytest.raises(BrokenError), recorded(model):
        model(IMAGE)
    del model.breaks.broken
    assert state_of(model) == before


def test_results_and_gradients_are_those_without_a_recording():
    model, wanted = small(), IMAGE.clone().requires_grad_()
    expected = model(wanted)
    (gradient,) = torch.autograd.grad(expected[:, 0].sum(), wanted)
    with recorded(model):
        found = model(wanted)
        (recorded_gradient,) = torch.autograd.grad(found[:, 0].sum(), wanted)
    assert torch.equal(found, expected)
    assert torch.equal(recorded_gradient, gradient)


def test_totals_count_images_and_each_way_back():
    assert totals([]) == (0, 0)
    passes = [Pass(3, to_image=False), Pass(2, to_image=True, backward=3), Pass(5, to_image=False, backward=1)]
    assert totals(passes) == (10, 2 * 3 + 5)
    assert totals(iter(passes)) == (10, 11)
