"""I-GOS and iGOS++: the objective, its integrated gradient, the line search, and that they lower what they minimise.

B images, K masks an image, h×w cells of a mask, H×W pixels.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from reference import igos as reference
from reference.convert import nested
from torch import nn
from toy_models import SmallNet, WindowNet, freeze

from explainer.attribution import METHODS
from explainer.attribution.igos import IGOS, BilateralGame, IGOSpp, edge_weights
from explainer.attribution.mask_optimisation import (
    DeletionGame,
    IntegratedDescent,
    Regulariser,
    constant_blur,
    heatmap,
    line_search,
    total_variation,
)
from explainer.attribution.perturb import gaussian_blur, noise_draws

SIZE = 12


def images(count=2, size=SIZE, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def random_masks(count, kinds=1, cells=5, seed=1):
    return torch.rand(count, kinds, cells, cells, generator=torch.Generator().manual_seed(seed))


def game_of(explanandum, image, target, l1=0.5, tv=2.0, kind=DeletionGame, chunk_size="auto"):
    game = kind(explanandum, image, torch.tensor(target), Regulariser(l1, tv), chunk_size)
    game.baseline = gaussian_blur(image, 5, 2.0)
    return game


def every_row(masks):
    return torch.arange(len(masks))


def problem_of(game, index):
    """The same in the plain loops' words, asked of a float64 copy of the model."""
    model = copy.deepcopy(game.explanandum.model).double()
    target = int(game.target[index])

    def score(image):
        logits = model(torch.tensor(image, dtype=torch.float64)[None])[0, target]
        return float(logits.sigmoid())

    def score_gradient(image):
        leaf = torch.tensor(image, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(leaf[None])[0, target].sigmoid(), leaf)
        return nested(gradient)

    return reference.Problem(
        nested(game.image[index].double()),
        nested(game.baseline[index].double()),
        score,
        score_gradient,
        game.regulariser.l1,
        game.regulariser.tv,
    )


def assert_close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=atol)


class Sharp(nn.Module):
    """A model whose logits, moved and made larger, move its probabilities."""

    def __init__(self, model, factor=20.0, offset=0.0):
        super().__init__()
        self.model = model
        self.factor = factor
        self.register_buffer("offset", torch.as_tensor(offset))

    def forward(self, image):
        return self.factor * (self.model(image) - self.offset)


def sharp_small_net():
    return freeze(Sharp(SmallNet()))


def steep_small_net():
    """Its probabilities of noise are far from those of blurred noise."""
    model = SmallNet().eval()
    with torch.no_grad():
        return freeze(Sharp(model, 1000.0, model(images(8, SIZE)).mean(dim=0)))


def steep_window_net():
    """Its probabilities are near 1 in the light and near 0 in the blur."""
    return freeze(Sharp(WindowNet(), 8.0, 1.0), "model.windows")


def bright_windows(count=3):
    """Noise, brighter in the squares that the classes read."""
    return images(count, 32) + WindowNet().windows.windows.sum(dim=0)


# What is minimised


def test_the_objective_is_probability_plus_area_plus_variation():
    game = game_of(sharp_small_net(), images(), [0, 2])
    masks = random_masks(2)
    expected = [reference.objective(problem_of(game, index), nested(masks[index, 0])) for index in range(2)]
    assert_close(game.objective(masks, every_row(masks)), expected)


def test_the_objective_by_hand():
    # Sum of all pixels of one channel, mean over the channels, as the logit; the baseline image is black.
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    nn.init.constant_(model[1].weight, 0.25)
    game = DeletionGame(freeze(model, "0"), torch.ones(1, 3, 2, 2), torch.tensor([1]), Regulariser(2.0, 3.0))
    mask = torch.tensor([[[[1.0, 0.5], [0.0, 0.5]]]])
    expected = torch.tensor(0.25 * 3 * 2.0).sigmoid() + 2 * 0.5 + 3 * ((1 + 0) / 2 + (0.25 + 0.25) / 2)
    torch.testing.assert_close(game.objective(mask, torch.tensor([0])), expected[None])


def test_the_score_is_the_explanandums_probability():
    image, masks = images(), torch.ones(2, 1, 5, 5)
    for output in ("multi_label", "single_label"):
        explanandum = freeze(SmallNet(), output=output)
        score = game_of(explanandum, image, [1, 0], l1=0, tv=0).objective(masks, every_row(masks))
        expected = explanandum.probabilities(explanandum(image))[torch.arange(2), torch.tensor([1, 0])]
        torch.testing.assert_close(score, expected.detach())


def test_the_objective_of_some_images_is_theirs_alone():
    game = game_of(sharp_small_net(), images(4), [0, 2, 1, 1])
    masks = random_masks(4)
    some = torch.tensor([3, 1])
    torch.testing.assert_close(game.objective(masks[some], some), game.objective(masks, every_row(masks))[some])


