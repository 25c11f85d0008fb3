"""Randomised copies of a classifier: from the last layer to the first, one by one or together; the original stays."""

import copy

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import nn
from toy_models import CLASSES, SIZE, BreakableNet, BrokenError, SmallNet, WindowNet, card, freeze, state_of

from explainer.classifiers import build_classifier
from explainer.explanandum import Explanandum
from explainer.randomisation import WeightLayer, cascading, independent, weight_layers

SMALL = [
    WeightLayer("logits", ()),
    WeightLayer("head.1", ()),
    WeightLayer("features.4", ("features.5",)),
    WeightLayer("features.0", ("features.1",)),
]
BOTH = pytest.mark.parametrize("steps", [cascading, independent])
IMAGE = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def real(architecture, size=64):
    """A classifier with small weights of no meaning, which are faster to make than random ones, and its layers."""
    with torch.device("meta"):
        model, _ = build_classifier(architecture, len(CLASSES), "none", 16, size)
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(0.01)
    explanandum = Explanandum(model, card(architecture, size=size))
    return explanandum, [layer.name for layer in weight_layers(explanandum)]


def changed(explanandum, original):
    """Names of the modules that hold a value which differs."""
    pairs = zip(explanandum.model.state_dict().items(), original.model.state_dict().values(), strict=True)
    return {name.rpartition(".")[0] for (name, value), before in pairs if not torch.equal(value, before)}


def weights(explanandum, name):
    return [value.clone() for value in explanandum.model.get_submodule(name).state_dict().values()]


def parts(layers):
    return {name for layer in layers for name in (layer.name, *layer.norms)}


def test_layers_come_from_the_output_to_the_input_with_their_norms():
    assert list(weight_layers(freeze(SmallNet()))) == SMALL
    assert list(weight_layers(freeze(SmallNet()), linear=False)) == SMALL[2:]


def test_the_order_is_that_of_running_not_of_definition():
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)
            self.norm_first, self.first, self.norm = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)

        def forward(self, image):
            return self.last(self.norm(self.first(self.norm_first(image))).mean(dim=(2, 3)))

    found = weight_layers(freeze(Reversed()))
    assert list(found) == [WeightLayer("last", ()), WeightLayer("first", ("norm_first", "norm"))]


def test_vgg16_has_13_convolutions_and_3_linear_layers():
    explanandum, names = real("vgg16", 32)
    assert names[:3] == ["classifier.6", "classifier.3", "classifier.0"]
    assert names[3] == "features.28" and names[-1] == "features.0" and len(names) == 16
    assert len(weight_layers(explanandum, linear=False)) == 13


def test_resnet50_has_53_convolutions_each_with_its_norm():
    explanandum, names = real("resnet50")
    assert len(names) == 54 and names[:2] == ["fc", "layer4.2.conv3"] and names[-1] == "conv1"
    at = names.index("layer4.0.downsample.0")
    assert names[at + 1 : at + 4] == ["layer4.0.conv3", "layer4.0.conv2", "layer4.0.conv1"]
    layers = weight_layers(explanandum)
    assert layers[1].norms == ("layer4.2.bn3",) and layers[-1].norms == ("bn1",)
    assert all(len(layer.norms) == 1 for layer in layers[1:]) and layers[0].norms == ()


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("timm:test_resnet", 64), ("timm:test_efficientnet", 64), ("timm:test_vit", 160), ("timm:test_convnext", 64),
        ("timm:test_nfnet", 96), ("shufflenet_v2_x0_5", 64),
    ],
)  # fmt: skip
def test_every_weight_and_norm_of_other_networks_is_reached(architecture, size):
    explanandum, names = real(architecture, size)
    layers, randomised = weight_layers(explanandum), None
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)
    every = {name for name, part in explanandum.model.named_modules() if isinstance(part, kinds)}
    assert every == parts(layers)
    for _, randomised in cascading(explanandum):
        assert torch.isfinite(randomised(torch.zeros(1, 3, size, size))).all()
    assert set(names) <= changed(randomised, explanandum)


def test_attention_counts_as_a_linear_layer():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.norm, self.head = nn.Conv2d(3, 4, 8, stride=8), nn.LayerNorm(4), nn.Linear(4, 3)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, image):
            tokens = self.norm(self.patches(image).flatten(2).transpose(1, 2))
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(dim=1))

    explanandum = freeze(Attends())
    assert [layer.name for layer in weight_layers(explanandum)] == ["head", "attention", "patches"]
    assert [layer.name for layer in weight_layers(explanandum, linear=False)] == ["patches"]
    found = {name: changed(randomised, explanandum) for name, randomised in independent(explanandum)}
    assert found["attention"] == {"attention", "attention.out_proj"}


def test_cascading_randomises_one_layer_more_in_each_step():
    original = freeze(SmallNet())
    for count, (name, randomised) in enumerate(cascading(original), start=1):
        assert name == SMALL[count - 1].name
        assert changed(randomised, original) == parts(SMALL[:count])
    assert count == 4


def test_independent_randomises_exactly_one_layer_in_each_step():
    original = freeze(SmallNet())
    found = [(name, changed(randomised, original)) for name, randomised in independent(original)]
    assert found == [(layer.name, parts([layer])) for layer in SMALL]


