"""Extremal perturbations: the area constraint, the smooth masks, the blur pyramid, and that they keep the score.

B images, A areas, n masks, h×w cells of a mask, H×W = Z pixels.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from toy_models import SmallNet, WindowNet, freeze

from explainer.attribution.extremal import (
    ExtremalPerturbations,
    SmoothMasks,
    area_distance,
    blur_pyramid,
    odd_kernel,
    perturbed,
    read_areas,
)
from explainer.attribution.perturb import gaussian_blur

TARGET = torch.tensor([0, 1, 2])
CPU = torch.device("cpu")


def images(count=3, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def bright_windows(model):
    return images() + model.windows.windows.sum(dim=0)


# The area constraint


@pytest.mark.parametrize("area", [0.05, 0.25, 0.5, 0.9])
def test_the_distance_is_that_of_the_sorted_values_to_zeros_and_ones(area):
    masks = torch.rand(4, 10, 10, generator=torch.Generator().manual_seed(1))
    ones = round(100 * area)
    wanted = torch.cat([torch.zeros(100 - ones), torch.ones(ones)])
    expected = (masks.flatten(1).sort(dim=1).values - wanted).square().mean(dim=1)
    torch.testing.assert_close(area_distance(masks, torch.full((4,), area)), expected)


def test_every_mask_has_an_area_of_its_own():
    masks = torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(2))
    areas = torch.tensor([0.1, 0.5, 0.3])
    alone = torch.cat([area_distance(masks[index : index + 1], areas[index : index + 1]) for index in range(3)])
    torch.testing.assert_close(area_distance(masks, areas), alone)


def test_a_mask_of_the_area_has_no_distance():
    mask = torch.zeros(1, 10, 10)
    mask[0, 3:8, 2:6] = 1
    assert float(area_distance(mask, torch.tensor([0.2]))) == 0


def test_equal_values_are_pulled_alike():
    mask = torch.full((1, 4, 4), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(area_distance(mask, torch.tensor([0.25])).sum(), mask)
    torch.testing.assert_close(gradient, torch.full((1, 4, 4), 2 * (0.5 - 0.25) / 16))


@pytest.mark.parametrize(
    ("text", "expected"),
    [(0.1, (0.1,)), ("0.05 0.1", (0.05, 0.1)), ([0.2, 0.3], (0.2, 0.3)), ("0.5", (0.5,))],
)
def test_areas_are_numbers_or_text(text, expected):
    assert read_areas(text) == expected


@pytest.mark.parametrize("areas", [[], "", 0, 1.0, [0.1, 2.0], -0.1])
def test_areas_that_are_none_are_refused(areas):
    with pytest.raises(ValueError, match="between 0 and 1"):
        read_areas(areas)


# Smooth masks


def plain_smooth_mask(cells, size, sigma):
    """By the definition, with loops; cells beyond the border are zero."""
    step = max(1, round(sigma / 3))
    radius = 1 + math.ceil(sigma / step)
    height, width = len(cells), len(cells[0])
    rows = []
    for y in range(size[0]):
        row = []
        for x in range(size[1]):
            i, j = y // step, x // step
            values = []
            for k in range(i - radius, i + radius + 1):
                for m in range(j - radius, j + radius + 1):
                    cell = cells[k][m] if 0 <= k < height and 0 <= m < width else 0.0
                    distance = math.hypot(y + 0.5 - (k + 0.5) * step, x + 0.5 - (m + 0.5) * step) / sigma
                    values.append(cell * math.exp(-2 * max(0.0, distance - 0.5) ** 2))
            weights = [math.exp(20 * value) for value in values]
            row.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        rows.append(row)
    return rows


@pytest.mark.parametrize(("size", "sigma"), [((10, 13), 6.0), ((7, 5), 3.0), ((9, 9), 2.0)])
def test_a_smooth_mask_is_the_smooth_maximum_of_the_cells_around(size, sigma):
    family = SmoothMasks(size, sigma, CPU)
    cells = torch.rand(2, *family.grid, generator=torch.Generator().manual_seed(4))
    masks = family(cells)
    assert masks.shape == (2, *size)
    for mask, grid in zip(masks, cells.tolist(), strict=True):
        torch.testing.assert_close(mask, torch.tensor(plain_smooth_mask(grid, size, sigma)), rtol=1e-4, atol=1e-6)


def test_between_the_points_of_a_large_cell_a_mask_is_nearly_exact():
    family = SmoothMasks((30, 30), 21.0, CPU)
    cells = torch.rand(1, *family.grid, generator=torch.Generator().manual_seed(4))
    difference = (family(cells)[0] - torch.tensor(plain_smooth_mask(cells[0].tolist(), (30, 30), 21.0))).abs()
    assert difference.mean() < 0.005
    assert difference.max() < 0.06


def test_one_cell_keeps_a_disc_around_it():
    family = SmoothMasks((63, 63), 21.0, CPU)
    assert family.grid == (9, 9)
    cells = torch.zeros(1, 9, 9)
    cells[0, 4, 4] = 1
    mask = family(cells)[0]
    assert int(mask.argmax()) in range(63 * 63)
    row, column = torch.meshgrid(torch.arange(63.0), torch.arange(63.0), indexing="ij")
    distance = torch.hypot(row - 31, column - 31)
    assert (mask[distance < 10] > 0.99).all()
    assert (mask[distance > 28] < 0.3).all()


def test_a_disc_costs_as_much_in_a_corner_as_in_the_middle():
    family = SmoothMasks((224, 224), 21.0, CPU)
    cells = torch.zeros(3, *family.grid)
    cells[0, 13:18, 13:18] = cells[1, :5, :5] = cells[2, 13:18, :5] = 1
    masks = family.with_margin(cells)
    assert masks.shape == (3, 224 + 2 * 21, 224 + 2 * 21)
    assert torch.equal(family.within(masks), family(cells))
    middle, corner, side = area_distance(masks, torch.full((3,), 0.05)).tolist()
    assert corner == pytest.approx(middle, rel=0.06)
    assert side == pytest.approx(middle, rel=0.06)


# The perturbation


def test_ones_show_the_image_and_zeros_its_strongest_blur():
    image = images(2)
    pyramid = blur_pyramid(image, sigma=20.0)
    assert pyramid.shape == (2, 8, 3, 32, 32)
    rows = torch.tensor([1, 0, 1])
    assert torch.equal(perturbed(pyramid, rows, torch.ones(3, 32, 32)), image[rows])
    blurred = gaussian_blur(image, odd_kernel(20.0), 20.0)
    torch.testing.assert_close(perturbed(pyramid, rows, torch.zeros(3, 32, 32)), blurred[rows])


def test_between_two_levels_the_blur_is_linear():
    pyramid = blur_pyramid(images(1), levels=3, sigma=20.0)
    mask = torch.full((1, 32, 32), 0.25)
    mask[:, 16:] = 0.75
    seen = perturbed(pyramid, torch.tensor([0]), mask)
    torch.testing.assert_close(seen[:, :, :16], pyramid[:, :2].mean(dim=1)[:, :, :16])
    torch.testing.assert_close(seen[:, :, 16:], pyramid[:, 1:].mean(dim=1)[:, :, 16:])


# The method


class OfSmallImages(ExtremalPerturbations):
    SIDE = 32  # so that sigma is in pixels of the toy images, and the blur takes a whole square away


def quick(explanandum, **options):
    return OfSmallImages(explanandum, **{"sigma": 3.0, "iterations": 80, "learning_rate": 0.1, **options})


def test_masks_have_about_their_nominal_areas_and_lie_where_the_class_is():
    model = WindowNet()
    model.scale.data.mul_(3)  # logits of some size: the paper's area weight is made for them
    areas = (0.05, 0.08)  # of the mask with its margin a square covers 0.044
    masks = quick(freeze(model, "windows"), areas=areas).masks(bright_windows(model), TARGET)
    assert masks.shape == (3, 2, 32, 32)
    assert masks.min() >= 0
    assert masks.max() <= 1
    for single, window in zip(masks, model.windows.windows, strict=True):
        for mask, area in zip(single, areas, strict=True):
            assert float(mask.mean()) == pytest.approx(area * 38**2 / 32**2, abs=0.035)
            assert float((mask > 0.5).float().mean()) == pytest.approx(area * 38**2 / 32**2, abs=0.035)
            # What a cell keeps reaches over the square's border, which profits most from being sharp.
            assert ((mask > 0.5) & (window > 0)).sum() > 0.45 * (mask > 0.5).sum()


def test_a_mask_keeps_more_of_the_score_than_nothing_and_than_chance():
    model = WindowNet()
    model.scale.data.mul_(10)
    image, explanandum = bright_windows(model), freeze(model, "windows")
    masks = quick(explanandum, areas=0.04).masks(image, TARGET)[:, 0]
    pyramid, rows = blur_pyramid(image, sigma=20.0), torch.arange(3)

    def score(mask):
        return explanandum(perturbed(pyramid, rows, mask)).gather(1, TARGET[:, None])[:, 0]

    assert (score(masks) > score(torch.zeros_like(masks)) + 0.2).all()
    assert (score(masks) > score(masks.flip(2)) + 0.1)[[0, 2]].all()


def test_areas_and_images_of_one_batch_do_not_mix():
    explanandum = freeze(SmallNet())
    options = {"iterations": 10}
    masks = quick(explanandum, areas=(0.1, 0.3), **options).masks(images(), TARGET)
    for index in range(3):
        for column, area in enumerate((0.1, 0.3)):
            alone = quick(explanandum, areas=area, **options).masks(images()[index : index + 1], TARGET[index, None])
            torch.testing.assert_close(masks[index, column], alone[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_the_chunk_size_changes_nothing(chunk_size):
    model = WindowNet()
    explanandum = freeze(model, "windows")
    expected = quick(explanandum, iterations=5)(bright_windows(model), TARGET)
    maps = quick(explanandum, iterations=5, chunk_size=chunk_size)(bright_windows(model), TARGET)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


def test_the_map_is_the_blurred_sum_of_the_masks():
    model = WindowNet()
    explanandum, image = freeze(model, "windows"), bright_windows(model)
    method = quick(explanandum, iterations=5)
    total = method.masks(image, TARGET).sum(dim=1)
    sigma = 0.09 * 32
    reach = odd_kernel(sigma) // 2
    wide = gaussian_blur(F.pad(total[:, None], (reach,) * 4), 2 * reach + 1, sigma)[:, 0]
    torch.testing.assert_close(method(image, TARGET), wide[:, reach:-reach, reach:-reach])
    torch.testing.assert_close(quick(explanandum, iterations=5, smooth=0)(image, TARGET), total)


def test_the_score_may_be_the_probability():
    model = WindowNet()
    explanandum, image = freeze(model, "windows"), bright_windows(model)
    logit, probability = (
        quick(explanandum, iterations=5, score=score)(image, TARGET) for score in ("logit", "probability")
    )
    assert not torch.equal(logit, probability)
    with pytest.raises(ValueError, match="Unknown score 'softmax'; choose one of: logit, probability"):
        quick(explanandum, score="softmax")