def test_variation_of_a_power_by_hand():
    mask = torch.tensor([[[0.0, 0.5, 1.0], [0.0, 0.0, 1.0]]])
    expected = (0 + 0.5**3 + 0) / 3 + (0.5**3 + 0.5**3 + 0 + 1) / 4
    assert float(total_variation(mask, 3)) == pytest.approx(expected)


# The integrated gradient


@pytest.mark.parametrize("chunk_size", ["auto", 1, 7])
def test_the_gradient_is_the_mean_over_the_path(chunk_size):
    game = game_of(sharp_small_net(), images(), [0, 2], chunk_size=chunk_size)
    masks = random_masks(2)
    (noise,) = noise_draws(game.image, 1, 3, 0.2, seed=5)
    gradient = game.gradient(masks, noise)
    draws = [nested(draw.double()) for draw in noise]
    for index in range(2):
        expected = reference.integrated_gradient(problem_of(game, index), nested(masks[index, 0]), 3, draws)
        assert_close(gradient[index, 0], expected, atol=1e-5)


def test_one_step_is_the_objectives_own_gradient():
    game = game_of(sharp_small_net(), images(1), [1])
    masks = random_masks(1) * 0.8 + 0.1
    gradient = game.gradient(masks, torch.zeros(1, 3, SIZE, SIZE))
    for cell in [(0, 0), (2, 3), (4, 4)]:
        nudge = torch.zeros_like(masks)
        nudge[0, 0][cell] = 1e-2
        up, down = (game.objective(masks + sign * nudge, torch.tensor([0])) for sign in (1, -1))
        assert float(gradient[0, 0][cell]) == pytest.approx(float((up - down) / 2e-2), rel=0.02, abs=1e-4)


def test_the_noise_is_the_same_for_every_image_and_leaves_the_generators_alone():
    before = torch.get_rng_state()
    several = list(noise_draws(images(4), 2, 3, 0.2, seed=5))
    alone = list(noise_draws(images(1), 2, 3, 0.2, seed=5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, other) for one, other in zip(several, alone, strict=True))
    assert not torch.equal(several[0], several[1])
    assert several[0].std() == pytest.approx(0.2, rel=0.1)


# The line search


def test_line_search_on_bowls_takes_each_images_own_step():
    # f(m) = c/2 · m², whose minimum every first step reaches, as it is clamped at 0. It is accepted where it brings
    # what is demanded: m · c/2 · m >= 1e-4 · 200 · (c · m)², that is c <= 25.
    curvature = torch.tensor([0.005, 0.5, 50.0])
    asked = []

    def bowl(masks, rows):
        asked.append(rows.tolist())
        return curvature[rows] / 2 * masks.flatten(1).square().sum(dim=1)

    masks = torch.full((3, 1, 1, 1), 0.5)
    found = line_search(bowl, masks, curvature.reshape(3, 1, 1, 1) * masks)
    torch.testing.assert_close(found, torch.zeros_like(found))
    assert asked == [[0, 1, 2], [0, 1, 2], [2]]


@pytest.mark.parametrize("curvature", [0.05, 0.8, 12.0, 3000.0])
def test_line_search_of_a_bowl_in_the_middle_equals_plain_loops(curvature):
    centre = torch.tensor([[0.4, 0.6], [0.3, 0.7]])
    start = torch.tensor([[0.9, 0.1], [0.2, 0.8]])

    def bowl(masks, rows):
        return curvature / 2 * (masks - centre).flatten(1).square().sum(dim=1)

    gradient = curvature * (start - centre)
    found = line_search(bowl, start[None, None], gradient[None, None])[0, 0]

    def plain(mask):
        pairs = [(m, c) for rows in zip(mask, nested(centre.double()), strict=True) for m, c in zip(*rows, strict=True)]
        return curvature / 2 * sum((m - c) ** 2 for m, c in pairs)

    expected, step = reference.line_search(plain, nested(start.double()), nested(gradient.double()))
    assert_close(found, expected)
    assert step > 0


def test_line_search_without_a_descent_keeps_the_masks():
    masks = random_masks(2)
    found = line_search(lambda m, _: m.flatten(1).sum(dim=1), masks, -torch.ones_like(masks))
    assert torch.equal(found, masks)
    assert found is not masks


def test_line_search_tries_eleven_steps_from_200():
    tried = []
    masks = torch.full((1, 1, 1, 1), 0.5)

    def refuses(moved, rows):
        tried.append(float(moved))
        return torch.full((1,), float(len(tried)))

    line_search(refuses, masks, -torch.ones_like(masks))
    assert len(tried) == 1 + 11


