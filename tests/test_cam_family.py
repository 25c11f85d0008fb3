"""Grad-CAM's kin in closed form, and what all CAM methods share.

B images, C classes, K channels of h×w cells, N maps.
"""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_models import GapNet, SmallNet, WindowNet, freeze

from explainer.attribution import METHODS, CannotExplain, GradCAM
from explainer.attribution.backward import turn_of_each
from explainer.attribution.cam import CAM
from explainer.attribution.grad_cam import GradCAMpp, WGradCAM

CAMS = [name for name, method in METHODS.items() if issubclass(method, CAM)]
EVERY_CAM = pytest.mark.parametrize("name", CAMS)


class CellNet(nn.Module):
    """Reads every cell of its only layer, which hands the image on, with a weight of its own: [K,h,w] a class."""

    def __init__(self, weight):
        super().__init__()
        self.layer = nn.Identity()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, image):
        return torch.einsum("bkhw,ckhw->bc", self.layer(image), self.weight)


class SideNet(GapNet):
    """A GapNet with a branch whose output never reaches the logits."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Conv2d(3, 2, 3)

    def forward(self, image):
        self.branch(image)
        return super().forward(image)


def images(count=3, height=32, width=32, seed=7):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def layer_and_gradient(model, image, target):
    """Of a SmallNet, image by image, from the ordinary graph."""
    features = model.eval().features(image).detach().requires_grad_()
    logits = model.logits(model.head(model.pool(features).flatten(1)))
    return features.detach(), torch.autograd.grad(logits[range(len(image)), target].sum(), features)[0]


def grad_cam_pp_cell_by_cell(activation, gradient):
    """The closed form as it is printed, one channel [h,w] after the other: [K,h,w] twice -> [h,w]."""
    cam = torch.zeros(activation.shape[1:], dtype=torch.float64)
    for channel, slope in zip(activation.double(), gradient.double(), strict=True):
        weight = 0.0
        for value in slope.flatten():
            below = 2 * value**2 + (channel * value**3).sum()
            alpha = value**2 / below if below != 0 else 0.0
            weight = weight + alpha * max(value, 0)
        cam += weight * channel
    return cam.clamp(min=0)


def test_grad_cam_pp_equals_its_formula_cell_by_cell():
    model, image, target = SmallNet(), images(3), torch.tensor([0, 1, 2])
    expected = torch.stack(
        [grad_cam_pp_cell_by_cell(*pair) for pair in zip(*layer_and_gradient(model, image, target), strict=True)]
    )
    enlarged = F.interpolate(expected[:, None].float(), (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(GradCAMpp(freeze(model))(image, target), enlarged, rtol=1e-5, atol=1e-7)
    assert enlarged.amax(dim=(1, 2)).min() > 0


def test_grad_cam_pp_is_what_its_derivatives_of_second_and_third_order_say():
    model, image = GapNet(), images(1, 4, 4)
    activation = model.features(image)[0].detach().double().requires_grad_()
    weight, bias = model.linear.weight[1].detach().double(), model.linear.bias[1].detach().double()
    score = (activation.mean(dim=(1, 2)) @ weight + bias).exp()  # exp(logit), the paper's score
    (first,) = torch.autograd.grad(score, activation, create_graph=True)
    channel_weight = torch.zeros(5, dtype=torch.float64)
    for k, row, column in torch.cartesian_prod(torch.arange(5), torch.arange(4), torch.arange(4)).tolist():
        second = torch.autograd.grad(first[k, row, column], activation, create_graph=True)[0][k, row, column]
        third = torch.autograd.grad(second, activation, retain_graph=True)[0][k, row, column]
        alpha = second / (2 * second + activation[k].sum() * third)
        channel_weight[k] += (alpha * first[k, row, column].relu()).detach()
    expected = (channel_weight[:, None, None] * activation.detach()).sum(dim=0)
    maps = GradCAMpp(freeze(model))(image, torch.tensor([1]))[0]
    # The score's gradient is exp(logit) times the logit's: a factor on the whole map.
    torch.testing.assert_close(maps.double() * score.detach(), expected, rtol=1e-5, atol=1e-8)
    assert expected.max() > 0


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e4])
def test_grad_cam_pp_survives_gradients_whose_cubes_do_not(scale):
    model = GapNet()
    image, target = images(2), torch.tensor([0, 1])
    with torch.no_grad():
        model.linear.weight.mul_(scale)
    maps = GradCAMpp(freeze(model))(image, target)
    channels = model.features(image).double()
    gradient = (model.linear.weight[target] / 1024).double().relu()
    weight = 1024 * gradient / (2 + gradient * channels.sum(dim=(2, 3)))
    expected = torch.einsum("bk,bkhw->bhw", weight, channels)
    torch.testing.assert_close(maps.double(), expected.detach(), rtol=1e-4, atol=0)
    assert maps.max() > 0


def test_grad_cam_pp_is_finite_where_its_denominator_vanishes():
    model = CellNet([[[[1.0, 1], [1, 1]]] * 3])
    image = torch.full((1, 3, 2, 2), -0.5)  # 2 + g·ΣA = 2 + 1·(-2) = 0
    image[0, 0] = -1  # and here below zero
    assert GradCAMpp(freeze(model, "layer", classes=["a"]))(image, torch.tensor([0])).isfinite().all()


def test_wgrad_cam_by_hand():
    weight = [[[[4.0, 0], [0, 0]], [[0, 8], [0, 0]], [[-4, 0], [0, -4]]]]
    image = torch.tensor([[[[2.0, 1], [0, 3]], [[1, 0.5], [2, 0]], [[1, 1], [0, 1]]]])
    # Means of gradient · activation: (4·2)/4 = 2, (8·0.5)/4 = 1 and (-4 - 4)/4 = -2.
    expected = torch.tensor([[[2 * 2 + 1 - 2.0, 2 + 0.5 - 2], [0 + 2 - 0, 6 + 0 - 2]]])
    maps = WGradCAM(freeze(CellNet(weight), "layer", classes=["a"]))(image, torch.tensor([0]))
    torch.testing.assert_close(maps, expected)


def test_wgrad_cam_cuts_off_what_is_negative():
    weight = [[[[1.0, 1]], [[-1, -1]], [[0, 0]]]]
    image = torch.tensor([[[[1.0, 0]], [[0, 3]], [[9, 9]]]])
    # 0.5 · channel 0 - 1.5 · channel 1
    maps = WGradCAM(freeze(CellNet(weight), "layer", classes=["a"]))(image, torch.tensor([0]))
    torch.testing.assert_close(maps, torch.tensor([[[0.5, 0]]]))


@EVERY_CAM
def test_finds_its_layer_or_is_told(name):
    explanandum = freeze(SmallNet())
    found, named, early = (METHODS[name](explanandum, target_layer=layer) for layer in (None, "features", "features.3"))
    assert (found.target_layer, early.target_layer) == ("features", "features.3")
    image, target = images(2), torch.tensor([0, 1])
    assert torch.equal(found(image, target), named(image, target))
    assert not torch.allclose(found(image, target), early(image, target))


@EVERY_CAM
@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (SmallNet(), "head", r"'head' gives \[2, 16\]"),
        (SmallNet(), "nothing", "Unknown target layer 'nothing'"),
        (SideNet(), "branch", "do not depend on layer 'branch'"),
    ],
)
def test_refuses_a_layer_that_explains_nothing(name, model, layer, message):
    with pytest.raises(CannotExplain, match=message):
        METHODS[name](freeze(model), target_layer=layer)(images(2), torch.tensor([0, 1]))


def test_a_logit_that_needs_no_gradient_at_all_is_refused():
    class Cut(GapNet):
        def forward(self, image):
            return super().forward(image).detach()

    with pytest.raises(CannotExplain, match="do not depend on layer 'features'"):
        GradCAM(freeze(Cut(), "features"))(images(2), torch.tensor([0, 1]))


def test_maps_are_numbered_within_their_image():
    assert turn_of_each(torch.tensor([0, 0, 2, 2, 2, 5])).tolist() == [0, 1, 0, 1, 2, 0]


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_pp", "wgrad_cam"])
def test_all_classes_of_a_batch_cost_one_forward_pass(name, monkeypatch):
    model = GapNet(classes=4)
    method = METHODS[name](freeze(model, classes=["a", "b", "c", "d"]))
    passes, backwards = [], []
    model.register_forward_hook(lambda _model, _inputs, logits: passes.append(len(logits)))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: backwards.append(0) or grad(*args, **options))
    labels = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
    maps, image_index, _ = method.present_class_maps(images(4), labels)
    assert image_index.tolist() == [0, 0, 0, 2, 3, 3]
    assert len(maps) == 6
    assert passes == [3]  # the image without a class is not looked at
    assert len(backwards) == 3  # as many as one image has classes


@EVERY_CAM
def test_keeps_no_graph_and_no_activation(name):
    model = SmallNet()
    alive = []
    model.features.register_forward_hook(lambda _model, _inputs, output: alive.append(weakref.ref(output)))
    METHODS[name](freeze(model), target_layer="features.4")(images(2), torch.tensor([0, 1]))
    gc.collect()
    assert alive
    assert not [reference for reference in alive if reference() is not None]


@EVERY_CAM
def test_no_image_gives_no_map(name):
    method = METHODS[name](freeze(WindowNet(), "windows"))
    maps = method(torch.zeros(0, 3, 32, 32), torch.zeros(0, dtype=torch.long))
    assert maps.shape == (0, 32, 32)
