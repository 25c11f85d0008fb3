"""Group-CAM's closed forms, its two versions written out step by step, and what its passes cost.

B images, C classes, K channels of h×w cells, G groups.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_models import BreakableNet, BrokenError, GapNet, SmallNet, WindowNet, freeze, state_of

from explainer.attribution.grad_cam import GradCAM
from explainer.attribution.group_cam import GroupCAM, GroupCAMHead, denoise, group_maps, without_flat
from explainer.attribution.perturb import gaussian_blur

BOTH = pytest.mark.parametrize("method_class", [GroupCAM, GroupCAMHead])
OUTPUTS = pytest.mark.parametrize("output", ["multi_label", "single_label"])


def images(count=3, height=32, width=32, seed=3):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def step_by_step(explanandum, image, target, groups, theta, head=False):
    """Algorithm 1 for one image [3,H,W] with its own passes: no batch, nothing shared. Map [H,W] and alphas [G]."""
    features = explanandum.model.features(image[None]).detach().requires_grad_()
    model = explanandum.model
    (gradient,) = torch.autograd.grad(model.logits(model.head(model.pool(features).flatten(1)))[0, target], features)
    blurred = gaussian_blur(image[None], 51, 50.0)[0]

    def score(picture):
        with torch.no_grad():
            return float(explanandum.probabilities(explanandum(picture[None]))[0, target])

    total, alphas = torch.zeros(image.shape[1:]), []
    for channels in np.array_split(np.arange(features.shape[1]), groups):
        cells = sum(gradient[0, k].mean() * features[0, k].detach() for k in channels.tolist()).relu()
        if theta is not None:
            cells = torch.where(cells > float(np.percentile(cells.numpy(), theta)), cells, 0.0)
        region = F.interpolate(cells[None, None], image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        if region.max() == region.min():
            continue
        mask = (region - region.min()) / (region.max() - region.min())
        alphas.append(score(image * mask + blurred * (1 - mask)) - score(blurred))
        total += max(alphas[-1], 0) * region if head else alphas[-1] * mask
    return total.clamp(min=0), alphas


@OUTPUTS
@pytest.mark.parametrize(("groups", "theta"), [(8, 70), (3, 70), (2, 35.5), (4, None), (1, None), (4, 0)])
def test_equals_the_algorithm_step_by_step(output, groups, theta):
    explanandum, image, target = freeze(SmallNet(), output=output), images(4, 24, 40), [2, 0, 1, 2]
    steps = [step_by_step(explanandum, *pair, groups, theta) for pair in zip(image, target, strict=True)]
    maps = GroupCAM(explanandum, groups, theta)(image, torch.tensor(target))
    torch.testing.assert_close(maps, torch.stack([step for step, _ in steps]), rtol=1e-4, atol=1e-7)
    signs = {alpha > 0 for _, alphas in steps for alpha in alphas}
    assert signs == {True, False} or groups == 1  # both kinds of contribution were there
    assert maps.max() > 0


@OUTPUTS
@pytest.mark.parametrize("groups", [8, 3])
def test_the_later_version_equals_its_steps(output, groups):
    explanandum, image, target = freeze(SmallNet(), output=output), images(4), [2, 0, 1, 2]
    steps = [step_by_step(explanandum, *pair, groups, None, head=True) for pair in zip(image, target, strict=True)]
    maps = GroupCAMHead(explanandum, groups)(image, torch.tensor(target))
    torch.testing.assert_close(maps, torch.stack([step for step, _ in steps]), rtol=1e-4, atol=1e-8)
    assert {alpha > 0 for _, alphas in steps for alpha in alphas} == {True, False}
    assert maps.max() > 0


@OUTPUTS
def test_one_group_without_denoising_is_grad_cam_up_to_alpha(output):
    """L = alpha · normalised(Grad-CAM)."""
    explanandum, image, target = freeze(SmallNet(), output=output), images(6), torch.tensor([0, 1, 2, 0, 1, 2])
    cam = GradCAM(explanandum)(image, target)
    low, high = cam.amin(dim=(1, 2), keepdim=True), cam.amax(dim=(1, 2), keepdim=True)
    mask = (cam - low) / (high - low)
    blurred = gaussian_blur(image, 51, 50.0)
    masked = image * mask[:, None] + blurred * (1 - mask[:, None])
    after, before = (explanandum.probabilities(explanandum(part)) for part in (masked, blurred))
    alpha = (after - before)[range(6), target][:, None, None]
    torch.testing.assert_close(
        GroupCAM(explanandum, 1, None)(image, target), (alpha * mask).relu(), rtol=1e-4, atol=1e-7
    )
    torch.testing.assert_close(GroupCAMHead(explanandum, 1)(image, target), alpha.relu() * cam, rtol=1e-4, atol=1e-8)
    assert alpha.max() > 0


class PeakNet(GapNet):
    """A GapNet that is certain of every class wherever a pixel is far from zero, and of none elsewhere."""

    def __init__(self):
        super().__init__(channels=6)

    def forward(self, image):
        return super().forward(image) + 1000 * (image.abs().amax(dim=(1, 2, 3)) - 0.7)[:, None]


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_with_equal_contributions_it_is_the_sum_of_the_masks(groups):
    # Noise of -1 and 1 leaves next to nothing behind when blurred; every mask keeps its own peak: all alphas are 1.
    model, image, target = PeakNet(), images(2).sign(), torch.tensor([0, 2])
    channels = model.features(image).detach() * model.linear.weight.detach()[target][:, :, None, None]
    expected = torch.zeros(2, 32, 32)
    for part in channels.split(6 // groups, dim=1):
        cells = part.sum(dim=1).relu()
        cells = torch.stack([one.where(one > np.percentile(one.numpy(), 70), 0) for one in cells])
        high = cells.amax(dim=(1, 2), keepdim=True)
        expected += cells / high.where(high > 0, 1)
    torch.testing.assert_close(GroupCAM(freeze(model), groups)(image, target), expected, rtol=1e-4, atol=1e-5)
    assert expected.max() >= 1


@pytest.mark.parametrize("theta", [1, 33.3, 50, 70, 99.9])
@pytest.mark.parametrize("shape", [(7, 7), (9, 9), (1, 1), (3, 7)])
def test_denoising_keeps_what_is_strictly_above_numpys_percentile(theta, shape):
    # Few values, so that many cells are equal to the percentile.
    maps = torch.randint(0, 6, (5, 4, *shape), generator=torch.Generator().manual_seed(1)).float() / 7
    expected = maps.clone()
    for single in expected.flatten(0, 1):
        single[single.numpy() <= np.percentile(single.numpy(), theta).astype(np.float32)] = 0
    assert torch.equal(denoise(maps, theta), expected)


@pytest.mark.parametrize(("channels", "groups", "sizes"), [(8, 3, [3, 3, 2]), (8, 8, [1] * 8), (5, 32, [1] * 5)])
def test_groups_are_of_consecutive_channels(channels, groups, sizes):
    activation = 2.0 ** torch.arange(channels)[None, :, None, None].expand(1, -1, 2, 2)
    maps = group_maps(activation, torch.ones_like(activation), groups)[0, :, 0, 0]
    bits = [[bit for bit in range(channels) if int(value) >> bit & 1] for value in maps]
    assert [len(members) for members in bits] == sizes
    assert sum(bits, []) == list(range(channels))


def test_every_group_count_up_to_the_channels_is_met():
    # 400 channels in 32 groups: chunks of 13 would make 31.
    assert group_maps(torch.rand(1, 400, 2, 2), torch.rand(1, 400, 2, 2), 32).shape == (1, 32, 2, 2)


def test_flat_groups_are_left_out():
    flat, slope = torch.full((2, 2), 3.0), torch.tensor([[0.0, 1], [2, 3]])
    maps = torch.stack([torch.stack([flat, slope, flat, slope + 1]), torch.stack([flat, flat, 2 * slope, flat])])
    expected = torch.stack([torch.stack([slope, slope + 1]), torch.stack([2 * slope, torch.zeros(2, 2)])])
    assert torch.equal(without_flat(maps), expected)
    assert without_flat(flat.expand(2, 4, 2, 2)).shape == (2, 0, 2, 2)


def count_passes(model):
    passes = []
    model.register_forward_hook(lambda _model, _inputs, logits: passes.append(len(logits)))
    return passes


@BOTH
@pytest.mark.parametrize(("chunk_size", "chunks"), [(100, [48]), (20, [18, 18, 12]), (1, [1] * 48)])
def test_costs_a_pass_for_each_mask_and_two_more(method_class, chunk_size, chunks):
    explanandum = freeze(GapNet(channels=8))
    with torch.no_grad():
        explanandum.model.linear.weight.abs_()  # no group is flat
    passes = count_passes(explanandum)
    method_class(explanandum, groups=8, chunk_size=chunk_size)(images(6), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert passes[:2] == [6, 6]  # the images, and blurred
    assert passes[2:] == chunks


@BOTH
def test_no_pass_is_spent_on_flat_groups(method_class):
    model = WindowNet()  # a class reads one of three channels: two groups are flat
    image = torch.rand(3, 3, 32, 32) + model.windows.windows.sum(dim=0)
    passes = count_passes(explanandum := freeze(model, "windows"))
    maps = method_class(explanandum)(image, torch.tensor([0, 1, 2]))
    assert passes == [3, 3, 3]
    assert maps.amax(dim=(1, 2)).min() > 0


@BOTH
def test_all_classes_of_an_image_share_two_passes(method_class):
    explanandum = freeze(GapNet(channels=4))
    with torch.no_grad():
        explanandum.model.linear.weight.abs_()
    passes = count_passes(explanandum)
    method = method_class(explanandum, groups=4, chunk_size=1000)
    maps, _, _ = method.present_class_maps(images(2), torch.tensor([[1, 1, 1], [0, 1, 0]]))
    assert len(maps) == 4
    assert passes == [2, 2, 4 * 4]


@BOTH
@OUTPUTS
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 1000])
def test_chunk_size_makes_no_difference(method_class, output, chunk_size):
    explanandum, target = freeze(SmallNet(), output=output), torch.tensor([2, 0, 1])
    expected = method_class(explanandum, groups=8)(images(), target)
    maps = method_class(explanandum, groups=8, chunk_size=chunk_size)(images(), target)
    # A contribution is a difference of probabilities, each of which float32 rounds by some 1e-8.
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=2e-7)


@BOTH
@pytest.mark.parametrize("healthy", [0, 1, 2])
def test_leaves_no_trace_wherever_it_fails(method_class, healthy):
    """In the pass of the images, of the blurred ones, and of the masked ones."""
    model = BreakableNet()
    explanandum = freeze(model)

    def fail_later(_module, _inputs, _output):
        nonlocal healthy
        model.breaks.broken = healthy == 0
        healthy -= 1

    model.features.register_forward_hook(fail_later)
    before = state_of(explanandum)
    with pytest.raises(BrokenError):
        method_class(explanandum, chunk_size=4)(images(), torch.tensor([0, 1, 2]))
    assert healthy == -1
    model.breaks.broken = False
    vars(model.breaks).pop("broken")  # it was the class's before
    assert state_of(explanandum) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 0}, "groups is 0"),
        ({"theta": 100}, "theta is 100"),
        ({"theta": -1}, "theta is -1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GroupCAM(freeze(SmallNet()), **options)


@BOTH
def test_impossible_options_of_the_passes_are_refused(method_class):
    for options, message in (({"chunk_size": 0}, "chunk_size is 0"), ({"kernel_size": 4}, "kernel_size is 4")):
        with pytest.raises(ValueError, match=message):
            method_class(freeze(SmallNet()), **options)(images(), torch.tensor([0, 1, 2]))


@BOTH
def test_a_classifier_that_ignores_its_layers_channels_gives_zero(method_class):
    model = SmallNet()
    nn.init.zeros_(model.logits.weight)
    passes = count_passes(explanandum := freeze(model))
    assert method_class(explanandum)(images(), torch.tensor([0, 1, 2])).count_nonzero() == 0
    assert passes == [3]  # nothing to mask
