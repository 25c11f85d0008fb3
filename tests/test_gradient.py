"""The gradient family against captum, plain loops, and classifiers whose gradients are known.

B images, C classes, H×W pixels.
"""

import pytest
import timm
import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import Saliency
from test_method_costs import counted
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy_models import FlatNet, GapNet, SmallNet, card, freeze

from explainer.attribution import METHODS, CannotExplain
from explainer.attribution.gradient import Gradient, GuidedBackprop, IntegratedGradients, SmoothGrad
from explainer.explanandum import Explanandum

TARGET = torch.tensor([2, 0, 1])
FAMILY = ["gradient", "guided_backprop", "smooth_grad", "integrated_gradients"]
EVERY = pytest.mark.parametrize("name", FAMILY)


def images(count=3, height=20, width=24, seed=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def strongest(attribution):
    """The channel rule: per pixel the largest magnitude of its colours."""
    return attribution.detach().abs().amax(dim=1)


def plain_gradient(explanandum, image, target):
    """Of one image [3,H,W], by the ordinary graph."""
    leaf = image.detach().clone().requires_grad_()
    explanandum(leaf[None])[0, target].backward()
    return leaf.grad


def everyone(method, image, target=TARGET):
    """Signed attributions of one target an image."""
    return method.attributions(image, torch.arange(len(image)), target)


def close(found, expected, atol=1e-6):
    assert expected.abs().max() > 1e-4, "A reference of zeros shows nothing."
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=atol)


# --- Gradient ---


def test_the_gradient_is_captums_and_of_its_colours_the_strongest_counts():
    explanandum, image = freeze(SmallNet()), images()
    expected = Saliency(explanandum).attribute(image.clone().requires_grad_(), TARGET, abs=False)
    close(everyone(Gradient(explanandum), image), expected)
    close(Gradient(explanandum)(image, TARGET), strongest(expected))


@pytest.mark.parametrize("name", ["gradient", "smooth_grad"])
def test_a_linear_classifiers_map_is_its_weights_whatever_the_image(name):
    model = FlatNet()
    expected = strongest(model.linear.weight[TARGET].view(3, 3, 32, 32))
    for seed in range(2):
        close(METHODS[name](freeze(model))(images(3, 32, 32, seed), TARGET), expected)


# --- Guided backpropagation ---


class ReluNet(nn.Module):
    """Two ReLUs, each written in a way of its own; the second one's output is used twice."""

    def __init__(self, first, second):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(6)
            self.one, self.two = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
            self.head = nn.Linear(6, 3)
        self.first, self.second = first, second

    def forward(self, image):
        inner = self.second(self.two(self.first(self.one(image))))
        inner = inner + 0.5 * inner.flip(1)
        return self.head(inner.mean(dim=(2, 3)))


WAYS = {
    "modules": (nn.ReLU(), nn.ReLU()),
    "modules in place": (nn.ReLU(inplace=True), nn.ReLU(inplace=True)),
    "functions": (F.relu, torch.relu),
    "functions in place": (lambda value: F.relu(value, inplace=True), torch.relu_),
    "methods": (torch.Tensor.relu, torch.Tensor.relu_),
}


def captums_guided(model, image, target):
    with pytest.warns(UserWarning, match="Setting backward hooks on ReLU"):
        return CaptumGuidedBackprop(model).attribute(image.clone().requires_grad_(), target)


@pytest.mark.parametrize("way", WAYS)
def test_every_relu_is_guided_however_it_is_written(way):
    expected = captums_guided(ReluNet(*WAYS["modules"]).eval(), images(), TARGET)
    found = everyone(GuidedBackprop(freeze(ReluNet(*WAYS[way]))), images())
    close(found, expected.detach())
    assert not torch.allclose(found, everyone(Gradient(freeze(ReluNet(*WAYS[way]))), images()), atol=1e-4)


@pytest.mark.parametrize("architecture", ["test_resnet", "legacy_seresnet18"])
def test_a_real_classifiers_guided_map_is_captums(architecture):
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=3).eval()
    image = images(2, 64, 64)
    expected = strongest(captums_guided(model, image, TARGET[:2]))
    found = GuidedBackprop(Explanandum(model, card(size=64)))(image, TARGET[:2])
    close(found, expected, atol=1e-5 * float(expected.max()))


