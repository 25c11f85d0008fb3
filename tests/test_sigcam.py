"""SIGCAM and AOP: how a base map becomes the start mask, and what the optimisers make of it.

B images, h×w cells of a mask, H×W pixels.
"""

import pytest
import torch
import torch.nn.functional as F
from toy_models import FlatNet, SmallNet, WindowNet, freeze

from explainer.attribution import METHODS, CannotExplain
from explainer.attribution.mask_optimisation import MaskOptimiser
from explainer.attribution.perturb import gaussian_blur, min_max
from explainer.attribution.sigcam import AOP, SIGCAM, filtered, warming_blur
from explainer.attribution.spec import parse_method

TARGET = torch.tensor([0, 1, 2])


def images(count=3, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def bright_windows(model):
    return images().abs() + model.windows.windows.sum(dim=0)


def test_equation_4_and_5_by_hand():
    cells = torch.tensor([[[1.0, 2.0], [4.0, 5.0]]])
    scaled = min_max(cells)
    torch.testing.assert_close(scaled, torch.tensor([[[0.0, 0.25], [0.75, 1.0]]]))
    torch.testing.assert_close(filtered(scaled, 0.7, 0.15), torch.tensor([[[0.0, 0.0], [0.1125, 0.15]]]))


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-45])
def test_a_flat_map_scales_to_zero(value):
    assert torch.equal(min_max(torch.full((1, 2, 2), value)), torch.zeros(1, 2, 2))


def test_a_map_of_hardly_any_range_stays_in_the_unit_range():
    scaled = min_max(torch.tensor([[[0.0, 1e-42]]]))
    assert scaled.isfinite().all()
    assert scaled.max() <= 1


def test_sigcam_starts_from_wgrad_cams_strongest_cells():
    explanandum = freeze(SmallNet())
    method = SIGCAM(explanandum)
    start = method.start(images(), TARGET)
    base = METHODS["wgrad_cam"](explanandum).cells(images(), TARGET)
    low, high = base.amin(dim=(1, 2), keepdim=True), base.amax(dim=(1, 2), keepdim=True)
    scaled = (base - low) / (high - low)
    kept = torch.where(scaled >= 0.7, 0.15 * scaled, torch.zeros(()))
    expected = 1 - F.interpolate(kept[:, None], (28, 28), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(start[high.flatten() > 0], expected[high.flatten() > 0])
    assert start.min() >= 0.85 - 1e-6
    assert start.max() <= 1
    assert (high > 0).any()


def test_cells_of_a_base_map_are_what_its_map_is_enlarged_from():
    method = METHODS["wgrad_cam"](freeze(SmallNet()))
    cells = method.cells(images(), TARGET)
    enlarged = F.interpolate(cells[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(method(images(), TARGET), enlarged)


def test_a_flat_base_map_is_i_goss_own_start():
    model = SmallNet()
    torch.nn.init.zeros_(model.features[5].weight)  # a constant activation: ReLU of BatchNorm's shift
    torch.nn.init.constant_(model.features[5].bias, 1.0)
    explanandum = freeze(model)
    assert torch.equal(SIGCAM(explanandum).start(images(), TARGET), torch.ones(3, 28, 28))
    assert torch.equal(AOP(explanandum, "wgrad_cam").start(torch.full((3, 32, 32), 2.0)), torch.ones(3, 28, 28))


def test_with_all_of_the_base_map_filtered_and_no_warm_up_it_is_plain_i_gos():
    explanandum = freeze(WindowNet(), "windows")
    options = {"iterations": 2, "l1": 0.0, "tv": 0.1}
    plain = METHODS["i_gos"](explanandum, **options)(images(), TARGET)
    assert torch.equal(SIGCAM(explanandum, theta=2, warm_up=0, **options)(images(), TARGET), plain)
    assert not torch.equal(SIGCAM(explanandum, warm_up=0, **options)(images(), TARGET), plain)
    assert plain.max() > 0


def test_the_warm_ups_blur_grows_from_10_to_50():
    image = images(1, 64)
    baseline = warming_blur(image, 5, 10.0)
    for iteration, sigma in enumerate([10, 18, 26, 34, 42, 50, 50]):
        torch.testing.assert_close(baseline(iteration), gaussian_blur(image, 51, float(sigma)))


def test_without_warm_up_the_blur_is_the_full_one_from_the_start():
    image = images(1, 64)
    torch.testing.assert_close(warming_blur(image, 0, 10.0)(0), gaussian_blur(image, 51, 50.0))


def test_aop_of_no_iterations_is_its_base_map_on_the_masks_grid():
    model = WindowNet()
    explanandum = freeze(model, "windows")
    image = bright_windows(model)
    maps = AOP(explanandum, "grad_cam", "mask:iterations=0")(image, TARGET)
    base = METHODS["grad_cam"](explanandum)(image, TARGET)
    expected = min_max(F.interpolate(base[:, None], (28, 28), mode="area")[:, 0])
    expected = F.interpolate(expected[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimiser", ["i_gos:iterations=2", "mask:iterations=3"])
@pytest.mark.parametrize("base", ["grad_cam", "wgrad_cam", "group_cam:groups=4"])
def test_any_base_map_with_any_optimiser(base, optimiser):
    model = WindowNet()
    explanandum = freeze(model, "windows")
    maps = AOP(explanandum, base, optimiser)(bright_windows(model), TARGET)
    assert maps.isfinite().all()
    for single, corner in zip(maps, model.corners, strict=True):
        row, column = divmod(int(single.argmax()), 32)
        assert corner <= row < corner + 8
        assert corner <= column < corner + 8


def test_aop_filters_if_told():
    start = AOP(freeze(SmallNet()), theta=0.5, factor=0.25).start(images().abs().mean(dim=1))
    deleted = 1 - start
    assert deleted.max() == pytest.approx(0.25)
    assert deleted[deleted > 1e-6].min() >= 0.125 - 1e-6


def test_aop_says_which_optimisers_there_are():
    optimisers = [name for name, method in METHODS.items() if issubclass(method, MaskOptimiser)]
    with pytest.raises(ValueError, match=f"choose an optimiser of: {', '.join(optimisers)}"):
        AOP(freeze(SmallNet()), optimiser="grad_cam")
    with pytest.raises(ValueError, match="Unknown method 'gradcam'"):
        AOP(freeze(SmallNet()), base="gradcam")


def test_aop_is_named_on_a_command_line_with_its_parts_and_their_options():
    method = parse_method("aop:base=wgrad_cam,optimiser=mask:iterations=7").build(freeze(SmallNet()))
    assert type(method.base) is METHODS["wgrad_cam"]
    assert method.optimiser.iterations == 7


def test_sigcam_reads_another_layer_if_told_and_refuses_what_gives_no_map():
    explanandum = freeze(SmallNet())
    assert SIGCAM(explanandum, target_layer="features.3").base.target_layer == "features.3"
    with pytest.raises(CannotExplain):
        SIGCAM(freeze(FlatNet()))
