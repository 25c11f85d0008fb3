"""The drawn panels show photograph and masks as they are: 0 is black, 1 is white, nothing is rescaled.

H×W pixels; a mask lies in [0, 1].
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import CLASSES, SIZE, SmallNet, freeze

from datamodules import Batch
from explainer.callbacks import MaskPanels
from explainer.module import ExplainerModule
from explainer.report.panels import CAPTION, GAP, TILE, Panel, draw_panel

EDGE = 16
"""Pixels of a drawn tile beside an edge of the mask, which enlarging blurs."""


def tiles(picture):
    """The tiles of a panel without captions and gaps."""
    assert picture.dtype == np.uint8 and picture.shape[0] == CAPTION + TILE + GAP
    count = picture.shape[1] // (TILE + GAP)
    return [
        picture[CAPTION : CAPTION + TILE, i * (TILE + GAP) : i * (TILE + GAP) + TILE].astype(int) for i in range(count)
    ]


def halves(tile):
    """Left and right half, each without the columns near the middle."""
    return tile[:, : TILE // 2 - EDGE], tile[:, TILE // 2 + EDGE :]


def half_mask(left, right, size=SIZE):
    return np.concatenate([np.full((size, size // 2), left), np.full((size, size // 2), right)], axis=1)


def test_a_zero_mask_is_black_and_hides_the_photograph_and_a_one_mask_is_white_and_shows_it():
    photograph = np.full((SIZE, SIZE, 3), (1.0, 0.4, 0.0))
    panel = Panel(photograph, half_mask(0.0, 1.0), [half_mask(1.0, 0.0)], ["cat 0.90"], ["cat"])
    plain, target, masked, class_mask = tiles(draw_panel(panel))
    assert (plain == (255, 102, 0)).all()
    left, right = halves(target)
    assert (left == 0).all() and (right == 255).all()
    left, right = halves(masked)
    assert (left == 0).all() and (right == (255, 102, 0)).all()
    left, right = halves(class_mask)
    assert (left == 255).all() and (right == 0).all()


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5, 1.0])
def test_a_grey_level_is_the_masks_value(value):
    # A faint mask must look faint: no stretching to the full range.
    panel = Panel(np.ones((SIZE, SIZE, 3)), np.full((SIZE, SIZE), value), [], [], [])
    _, target, masked = tiles(draw_panel(panel))
    assert (target == round(255 * value)).all()
    assert (masked == round(255 * value)).all()


class HalfMasks(nn.Module):
    """Class 0's mask is the right half, class 1's (at .8) the left, class 2's empty, whatever the image."""

    num_classes = 3

    def forward(self, image):
        right = torch.as_tensor(half_mask(-50.0, 50.0)).float()
        left = torch.as_tensor(half_mask(math.log(4), -50.0)).float()
        return torch.stack([right, left, torch.full_like(right, -60.0)]).expand(len(image), -1, -1, -1)


def test_the_panels_of_a_run_show_the_explainers_masks_of_the_images_classes():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    shown = torch.tensor([0.8, 0.2, 1.0])
    image = ((shown - torch.tensor(mean)) / torch.tensor(std))[:, None, None].expand(4, 3, SIZE, SIZE)
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    batch = Batch(image, labels, ("a", "b", "c", "d"))

    class Loader:
        def preview(self, images):
            assert images == 4
            return batch

    class Trainer:
        val_dataloaders = Loader()

    module = ExplainerModule(HalfMasks(), freeze(SmallNet())).train()
    drawn = MaskPanels(CLASSES, mean, std, images=4).draw(Trainer(), module)
    assert [name for name, _ in drawn] == ["a", "b", "c", "d"]
    assert module.training
    colour = (204, 51, 255)
    for (_, picture), values in zip(drawn, [(0, 1), (0.8, 0), (0.8, 1), (0, 0)], strict=True):
        plain, target, masked, *class_masks = tiles(picture)
        assert (abs(plain - colour) <= 1).all()
        for half, half_masked, value in zip(halves(target), halves(masked), values, strict=True):
            assert (half == 255 * value).all()
            assert (abs(half_masked - np.array(colour) * value) <= 1).all()
        # Strongest first, on every image alike: these masks don't depend on it.
        for class_mask, values_of_class in zip(class_masks, [(0, 1), (0.8, 0), (0, 0)], strict=True):
            for half, value in zip(halves(class_mask), values_of_class, strict=True):
                assert (half == 255 * value).all()