def test_guided_backpropagation_by_hand():
    # f = relu(-x) - relu(2x): the second ReLU is reached by -1, which is not let through.
    class Net(FlatNet):
        def forward(self, image):
            red = image[:, 0, 0, 0]
            return torch.stack([(-red).relu() - (2 * red).relu(), (2 * red).relu(), red.relu() - red], dim=1)

    image = torch.zeros(3, 3, 2, 2)
    for red, expected in ((1.0, [0, 2, 1 - 1]), (-1.0, [-1, 0, -1])):
        image[:, 0, 0, 0] = red
        found = everyone(GuidedBackprop(freeze(Net())), image, torch.tensor([0, 1, 2]))
        assert found[:, 0, 0, 0].tolist() == expected
        assert found.count_nonzero() == torch.tensor(expected).count_nonzero()


def test_guiding_leaves_nothing_behind_that_would_guide_later_gradients():
    explanandum, image = freeze(SmallNet()), images()
    before = Gradient(explanandum)(image, TARGET)
    GuidedBackprop(explanandum)(image, TARGET)
    assert torch.equal(Gradient(explanandum)(image, TARGET), before)


@pytest.mark.parametrize("architecture", ["test_vit", "test_convnext", "test_efficientnet"])
def test_a_classifier_without_relu_can_not_be_guided_but_has_gradients(architecture):
    size = 160 if architecture == "test_vit" else 64
    explanandum = Explanandum(timm.create_model(architecture, num_classes=3), card(size=size))
    image = images(1, size, size)
    with pytest.raises(CannotExplain, match="no ReLU to guide.*use gradient"):
        GuidedBackprop(explanandum)(image, TARGET[:1])
    expected = Saliency(explanandum).attribute(image.clone().requires_grad_(), TARGET[:1])
    close(Gradient(explanandum)(image, TARGET[:1]), strongest(expected))


# --- SmoothGrad ---


def test_smooth_grad_is_the_mean_gradient_of_noisy_copies():
    explanandum, image = freeze(SmallNet()), images()
    image[1] *= 3  # its noise is three times as strong
    noise = torch.randn(5, 3, 20, 24, generator=torch.Generator().manual_seed(9))
    expected = torch.zeros_like(image)
    for index in range(3):
        sigma = 0.2 * (image[index].max() - image[index].min())
        for draw in noise:
            expected[index] += plain_gradient(explanandum, image[index] + sigma * draw, TARGET[index]) / 5
    method = SmoothGrad(explanandum, samples=5, noise=0.2, seed=9, chunk_size=4)
    close(everyone(method, image), expected)
    close(method(image, TARGET), strongest(expected))