@BOTH
def test_convolutions_alone_leave_linear_layers_as_they_were(steps):
    original = freeze(SmallNet())
    for _, randomised in steps(original, linear=False):
        assert not changed(randomised, original) & {"logits", "head.1"}


@BOTH
@pytest.mark.parametrize("network", [SmallNet, BreakableNet])
def test_the_original_is_left_bit_for_bit_as_found(steps, network):
    original = freeze(network())
    before, prints = state_of(original), original.fingerprint
    logits = original(IMAGE)
    for _, randomised in steps(original):
        assert randomised is not original and randomised.fingerprint != prints
        assert not torch.equal(randomised(IMAGE), logits)
    assert state_of(original) == before and original.fingerprint == prints
    assert torch.equal(original(IMAGE), logits)


def test_an_error_in_the_pass_that_finds_the_order_leaves_no_hook():
    original = freeze(BreakableNet())
    original.model.breaks.broken = True
    before = state_of(original)
    with pytest.raises(BrokenError):
        weight_layers(original)
    assert state_of(original) == before


@BOTH
def test_copies_are_frozen_and_in_eval_mode(steps):
    for _, randomised in steps(freeze(SmallNet())):
        assert not any(value.requires_grad for value in randomised.parameters())
        assert not any(module.training for module in randomised.modules())


def test_there_is_one_copy_at_a_time():
    assert len({id(randomised) for _, randomised in cascading(freeze(SmallNet()))}) == 1


def test_the_seed_decides_and_a_layers_weights_are_the_same_in_both_checks():
    def collected(steps, **options):
        torch.rand(1)  # the global stream must not matter
        return {name: weights(randomised, name) for name, randomised in steps(freeze(SmallNet()), **options)}

    first, again, other = collected(cascading), collected(independent), collected(cascading, seed=1)
    short = collected(cascading, linear=False)
    for name, values in first.items():
        assert all(torch.equal(one, two) for one, two in zip(values, again[name], strict=True))
        assert not torch.equal(values[0], other[name][0])
        assert name not in short or torch.equal(values[0], short[name][0])


@BOTH
def test_the_global_random_stream_is_left_alone(steps):
    original = freeze(SmallNet())
    state = torch.get_rng_state()
    list(steps(original))
    assert torch.equal(torch.get_rng_state(), state)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 64, 5), nn.BatchNorm2d(64), nn.Linear(64, 256)
        self.norm.running_mean.fill_(3.0)
        self.norm.weight.data.fill_(7.0)

    def forward(self, image):
        return self.linear(self.norm(self.conv(image)).mean(dim=(2, 3)))


@pytest.mark.parametrize("initialisation", ["pytorch", "he"])
def test_weights_have_the_spread_of_their_initialisation(initialisation):
    *_, (_, randomised) = cascading(freeze(Wide()), initialisation=initialisation)
    conv, norm, linear = randomised.model.conv, randomised.model.norm, randomised.model.linear
    for layer, inputs in ((conv, 75), (linear, 64)):
        if initialisation == "he":
            assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
            assert not layer.bias.any()
        else:
            fresh = copy.deepcopy(layer)
            fresh.reset_parameters()
            assert layer.weight.std().item() == pytest.approx(fresh.weight.std().item(), rel=0.05)
            assert layer.weight.abs().max() <= inputs**-0.5 and 0 < layer.bias.abs().max() <= inputs**-0.5
    assert torch.equal(norm.weight, torch.ones(64)) and not norm.running_mean.any()


def test_a_classifier_stored_in_bfloat16_stays_so():
    original = freeze(SmallNet()).store_in(torch.bfloat16)
    full = freeze(SmallNet())
    for (name, randomised), (_, expected) in zip(cascading(original), cascading(full), strict=True):
        assert randomised.model.get_submodule(name).weight.dtype == torch.bfloat16
        assert torch.equal(weights(randomised, name)[0], weights(expected, name)[0].bfloat16())


def test_gains_are_no_weights():
    class Gained(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = ScaledStdConv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, image):
            return self.linear(self.conv(image).mean(dim=(2, 3)))

    original = freeze(Gained())
    for _, randomised in cascading(original):
        assert torch.equal(randomised.model.conv.gain, original.model.conv.gain)
    assert not torch.equal(randomised.model.conv.weight, original.model.conv.weight)


def test_a_classifier_without_weight_layers_is_refused():
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        weight_layers(freeze(WindowNet()))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 3))
    with pytest.raises(ValueError, match="no convolution; "):
        next(cascading(freeze(linear), linear=False))


def test_by_default_a_deep_network_still_sees_its_image_when_all_of_it_is_random():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            parts = [nn.Sequential(nn.Conv2d(16 if index else 3, 16, 3, padding=1), nn.ReLU()) for index in range(16)]
            self.features, self.linear = nn.Sequential(*parts), nn.Linear(16, 3)

        def forward(self, image):
            return self.linear(self.features(image).mean(dim=(2, 3)))

    def difference(**options):
        """Between the logits of two images, as a share of their size."""
        *_, (_, randomised) = cascading(freeze(Deep()), **options)
        logits = randomised(torch.stack([IMAGE[0], IMAGE[1] * 0.5]))
        return ((logits[0] - logits[1]).norm() / logits.norm()).item()

    assert difference() > 0.1
    assert difference(initialisation="pytorch") < 1e-3