def test_line_search_asks_only_about_those_that_still_search():
    asked = []

    def objective(masks, rows):
        asked.append(rows.tolist())
        return masks.flatten(1).sum(dim=1) * (rows == 0)  # the second image's never decreases

    line_search(objective, random_masks(2), torch.ones(2, 1, 5, 5), first_step=1.0, smallest_step=0.1)
    assert asked == [[0, 1], [0, 1], [1]]


# The descent


def descents(explanandum, image, target, kind, kinds, iterations=6, noise=0.2):
    game = kind(explanandum, image, torch.tensor(target), Regulariser(0.05, 0.2))
    start = torch.ones(len(image), kinds, 8, 8)
    iterates = [start, *IntegratedDescent(iterations, 5, noise)(game, start, constant_blur(image))]
    return torch.stack([game.objective(masks, every_row(masks)) for masks in iterates]), iterates


@pytest.mark.parametrize(("kind", "kinds"), [(DeletionGame, 1), (BilateralGame, 2)])
@pytest.mark.parametrize("model", ["small", "window"])
def test_no_accepted_step_raises_the_objective(kind, kinds, model):
    if model == "small":
        values, iterates = descents(steep_small_net(), images(3), [0, 1, 2], kind, kinds)
    else:
        values, iterates = descents(steep_window_net(), bright_windows(), [0, 1, 2], kind, kinds)
        assert (values[-1] < values[0] - 0.3).all()
    assert (values.diff(dim=0) <= 1e-6).all()
    assert (values[-1] < values[0] - 0.01).any()
    assert all(masks.min() >= 0 and masks.max() <= 1 for masks in iterates)


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_i_gos_lowers_the_probability(score):
    image, target = bright_windows(), torch.tensor([0, 1, 2])
    explanandum = steep_window_net()
    mask = IGOS(explanandum, score=score).optimise(image, target, torch.ones(3, 28, 28))
    game = DeletionGame(explanandum, image, target, Regulariser(0, 0))
    game.baseline = constant_blur(image)(0)
    before, after = (game.objective(m, every_row(image)) for m in (torch.ones(3, 1, 28, 28), mask[:, None]))
    assert (before > 0.95).all()
    assert (after < 0.3).all()
    assert ((1 - mask).mean(dim=(1, 2)) < 0.15).all()


def test_a_class_that_the_classifier_is_sure_of_is_found_all_the_same():
    # Its probability is 1 to the last bit, so that no step by it is accepted; its logit falls.
    model, image, target = WindowNet(), bright_windows(), torch.tensor([0, 1, 2])
    model.scale.data.mul_(60)
    explanandum = freeze(model, "windows")
    assert (explanandum.probabilities(explanandum(image)).gather(1, target[:, None]) == 1).all()
    stuck, found = (IGOS(explanandum, score=score)(image, target) for score in ("probability", "logit"))
    assert stuck.max() == 0
    inside = model.windows.windows * found
    assert (found.amax(dim=(1, 2)) > 0.5).all()
    assert (inside.sum(dim=(1, 2)) > 0.5 * found.sum(dim=(1, 2))).all()


def test_the_logit_counts_in_multiples_of_what_the_blur_takes_away():
    image, target = bright_windows(), torch.tensor([0, 1, 2])
    explanandum, blurred = steep_window_net(), constant_blur(image)(0)
    game = DeletionGame(explanandum, image, target, Regulariser(0, 0), blurred=blurred)
    game.baseline = blurred
    whole, none = torch.ones(3, 1, 28, 28), torch.zeros(3, 1, 28, 28)
    torch.testing.assert_close(game.objective(whole, every_row(image)), torch.ones(3))
    torch.testing.assert_close(game.objective(none, every_row(image)), torch.zeros(3), rtol=0, atol=1e-5)


def test_the_objective_is_not_rounded_under_autocast():
    image, target = bright_windows(), torch.tensor([0, 1, 2])
    game = DeletionGame(steep_window_net(), image, target, Regulariser(1, 0))
    masks = 1 - 1e-3 * random_masks(3, cells=28)
    with torch.autocast("cpu", torch.bfloat16):
        found = game.objective(masks, every_row(image))
    torch.testing.assert_close(found, game.objective(masks, every_row(image)), rtol=0, atol=1e-6)


def test_a_descent_counts_only_what_is_more_than_rounding():
    masks = torch.ones(2, 1, 2, 2)
    flat = torch.tensor([1.0, 1.0])
    moved = line_search(lambda masks, rows: flat[rows], masks, torch.full_like(masks, 1e-6))
    assert torch.equal(moved, masks)