class CubicNet(nn.Module):
    """The only class's logit is the sum of the cubed pixels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, image):
        return (self.scale * image**3).sum(dim=(1, 2, 3))[:, None]


def test_smooth_grad_of_a_cube_is_to_be_expected():
    # The mean of 3 (x + e)² over the noise is 3 (x² + sigma²).
    image = torch.linspace(-1, 1, 12).view(1, 3, 2, 2)
    method = SmoothGrad(freeze(CubicNet(), classes=["sum"]), samples=20000, noise=0.25, chunk_size=5000)
    found = method(image, torch.tensor([0]))
    torch.testing.assert_close(found, strongest(3 * (image**2 + 0.5**2)), rtol=0, atol=0.1)


def test_an_image_of_one_colour_has_no_noise():
    explanandum, image = freeze(SmallNet()), torch.full((1, 3, 20, 24), 0.3)
    target = torch.tensor([1])
    close(SmoothGrad(explanandum, samples=3)(image, target), Gradient(explanandum)(image, target))


def test_another_seed_gives_other_noise_and_the_global_generator_is_left_alone():
    explanandum, image, before = freeze(SmallNet()), images(), torch.get_rng_state()
    one, other = (SmoothGrad(explanandum, samples=3, seed=seed)(image, TARGET) for seed in (0, 1))
    assert not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), before)


# --- Integrated gradients ---

COLOURS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}


def normalised(model):
    """The model as an explanandum of normalised images, and what is black to it."""
    statistics = {"mean": COLOURS["mean"], "std": COLOURS["std"]}
    explanandum = Explanandum(model, type(card())("toy", ("cat", "dog", "hen"), 32, **statistics))
    black = -torch.tensor(COLOURS["mean"]) / torch.tensor(COLOURS["std"])
    return explanandum, black.view(1, 3, 1, 1).expand(1, 3, 20, 24)


@pytest.mark.parametrize(("steps", "chunk_size"), [(2, 1), (7, 4), (6, 100)])
@pytest.mark.parametrize("baseline", ["black", "mean"])
def test_integrated_gradients_are_captums(steps, chunk_size, baseline):
    explanandum, black = normalised(SmallNet())
    image = images()
    start = black if baseline == "black" else torch.zeros_like(black)
    expected = CaptumIntegratedGradients(explanandum).attribute(
        image.clone(), start.expand(3, -1, -1, -1), TARGET, n_steps=steps, method="riemann_middle"
    )
    method = IntegratedGradients(explanandum, steps=steps, baseline=baseline, chunk_size=chunk_size)
    close(everyone(method, image), expected.detach().float())
    close(method(image, TARGET), strongest(expected.float()))


def test_integrated_gradients_are_the_mean_over_the_middles_of_the_steps():
    explanandum, black = normalised(SmallNet())
    image = images(1)
    way = image[0] - black[0]
    mean = sum(plain_gradient(explanandum, black[0] + share * way, 2) for share in (1 / 8, 3 / 8, 5 / 8, 7 / 8)) / 4
    close(everyone(IntegratedGradients(explanandum, steps=4), image, TARGET[:1])[0], mean * way)


def test_integrated_gradients_sum_up_to_what_the_image_adds():
    explanandum, black = normalised(SmallNet())
    image = images()
    added = (explanandum(image) - explanandum(black)).detach()[range(3), TARGET]
    total = everyone(IntegratedGradients(explanandum, steps=200), image).sum(dim=(1, 2, 3))
    torch.testing.assert_close(total, added, rtol=0.01, atol=1e-3)


def test_of_a_linear_classifier_one_step_is_enough():
    model, image = FlatNet(), images(3, 32, 32)
    expected = strongest(model.linear.weight[TARGET].view(3, 3, 32, 32) * image)
    close(IntegratedGradients(freeze(model), steps=1)(image, TARGET), expected)


# --- What they share ---


@pytest.mark.parametrize(
    ("text", "forward"), [("gradient", 3), ("guided_backprop", 3), ("smooth_grad", 150), ("integrated_gradients", 150)]
)
def test_classes_of_an_image_share_its_forward_passes_and_images_without_any_have_none(text, forward):
    method = METHODS[text](freeze(SmallNet()))
    passes = counted(method.explanandum)
    labels = torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]])
    maps, _, _ = method.present_class_maps(images(4, 8, 8), labels)
    assert len(maps) == 6
    assert passes.forward == forward
    assert passes.backward == 6 * forward / 3


class CountedNumbers(TorchDispatchMode):
    """Counts the floating-point numbers of all new tensors while it is entered, forwards and backwards."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor) and output.is_floating_point() and not func._schema.is_mutable:
            self.count += output.numel()
        return output


@pytest.mark.parametrize(("name", "options"), [("gradient", {}), ("smooth_grad", {"samples": 4, "chunk_size": 2})])
def test_work_grows_with_the_number_of_classes_not_with_its_square(name, options):
    method = METHODS[name](freeze(GapNet(classes=24)), **options)
    counts = []
    for classes in (8, 16, 24):
        with CountedNumbers() as numbers:
            method.present_class_maps(images(1), (torch.arange(24) < classes).float()[None])
        counts.append(numbers.count)
    assert counts[2] - counts[1] == pytest.approx(counts[1] - counts[0], rel=0.02)


class CutNet(GapNet):
    """A classifier that detaches what it has computed."""

    def forward(self, image):
        return super().forward(image).detach()


@EVERY
def test_logits_that_are_cut_off_from_the_image_have_no_gradient_to_show(name):
    with pytest.raises(CannotExplain, match="no gradient with respect to the image"):
        METHODS[name](freeze(CutNet()))(images(), TARGET)


@EVERY
def test_inference_mode_is_refused_with_the_way_out(name):
    method = METHODS[name](freeze(SmallNet()))
    with torch.inference_mode(), pytest.raises(CannotExplain, match=r"use torch\.no_grad|ask it under torch\.no_grad"):
        method(images(), TARGET)
