"""XRAI: a plain loop, the authors' package, captum's integrals, and what its options mean.

B images, H×W pixels.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import xrai as reference
from scipy import ndimage
from skimage import data, segmentation, transform
from torch import nn
from toy_models import FlatNet, SmallNet, freeze

from explainer.attribution import CannotExplain
from explainer.attribution.backward import integrated_gradients
from explainer.attribution.xrai import (
    DILATION,
    LEAST_NEW,
    SLIC_SEGMENTS,
    XRAI,
    grow,
    segment_masks,
    to_picture,
)
from explainer.explanandum import Explanandum

SIZE = (40, 56)


@pytest.fixture(scope="module")
def picture():
    """A cat, [H,W,3] in [0, 1]."""
    return transform.resize(data.chelsea(), SIZE, anti_aliasing=True).astype(np.float32)


@pytest.fixture(scope="module")
def masks(picture):
    return segment_masks(picture, "felzenszwalb")


@pytest.fixture(scope="module")
def package():
    """The authors' own."""
    return pytest.importorskip("saliency.core", reason="saliency is not installed (extra: test)")


def values(seed=0):
    return np.random.default_rng(seed).normal(size=SIZE)


def segments_of_slic(picture):
    """Segments that SLIC makes of the picture, a pixel of which is at most DILATION from one of the segment's own."""
    segments = []
    for count in SLIC_SEGMENTS:
        labels = segmentation.slic(picture, n_segments=count)
        distances = (ndimage.distance_transform_edt(labels != label) for label in np.unique(labels))
        segments += [(distance <= DILATION).astype(int).tolist() for distance in distances]
    return segments


def as_image(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def test_a_map_is_what_a_loop_over_the_segments_gives():
    generator = np.random.default_rng(0)
    segments = generator.random((25, 20, 30)) < generator.random((25, 1, 1)) / 2
    attribution = generator.normal(size=(20, 30))
    expected = reference.grown(attribution.tolist(), segments.astype(int).tolist(), LEAST_NEW)
    found = grow(attribution.ravel(), segments.reshape(25, -1)).reshape(20, 30)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert len(np.unique(found)) > 3


def test_the_pixels_that_no_segment_takes_have_their_own_mean():
    attribution = np.arange(100.0)
    segment = np.zeros((1, 100), bool)
    segment[0, :60] = True
    np.testing.assert_allclose(grow(attribution, segment), [*[29.5] * 60, *[79.5] * 40])
    np.testing.assert_allclose(grow(attribution, segment[:, ::-1] & ~segment), [49.5] * 100)  # too few


def test_segments_are_the_packages(picture, masks, package):
    from saliency.core.xrai import _get_segments_felzenszwalb

    expected = {mask.tobytes() for mask in _get_segments_felzenszwalb(picture)}
    assert {mask.tobytes() for mask in masks} == expected


def test_segments_grow_as_the_packages_do(masks, package):
    shaped = [mask.reshape(SIZE) for mask in masks]
    for seed in range(3):
        expected, _ = package.XRAI._xrai(values(seed), shaped)
        np.testing.assert_allclose(grow(values(seed).ravel(), masks).reshape(SIZE), expected, rtol=1e-12)


def test_the_map_is_the_packages_where_the_integrals_need_no_steps(picture, package):
    # Of a linear classifier any step gives the integral. The package's baselines are the image's own extremes.
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 3))
    weights = model[1].weight[2].detach().view(3, *SIZE).permute(1, 2, 0).numpy()

    def call(inputs, call_model_args=None, expected_keys=None):
        return {package.INPUT_OUTPUT_GRADIENTS: np.broadcast_to(weights, np.shape(inputs))}

    expected = package.XRAI().GetMask(picture, call, batch_size=2, extra_parameters=package.XRAIParameters(steps=2))
    found = XRAI(freeze(model), steps=1)(as_image(picture), torch.tensor([2]))[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-7)


def test_a_map_holds_the_attributions_of_its_segments(picture):
    explanandum, image = freeze(SmallNet()), as_image(picture)
    found = XRAI(explanandum, "slic", steps=3)(image, torch.tensor([1]))
    black, white = (
        integrated_gradients(explanandum, image, torch.full((3, 1, 1), grey), torch.tensor([0]), torch.tensor([1]), 3)
        for grey in (0.0, 1.0)
    )
    attribution = ((black + white) / 2).amax(dim=1)
    segments = segments_of_slic(picture)
    expected = reference.grown(attribution[0].double().tolist(), segments, LEAST_NEW)
    torch.testing.assert_close(found[0], torch.tensor(expected).float())
    torch.testing.assert_close(found.sum(), attribution.sum(), rtol=1e-4, atol=1e-6)


def test_both_kinds_of_segments_are_those_of_each(picture, masks):
    both = {mask.tobytes() for mask in segment_masks(picture, "both")}
    slic = {mask.tobytes() for mask in segment_masks(picture, "slic")}
    assert both == slic | {mask.tobytes() for mask in masks}
    assert len(both) > max(len(slic), len(masks))


@pytest.mark.parametrize("tiny", [np.full((17, 9, 3), 0.4), np.random.default_rng(0).random((3, 5, 3))])
def test_tiny_and_flat_pictures_have_segments_that_cover_them(tiny):
    masks = segment_masks(tiny.astype(np.float32), "both")
    assert masks.any(axis=0).all()
    assert set(grow(np.ones(masks.shape[1]), masks)) == {1.0}


def test_a_picture_undoes_the_normalisation():
    explanandum = freeze(SmallNet())
    card = replace(explanandum.card, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    image = torch.tensor([[-2.5, 0.0], [2.5, 9.0]]).expand(3, 2, 2)
    picture = to_picture(image, card)
    np.testing.assert_allclose(picture[:, :, 0], [[0, 0.5], [1, 1]], atol=1e-6)  # what lies outside is cut
    np.testing.assert_allclose(picture[0, 1], [0.5, 0.4, 0.3], atol=1e-6)


def test_baselines_are_grey_levels_of_the_photograph():
    model = FlatNet()
    card = replace(freeze(model).card, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    image = torch.randn(1, 3, 32, 32)
    grey = torch.tensor([(0.25 - mean) / std for mean, std in zip(card.mean, card.std, strict=True)])
    attribution = ((image[0] - grey[:, None, None]) * model.linear.weight[1].view(3, 32, 32)).amax(dim=0).sum()
    found = XRAI(Explanandum(model, card), "slic", steps=2, baselines=0.25)(image, torch.tensor([1]))
    torch.testing.assert_close(found.sum(), attribution.detach(), rtol=1e-3, atol=1e-4)


def test_what_has_no_gradient_is_refused():
    class Detached(SmallNet):
        def forward(self, image):
            return super().forward(image).detach()

    with pytest.raises(CannotExplain, match="no gradient"):
        XRAI(freeze(Detached()), "slic", steps=1)(torch.rand(1, 3, 32, 32), torch.tensor([0]))
    with torch.inference_mode(), pytest.raises(CannotExplain, match=r"ask it under torch\.no_grad"):
        XRAI(freeze(SmallNet()), "slic", steps=1)(torch.rand(1, 3, 32, 32), torch.tensor([0]))
