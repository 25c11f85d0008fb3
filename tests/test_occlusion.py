"""Occlusion against captum and a plain loop, and where its windows lie.

H×W pixels.
"""

import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from toy_models import SmallNet, freeze

from explainer.attribution import CannotExplain
from explainer.attribution.occlusion import Occlusion, Windows

HEIGHT, WIDTH = 24, 31
TARGET = torch.tensor([2, 0])
CPU = torch.device("cpu")


def images():
    return torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def probability(explanandum):
    return lambda image: explanandum.probabilities(explanandum(image))


@pytest.mark.parametrize("output", ["multi_label", "single_label"])
@pytest.mark.parametrize(("window", "step"), [(7, 3), (8, 8), (5, 2), (24, 6), (1, 1)])
def test_a_map_is_captums(output, window, step):
    explanandum, image = freeze(SmallNet(), output=output), images()
    if window == 1:
        image = image[:, :, :6, :5].contiguous()
    expected = CaptumOcclusion(probability(explanandum)).attribute(
        image, (3, window, window), (3, step, step), baselines=0, target=TARGET, perturbations_per_eval=16
    )
    found = Occlusion(explanandum, window, step, chunk_size=7)(image, TARGET)
    torch.testing.assert_close(found, expected[:, 0].detach(), rtol=1e-4, atol=1e-6)
    assert found.abs().max() > 1e-3


def test_a_pixel_has_the_mean_of_what_is_lost_over_the_windows_that_hide_it():
    explanandum, image = freeze(SmallNet()), images()[:1]
    score = probability(explanandum)
    lost, times = torch.zeros(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)
    for row in range(0, HEIGHT, 5):
        for column in range(0, WIDTH, 5):
            hidden = image.clone()
            hidden[:, :, row : row + 9, column : column + 9] = 0
            lost[row : row + 9, column : column + 9] += (score(image) - score(hidden))[0, 1].detach()
            times[row : row + 9, column : column + 9] += 1
            if column + 9 >= WIDTH:
                break
        if row + 9 >= HEIGHT:
            break
    found = Occlusion(explanandum, window=9, step=5)(image, torch.tensor([1]))[0]
    torch.testing.assert_close(found, lost / times, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("window", "step", "height", "width"), [(7, 3, 24, 31), (5, 5, 12, 7), (9, 2, 9, 13)])
def test_windows_cover_every_pixel_and_the_last_of_a_line_is_the_first_to_reach_the_border(window, step, height, width):
    windows = Windows(window, step, height, width, CPU)
    covered = windows.covered(0, len(windows))
    assert torch.equal(covered.sum(dim=0), windows.times())
    assert windows.times().min() >= 1
    assert covered[:, -1, -1].sum() == 1
    assert covered[0].sum() == window**2
    assert torch.equal(torch.cat([windows.covered(0, 2), windows.covered(2, len(windows))]), covered)


def test_the_papers_setting_has_as_many_windows_as_its_cost_says():
    assert len(Windows(40, 6, 224, 224, CPU)) == 32**2
    assert str(32**2 + 1) in Occlusion.passes


def test_what_is_hidden_has_the_mean_colour_so_that_an_image_of_it_loses_nothing():
    assert not Occlusion(freeze(SmallNet()), window=8)(torch.zeros(1, 3, HEIGHT, WIDTH), torch.tensor([0])).any()


def test_a_loss_far_below_the_probability_is_not_rounded_away():
    model, image = SmallNet(), images()
    explanandum = freeze(model)
    with torch.no_grad():
        model.logits.bias += 14  # probabilities of 1 - 1e-6
    found = Occlusion(explanandum, window=8)(image, TARGET)
    exact = Occlusion(freeze(model.double()), window=8)(image.double(), TARGET)
    assert found.abs().max() < 1e-5
    torch.testing.assert_close(found, exact.float(), rtol=0, atol=2e-7)


def test_a_window_that_is_larger_than_the_image_is_an_error_that_says_what_fits():
    with pytest.raises(CannotExplain, match="window of 40 pixels does not fit into images of 24 × 31; give window=4"):
        Occlusion(freeze(SmallNet()))(images(), TARGET)
