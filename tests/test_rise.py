"""RISE: its masks, a plain-loop reference, and expectations that are known in closed form."""

from math import ceil

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_models import SmallNet, card, freeze

from explainer.attribution.rise import RISE, RandomMasks
from explainer.explanandum import Explanandum


class Linear(Explanandum):
    """An explanandum whose probabilities are its logits: linear in the image if the model is."""

    def probabilities(self, logits):
        return logits.float()


class OnePixel(nn.Module):
    """The logit of class 0 is one pixel's red, that of class 1 always 3."""

    def __init__(self, row, column):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.place = row, column

    def forward(self, image):
        red = image[:, 0, *self.place] * self.scale
        return torch.stack([red, torch.full_like(red, 3.0)], dim=1)


def masks_of(count=400, cells=7, height=32, width=45, seed=0, probability=0.5):
    return RandomMasks(count, cells, probability, seed, height, width, torch.device("cpu"))


@pytest.mark.parametrize(("height", "width", "cells"), [(32, 45, 7), (33, 14, 7), (5, 5, 7), (20, 20, 1)])
def test_a_mask_is_a_window_of_an_enlarged_random_grid(height, width, cells):
    masks = masks_of(20, cells, height, width)
    size = (cells + 1) * ceil(height / cells), (cells + 1) * ceil(width / cells)
    for number, mask in enumerate(masks(0, 20)):
        large = F.interpolate(masks._grids[number][None, None], size, mode="bilinear", align_corners=False)[0, 0]
        row, column = int(masks._down[number, 0]), int(masks._across[number, 0])
        torch.testing.assert_close(mask, large[row : row + height, column : column + width])
        assert mask.shape == (height, width)


def test_masks_do_not_depend_on_the_chunk_they_are_made_in():
    masks = masks_of()
    assert torch.equal(torch.cat([masks(0, 7), masks(7, 30)]), masks(0, 30))


def test_masks_repeat_with_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    assert torch.equal(masks_of()(0, 5), masks_of()(0, 5))
    assert not torch.equal(masks_of()(0, 5), masks_of(seed=1)(0, 5))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_masks_keep_the_share_of_pixels_they_should_and_shift_over_a_whole_cell(probability):
    masks = masks_of(4000, 7, 21, 28, probability=probability)
    share = masks(0, 4000).mean(dim=0)
    torch.testing.assert_close(share, torch.full_like(share, probability), rtol=0, atol=0.04)
    assert masks._down[:, 0].unique().tolist() == [0, 1, 2]
    assert masks._across[:, 0].unique().tolist() == [0, 1, 2, 3]


def test_a_map_is_what_a_loop_over_the_masks_gives():
    image, target = torch.randn(2, 3, 20, 26), torch.tensor([2, 0])
    for output in ("multi_label", "single_label"):
        explanandum = freeze(SmallNet(), output=output)
        masks = masks_of(30, 4, 20, 26, seed=3)(0, 30)
        expected = torch.zeros(2, 20, 26)
        for index in range(2):
            for mask in masks:
                logits = explanandum(image[index, None] * mask)[0].detach()
                score = logits.sigmoid() if output == "multi_label" else logits.softmax(dim=0)
                expected[index] += score[target[index]] * mask / (30 * 0.5)
        found = RISE(explanandum, masks=30, cells=4, seed=3, chunk_size=8)(image, target)
        torch.testing.assert_close(found, expected)


def test_of_a_linear_model_that_reads_one_pixel_the_map_is_what_is_to_be_expected():
    explanandum = Linear(OnePixel(16, 20), card(classes=("red", "constant")))
    image = torch.full((1, 3, 28, 28), 2.0)
    method = RISE(explanandum, masks=4000, cells=7, chunk_size=1000)
    red, constant = method(image.expand(2, -1, -1, -1), torch.tensor([0, 1]))
    # Far from the pixel its mask is independent: E[m(u) m(v)] / p = p; on it E[m²] / p lies between p and 1.
    far = red[:6, :8]
    torch.testing.assert_close(far, torch.full_like(far, 2 * 0.5), rtol=0, atol=0.1)
    assert divmod(int(red.argmax()), 28) in [(row, column) for row in (15, 16, 17) for column in (19, 20, 21)]
    square = masks_of(4000, 7, 28, 28)(0, 4000)[:, 16, 20].square().mean()
    torch.testing.assert_close(red[16, 20], 2 * square / 0.5)
    torch.testing.assert_close(constant, torch.full_like(constant, 3.0), rtol=0, atol=0.2)


def test_memory_does_not_grow_with_the_masks_and_all_classes_come_from_the_same_passes():
    model, batches = SmallNet(), []
    model.features.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    labels = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 1]])
    RISE(freeze(model), masks=50, chunk_size=8).present_class_maps(torch.randn(3, 3, 16, 16), labels)
    assert max(batches) <= 8
    assert sum(batches) == 2 * 50  # the image without a class is not asked about
