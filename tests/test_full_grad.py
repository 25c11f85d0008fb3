"""FullGrad: its terms sum up to the logit, its map is what the definition says, and what it must refuse.

B images, K channels of h×w cells.
"""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from test_method_costs import counted
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from toy_models import BreakableNet, BrokenError, GapNet, SmallNet, card, freeze

from explainer.attribution import CannotExplain
from explainer.attribution.full_grad import FullGrad
from explainer.explanandum import Explanandum

TARGET = torch.tensor([2, 0, 1])


def images(count=3, height=32, width=32):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(count))


def uneven(model):
    """The model with biases, and BatchNorms of which every number matters."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.data.uniform_(-0.2, 0.2, generator=generator)
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            for name, low, high in (("running_mean", -1, 1), ("running_var", 0.5, 2), ("weight", 0.5, 1.5)):
                getattr(module, name).data.uniform_(low, high, generator=generator)
            module.bias.data.uniform_(-1, 1, generator=generator)
    return model


def resnet(**options):
    return torchvision.models.resnet18(num_classes=3, **options)


def densenet():
    return torchvision.models.DenseNet(4, (2, 2), num_init_features=8, num_classes=3)  # a functional ReLU at the end


def preprocessing():
    """Inception's own normalisation: constants that no layer holds."""
    return torchvision.models.inception_v3(num_classes=3, transform_input=True, init_weights=False, aux_logits=False)


