"""Any method can be broken off before its next pass, and leaves nothing behind."""

import pytest
import torch
from test_attribution import QUICK, Case, images
from toy_models import state_of

from explainer.attribution import METHODS
from explainer.attribution.spec import options_of
from explainer.passes import Stopped, recorded, stoppable

FEW = 3
"""Passes that a method is allowed."""


class Allowed:
    """Wants to stop before the pass that follows so many."""

    def __init__(self, passes):
        self.left = passes + 1  # the question at the beginning comes before any pass

    def __call__(self):
        self.left -= 1
        return self.left < 0


def case_of(name):
    """The method with the smallest passes there are."""
    return Case(name, options=QUICK.get(name, {}) | ({"chunk_size": 1} if "chunk_size" in options_of(name) else {}))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("explainer", "random", "center")])
def test_a_method_is_broken_off_before_its_next_pass_and_then_says_what_it_always_says(name):
    case, image, target = case_of(name), images(2), [0, 1]
    with recorded(case.model) as passes:
        expected = case(image, target)
    allowed = min(FEW, len(passes) - 1)
    before = state_of(case.explanandum, case.network)
    with pytest.raises(Stopped), stoppable(case.model, Allowed(allowed)), recorded(case.model) as passes:
        case(image, target)
    assert len(passes) == allowed
    assert state_of(case.explanandum, case.network) == before
    assert torch.equal(case(image, target), expected)