def test_the_insertion_terms_come_from_the_whole_image():
    # Where everything is inserted, the path from the whole image to the blurred one still passes through the slope.
    image, target = bright_windows(), torch.tensor([0, 1, 2])
    game = BilateralGame(steep_window_net(), image, target, Regulariser(0, 0))
    game.baseline = constant_blur(image)(0)
    masks, steps = torch.ones(3, 2, 8, 8), 4
    leaf = masks.clone().requires_grad_()
    total = 0.0
    for step in range(1, steps + 1):
        share = step / steps
        deletion, insertion = leaf.unbind(dim=1)
        both = deletion * insertion
        for kept, sign in (
            *((share * deletion, 1), (1 - share * insertion, -1)),
            *((share * both, 1), (1 - share * both, -1)),
        ):
            total = total + sign * game._score(kept, every_row(image)) / steps
    (expected,) = torch.autograd.grad(total.sum(), leaf)
    found = game.gradient(masks, torch.zeros(steps, *image.shape[1:]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert (found[:, 1].abs().amax(dim=(1, 2)) > 1e-3).all()


def test_igos_pp_keeps_the_probability_with_what_it_finds():
    image, target = bright_windows(), torch.tensor([0, 1, 2])
    explanandum = steep_window_net()
    kept = METHODS["igos_pp"](explanandum, iterations=8, steps=5)(image, target)
    baseline = constant_blur(image)(0)

    def probability(mask):
        seen = mask[:, None] * image + (1 - mask[:, None]) * baseline
        return explanandum.probabilities(explanandum(seen)).gather(1, target[:, None])[:, 0]

    nothing, only, without = probability(torch.zeros_like(kept)), probability(kept), probability(1 - kept)
    assert (only > nothing + 0.5).all()
    assert (without < probability(torch.ones_like(kept)) - 0.5).all()


def test_i_gos_without_noise_equals_plain_loops():
    explanandum = steep_small_net()
    image, target = images(2), torch.tensor([1, 2])
    options = {"noise": 0.0, "mask_size": 4, "score": "probability"}
    method = IGOS(explanandum, iterations=2, steps=2, l1=0.1, tv=0.5, **options)
    maps = method(image, target)
    game = DeletionGame(explanandum, image, target, method.regulariser)
    game.baseline = constant_blur(image)(0)
    for index in range(2):
        problem = problem_of(game, index)
        mask = reference.optimise(problem, [[1.0] * 4] * 4, iterations=2, steps=2)
        assert_close(maps[index], reference.heatmap(problem, mask), atol=1e-3)
    assert (maps.amax(dim=(1, 2)) > 0.01).any()


def test_another_seed_is_another_noise():
    explanandum, image, target = steep_window_net(), bright_windows(1), torch.tensor([0])
    options = {"iterations": 2, "steps": 2, "noise": 1.0, "score": "probability"}
    first, again, other = (IGOS(explanandum, seed=seed, **options)(image, target) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_heatmap_is_what_the_mask_deletes():
    mask = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    expected = 1 - F.interpolate(mask[None], (6, 8), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(heatmap(mask, (6, 8)), expected)


def test_a_mask_of_one_cell_is_refused():
    for method in (IGOS, IGOSpp):
        with pytest.raises(ValueError, match="mask_size is 1"):
            method(freeze(SmallNet()), mask_size=1)


# iGOS++


def test_the_bilateral_objective_by_hand():
    explanandum = sharp_small_net()
    image, target = images(2), [0, 2]
    game = game_of(explanandum, image, target, kind=BilateralGame)
    plain = game_of(explanandum, image, target, l1=0, tv=0)
    masks = random_masks(2, kinds=2)
    deletion, insertion = masks[:, :1], masks[:, 1:]
    both, rows = deletion * insertion, every_row(masks)
    expected = (
        plain.objective(deletion, rows)
        - plain.objective(1 - insertion, rows)
        + plain.objective(both, rows)
        - plain.objective(1 - both, rows)
        + 0.5 * (1 - both).flatten(1).mean(dim=1)
        + 2.0 * total_variation(both[:, 0])
    )
    torch.testing.assert_close(game.objective(masks, rows), expected)


def test_edges_of_the_image_take_weight_off_the_variation():
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1
    vertical, horizontal = edge_weights(image, (4, 4), 0.1)
    assert vertical.shape == (1, 3, 4)
    assert horizontal.shape == (1, 4, 3)
    assert torch.equal(vertical, torch.ones_like(vertical))
    assert (horizontal[..., 1] < 0.8).all()
    assert (horizontal[..., [0, 2]] == 1).all()


def test_a_flat_image_has_the_plain_variation():
    mask = random_masks(2)[:, 0]
    weights = edge_weights(torch.full((2, 3, 16, 16), 0.3), (5, 5), 0.01)
    torch.testing.assert_close(total_variation(mask, weights=weights), total_variation(mask))