MODELS = {
    "small": SmallNet,
    "biases only": lambda: torchvision.models.squeezenet1_1(num_classes=3),
    "resnet": resnet,
    "frozen": lambda: resnet(norm_layer=FrozenBatchNorm2d),
    "densenet": densenet,
    "fused activation": lambda: timm.create_model("regnetx_002", num_classes=3),
    "inception": preprocessing,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_terms_sum_up_to_the_logit(name):
    torch.manual_seed(1)
    explanandum = Explanandum(uneven(MODELS[name]()).double(), card(size=80))
    image = images(2, 80, 80).double()
    logit = explanandum(image)[range(2), TARGET[:2]].detach()
    terms = FullGrad(explanandum).terms(image, TARGET[:2])
    torch.testing.assert_close(sum(term.flatten(1).sum(dim=1) for term in terms), logit, rtol=1e-4, atol=0)
    inputs = terms[0].flatten(1).sum(dim=1)
    assert not torch.allclose(inputs, logit, rtol=0.05)  # the constants have a part in it


def test_the_terms_sum_up_in_single_precision_too():
    explanandum, image = freeze(uneven(SmallNet())), images()
    logit = explanandum(image)[range(3), TARGET].detach()
    terms = FullGrad(explanandum).terms(image, TARGET)
    torch.testing.assert_close(sum(term.flatten(1).sum(dim=1) for term in terms), logit, rtol=1e-4, atol=0)


class Added(nn.Module):
    """Constants that are added in every way that a tensor has."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.image = nn.Parameter(torch.randn(3, 8, 8))
            self.weight = nn.Parameter(torch.randn(3, 3, 1, 1))
            self.bias = nn.Parameter(torch.randn(3))

    def forward(self, image):
        value = (1 - image) + self.image
        value = self.image - (value - 0.5)
        value = torch.add(value, self.image, alpha=2).add(0.25)
        value += self.image
        value -= 0.125
        value = torch.sub(value, self.bias[:, None, None]).relu_()
        value = F.conv2d(value, weight=self.weight, bias=self.bias)
        value = F.conv_transpose2d(value, self.weight, bias=self.bias)
        value = F.conv1d(value.flatten(2), self.weight[:, :, 0], self.bias).view_as(value)
        value = torch.add(input=self.image, other=value).clamp(min=0)
        return F.linear(value.mean(dim=(2, 3)) + value.amax(dim=(2, 3)), self.weight[:, :, 0, 0], bias=self.bias)


def test_a_constant_counts_however_it_is_added():
    explanandum, image = freeze(Added()), images(3, 8, 8)
    terms = FullGrad(explanandum).terms(image, TARGET)
    logit = explanandum(image)[range(3), TARGET].detach()
    torch.testing.assert_close(sum(term.flatten(1).sum(dim=1) for term in terms), logit)


def test_batch_norm_has_an_implicit_bias():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, image):
            return self.norm(image).sum(dim=(2, 3))

    model = uneven(Net())
    norm, image = model.norm, images(3, 4, 4)
    terms = FullGrad(freeze(model)).terms(image, TARGET)
    assert [term.shape for term in terms] == [image.shape] * 2
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    for index, channel in enumerate(TARGET.tolist()):
        bias = (norm.bias - norm.running_mean * scale)[channel].detach()
        expected = torch.zeros(3, 4, 4)
        expected[channel] = bias
        torch.testing.assert_close(terms[1][index], expected)
        expected[channel] = image[index, channel] * scale[channel].detach()
        torch.testing.assert_close(terms[0][index], expected)


def scaled(term, rescale):
    """Magnitudes [K,h,w] in [0, 1], by layer or by channel, summed over the channels: [h,w]."""
    total = torch.zeros(term.shape[1:])
    for channel in term.abs():
        of = channel if rescale == "channel" else term.abs()
        if of.max() > of.min():
            total += (channel - of.min()) / (of.max() - of.min())
    return total


@pytest.mark.parametrize("rescale", ["layer", "channel"])
def test_the_map_of_a_gap_classifier_is_that_of_the_definition(rescale):
    model, image = GapNet(), images(3, 10, 12)
    convolution = model.features[0]
    found = FullGrad(freeze(model), rescale)(image, TARGET)
    for index, target in enumerate(TARGET.tolist()):
        alive = (convolution(image[index, None]) > 0).float()
        slope = alive * model.linear.weight[target][:, None, None] / (10 * 12)
        pixels = F.conv_transpose2d(slope, convolution.weight, padding=1)[0] * image[index]
        biases = slope[0] * convolution.bias[:, None, None]
        expected = scaled(pixels.detach(), rescale) + scaled(biases.detach(), rescale)
        torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-5)


def test_small_layers_are_enlarged_and_those_without_a_place_are_left_out():
    model, image = SmallNet(), images(1)
    explanandum = freeze(model)
    terms = FullGrad(explanandum).terms(image, TARGET[:1])
    assert sorted(term.shape[-1] for term in terms if term.ndim == 4) == [16, 16, 32, 32, 32]
    assert sum(term.ndim == 2 for term in terms) == 2
    expected = torch.zeros(32, 32)
    for term in terms:
        if term.ndim == 4:
            layer = scaled(term[0], "layer")[None, None]
            expected += F.interpolate(layer, (32, 32), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(FullGrad(explanandum)(image, TARGET[:1])[0], expected)


def test_classes_share_the_forward_pass():
    method = FullGrad(freeze(SmallNet()))
    passes = counted(method.explanandum)
    method.present_class_maps(images(), torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 0]]))
    assert (passes.forward, passes.backward) == (2, 4)


class Head(SmallNet):
    """A SmallNet whose logits go through something else."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, image):
        return self.step(super().forward(image))


STEPS = {
    "Tanh": torch.tanh,
    "Softmax": lambda value: value.softmax(dim=1),
    "Mul": lambda value: value * value.flip(1),
    "Div": lambda value: 1 / value,
    "Pow": lambda value: value**2,
    "Hardtanh": nn.ReLU6(),
    "Clamp": lambda value: value.clamp(max=0.1),
    "Glu": lambda value: F.glu(torch.cat([value, value], dim=1)),
    "Hardsigmoid": F.hardsigmoid,
    "Log1P": lambda value: value.relu().log1p(),
    "Expm1": torch.expm1,
    "Logsumexp": lambda value: value + value.logsumexp(dim=1, keepdim=True),
    "Var": lambda value: value + value.var(dim=1, keepdim=True),
    "Softshrink": lambda value: F.softshrink(value, 0.01),
    "Norm": nn.LayerNorm(3),
    "Gelu": nn.GELU(),
    "Bmm": lambda value: (value[:, :, None] @ value[:, None])[:, 0],
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_not_linear_piece_by_piece_is_refused_by_name(name):
    pattern = "Reciprocal|Div" if name == "Div" else name
    with pytest.raises(CannotExplain, match=rf"linear pieces.*because of \w*({pattern})\w*; use gradient"):
        FullGrad(freeze(Head(STEPS[name])))(images(), TARGET)


UNSEEN = {
    "threshold": lambda value: F.threshold(value, 5.0, 20.0),
    "padded": lambda value: F.pad(value, (1, 1, 1, 1), value=2.0),
    "masked": lambda value: value.masked_fill(value < 0, 0.4),
    "where": lambda value: torch.where(value > 0, value, torch.tensor(0.7)),
    "maximum": lambda value: torch.maximum(value, torch.tensor(0.3)),
    "beside": lambda value: torch.cat([value[:, :2], torch.ones_like(value[:, :1])], dim=1),
    "lerp": lambda value: torch.lerp(value, torch.ones(()), 0.5),
    "addcmul": lambda value: torch.addcmul(value, value, value.flip(1)),
    "addmm": lambda value: torch.addmm(torch.ones(3), value.mean(dim=(2, 3)), torch.eye(3))[..., None, None],
}
"""Steps whose constants or curves no list names."""


class Between(nn.Module):
    """A step on the image, before a ReLU and a linear layer."""

    def __init__(self, step):
        super().__init__()
        self.step = step
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.convolution, self.linear = nn.Conv2d(3, 3, 3), nn.Linear(3, 3)

    def forward(self, image):
        return self.linear(self.step(self.convolution(image)).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize("name", UNSEEN)
def test_terms_that_do_not_sum_up_to_the_logit_are_refused_with_both_numbers(name):
    method, image = FullGrad(freeze(Between(UNSEEN[name]))), images()
    with pytest.raises(CannotExplain, match=r"terms sum up to -?[\d.e-]+ where the logit is -?[\d.e-]+, so some step"):
        method(image, TARGET)
    with pytest.raises(CannotExplain, match="terms sum up to"):
        method.present_class_maps(image, torch.ones(3, 3))


@pytest.mark.parametrize("reduced", [False, True])
def test_rounding_is_no_reason_to_refuse(reduced):
    torch.manual_seed(1)
    explanandum = Explanandum(uneven(resnet()), card(size=64))
    if reduced:
        explanandum.store_in(torch.bfloat16)
    image = torch.cat([images(1, 64, 64), 50 * images(1, 64, 64), torch.zeros(1, 3, 64, 64)])
    assert FullGrad(explanandum)(image, TARGET).isfinite().all()


def test_a_clamp_may_be_a_relu():
    clamped, rectified = (
        FullGrad(freeze(Between(step)))(images(), TARGET)
        for step in (lambda value: value.clamp(min=0), lambda value: value.clamp_min(0))
    )
    torch.testing.assert_close(clamped, FullGrad(freeze(Between(torch.relu)))(images(), TARGET))
    torch.testing.assert_close(clamped, rectified)


@pytest.mark.parametrize("architecture", ["test_vit", "test_convnext", "test_byobnet"])
def test_transformers_and_gated_networks_are_refused(architecture):
    size = 160 if architecture == "test_vit" else 64
    explanandum = Explanandum(timm.create_model(architecture, num_classes=3), card(size=size))
    with pytest.raises(CannotExplain, match="linear pieces"):
        FullGrad(explanandum)(images(1, size, size), TARGET[:1])


def test_batch_norm_by_the_batch_itself_is_refused():
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), GapNet())
    with pytest.raises(CannotExplain, match="BatchNorm"):
        FullGrad(freeze(model))(images(), TARGET)


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_is_watched_any_more_afterwards(broken):
    model = BreakableNet()
    method = FullGrad(freeze(model))
    model.breaks.broken = broken
    if broken:
        with pytest.raises(BrokenError):
            method(images(), TARGET)
    else:
        method(images(), TARGET)
    assert torch.overrides._get_current_function_mode_stack() == []
