"""Meaningful perturbation (MASK, EMP): Adam lowers the probability with a small mask.

B images, h×w cells of a mask, H×W pixels.
"""

import pytest
import torch
from toy_models import SmallNet, WindowNet, freeze

from explainer.attribution import METHODS
from explainer.attribution.mask_optimisation import DeletionGame, Regulariser, constant_blur
from explainer.attribution.meaningful import EMP

TARGET = torch.tensor([0, 1, 2])


def bright_windows(model):
    noise = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return noise + model.windows.windows.sum(dim=0)


def test_defaults_are_pamis():
    method = METHODS["mask"](freeze(SmallNet()))
    assert (method.iterations, method.learning_rate, method.mask_size) == (500, 0.1, 28)
    assert method.regulariser == Regulariser(0.01, 0.2, 3)


def test_it_deletes_the_class_and_leaves_the_rest():
    model = WindowNet()
    image, explanandum = bright_windows(model), freeze(model, "windows")
    method = EMP(explanandum, iterations=60)
    maps = method(image, TARGET)
    inside = torch.stack(
        [single[window > 0].mean() for single, window in zip(maps, model.windows.windows, strict=True)]
    )
    outside = torch.stack(
        [single[window == 0].mean() for single, window in zip(maps, model.windows.windows, strict=True)]
    )
    assert (inside > 0.5).all()
    assert (outside < 0.15).all()


def test_it_lowers_the_probability_that_it_minimises():
    model = WindowNet()
    image, explanandum = bright_windows(model), freeze(model, "windows")
    mask = EMP(explanandum, iterations=60, score="probability").optimise(image, TARGET, torch.ones(3, 28, 28))
    game = DeletionGame(explanandum, image, TARGET, Regulariser(0.01, 0.2, 3))
    game.baseline = constant_blur(image, EMP.BLUR)(0)
    rows = torch.arange(3)
    assert (game.objective(mask[:, None], rows) < game.objective(torch.ones(3, 1, 28, 28), rows) - 0.05).all()


def test_the_first_step_of_adam_is_the_learning_rate_against_the_gradients_sign():
    explanandum = freeze(SmallNet())
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    target, start = torch.tensor([0, 1]), torch.full((2, 6, 6), 0.5)
    method = EMP(explanandum, iterations=1, noise=0.0, mask_size=6, score="probability")
    game = DeletionGame(explanandum, image, target, method.regulariser)
    game.baseline = constant_blur(image, EMP.BLUR)(0)
    gradient = game.gradient(start[:, None], torch.zeros(1, 3, 32, 32))[:, 0]
    large = gradient.abs() > 1e-5
    assert large.any()
    found = method.optimise(image, target, start)
    torch.testing.assert_close(found[large], (start - 0.1 * gradient.sign())[large], rtol=0, atol=2e-4)
    assert (start == 0.5).all()


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_the_chunk_size_changes_nothing(chunk_size):
    model = WindowNet()
    explanandum = freeze(model, "windows")
    expected = EMP(explanandum, iterations=5)(bright_windows(model), TARGET)
    maps = EMP(explanandum, iterations=5, chunk_size=chunk_size)(bright_windows(model), TARGET)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {"iterations": 1}) for name in ("i_gos", "igos_pp", "mask", "sigcam", "extremal")],
        ("aop", {"optimiser": "i_gos:iterations=1"}),
    ],
)
def test_the_global_generator_is_left_alone(name, options):
    method = METHODS[name](freeze(SmallNet()), **options)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    before = torch.get_rng_state()
    method(image, torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), before)
