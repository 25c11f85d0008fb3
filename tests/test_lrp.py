"""LRP: the papers' rules as plain loops, other libraries, conservation, and classifiers that it can't explain.

B images, C classes, H×W pixels.
"""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LRP as CaptumLRP
from reference import lrp as reference
from reference.convert import nested
from torch import nn
from toy_models import FlatNet, SmallNet, card, freeze

from explainer.attribution import CannotExplain
from explainer.attribution.lrp import LRP
from explainer.attribution.relevance import RelevanceRules
from explainer.classifiers import build_classifier
from explainer.explanandum import Explanandum

COMPOSITES = ("epsilon_plus_flat", "epsilon_plus", "epsilon")


def images(count=2, size=32, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Module):
    """Two paths that are added, one of them gated, and parts of it put side by side; without any bias."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.path = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.gate = nn.Conv2d(6, 6, 1, bias=False)
        self.head = nn.Linear(12, 3, bias=False)
        self.path[1].running_var.uniform_(0.5, 2)

    def forward(self, image):
        stem = F.max_pool2d(self.stem(image).relu_(), 2)
        path = self.path(stem)
        path = path * torch.sigmoid(self.gate(path.mean((2, 3), keepdim=True)))
        path += stem
        both = torch.cat([F.silu(path), F.avg_pool2d(F.relu(path), 1)], dim=1)
        return self.head(F.adaptive_avg_pool2d(both, 1).flatten(1) / 2)


def shaken(model, biases=True):
    """The model with BatchNorm statistics and biases that are not those of a fresh one."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            if biases:
                module.running_mean.normal_(std=0.1)
                module.bias.data.normal_(std=0.1)
        elif isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.data.normal_(std=0.1 * biases)
    return model


def built(architecture, size=64, biases=True, hidden=16):
    """A torchvision or timm classifier of three classes with random weights, as an explanandum."""
    torch.manual_seed(4)
    model, _ = build_classifier(architecture, 3, "none", hidden=hidden, image_size=size)
    return Explanandum(shaken(model, biases), card(architecture, size=size))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_map_is_what_loops_over_the_rules_give(composite):
    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(3 * 4 * 3, 5), nn.ReLU(), nn.Linear(5, 3)),
    )
    image = torch.randn(2, 3, 6, 5)
    found = LRP(freeze(model), composite, epsilon=0.05)(image, torch.tensor([2, 0]))
    first, second, *dense = [
        (nested(module.weight.detach()), nested(module.bias.detach()))
        for module in model
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    for index, target in enumerate((2, 0)):
        expected = reference.relevance(
            nested(image[index]), [(*first, 1), (*second, 0)], dense, target, composite, 0.05
        )
        torch.testing.assert_close(found[index], torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_relevance_is_conserved_without_biases(composite):
    torch.manual_seed(2)
    explanandum, image = freeze(Residual()), images(3)
    logits = explanandum(image)
    assert logits.min() < 0 < logits.max()
    maps, _, _ = LRP(explanandum, composite, epsilon=1e-9).present_class_maps(image, torch.ones(3, 3))
    torch.testing.assert_close(maps.sum(dim=(1, 2)), logits.flatten(), rtol=1e-3, atol=1e-5)


REAL = [
    *("resnet18", "densenet121", "regnet_x_400mf", "mobilenet_v3_small", "inception_v3"),
    *("timm:test_resnet", "timm:seresnet18"),
]


@pytest.mark.parametrize("architecture", REAL)
def test_relevance_is_conserved_in_real_architectures_without_biases(architecture):
    size = 80 if architecture == "inception_v3" else 64
    explanandum, image = built(architecture, size, biases=False), images(2, size)
    logits = explanandum(image)[:, 1]
    maps = LRP(explanandum)(image, torch.tensor([1, 1]))
    torch.testing.assert_close(maps.sum(dim=(1, 2)), logits, rtol=0.02, atol=1e-4)
    assert (maps.flatten(1).std(dim=1) > 0).all()


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_forward_pass_gives_the_logits_that_the_classifier_gives(composite):
    for architecture in ("densenet121", "timm:seresnet18"):
        explanandum, image = built(architecture), images(1, 64)
        with torch.enable_grad(), RelevanceRules(image, composite, 1e-6) as rules:
            logits = explanandum(rules.image)
        torch.testing.assert_close(logits.detach(), explanandum(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "composite"),
    [("vgg11", "epsilon_plus_flat"), ("resnet18", "epsilon_plus_flat"), ("resnet18", "epsilon_plus")],
)
def test_the_map_is_zennits_where_zennit_has_canonisers(architecture, composite):
    zennit = pytest.importorskip("zennit", reason="zennit is not installed (extra: test)")
    from zennit.attribution import Gradient
    from zennit.composites import COMPOSITES as THEIRS
    from zennit.torchvision import ResNetCanonizer

    assert zennit
    explanandum, image, target = built(architecture, 32), images(2, 32), torch.tensor([2, 0])
    found = LRP(explanandum, composite)(image, target)
    with Gradient(explanandum.model, THEIRS[composite](canonizers=[ResNetCanonizer()])) as attribute:
        _, expected = attribute(image, lambda logits: logits * F.one_hot(target, 3))
    expected = expected.sum(dim=1)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-3 * float(expected.abs().max()))


def test_epsilon_throughout_is_captums_rule():
    explanandum, image, target = built("vgg11", 32), images(2, 32), torch.tensor([2, 0])
    expected = CaptumLRP(explanandum.model).attribute(image.clone().requires_grad_(), target).detach().sum(dim=1)
    found = LRP(explanandum, "epsilon", epsilon=1e-9)(image, target)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("architecture", ["small", "densenet121"])
def test_epsilon_throughout_is_image_times_gradient_in_a_network_of_relus(architecture):
    explanandum = (freeze(SmallNet()) if architecture == "small" else built(architecture)).double()
    image, target = images(2, 32).double(), torch.tensor([1, 2])
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(explanandum(leaf)[range(2), target].sum(), leaf)
    expected = (image * gradient).sum(dim=1).float()
    found = LRP(explanandum, "epsilon", epsilon=1e-12)(image, target)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_an_image_has_the_same_map_in_a_batch_where_batch_norms_stand_alone(composite):
    explanandum, image, target = built("densenet121"), images(3, 32), torch.tensor([0, 1, 2])  # single precision
    method = LRP(explanandum, composite)
    together = method(image, target)
    alone = torch.cat([method(image[index, None], target[index, None]) for index in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=5e-3 * float(alone.abs().max()))
    assert together.abs().sum(dim=(1, 2)).max() < 1000 * explanandum(image).abs().max()  # no quotient explodes


def test_a_batch_norm_counts_as_part_of_the_convolution_before_it():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, 3), shaken(nn.BatchNorm2d(5))
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)]
    apart = freeze(nn.Sequential(convolution, norm, *head))
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(convolution.eval(), norm.eval())
    one = freeze(nn.Sequential(folded, *head))
    for composite in COMPOSITES:
        maps = [LRP(explanandum, composite)(images(), torch.tensor([0, 1])) for explanandum in (apart, one)]
        torch.testing.assert_close(*maps)


def test_an_image_that_is_padded_first_is_still_the_image():
    torch.manual_seed(0)
    within, apart = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3)
    apart.load_state_dict(within.state_dict())
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)]
    models = nn.Sequential(within, *head), nn.Sequential(nn.ZeroPad2d(1), apart, *head)
    for composite in COMPOSITES:
        maps = [LRP(freeze(model), composite)(images(), torch.tensor([0, 1])) for model in models]
        torch.testing.assert_close(*maps)


def test_a_batch_norm_behind_an_activation_in_place_is_on_its_own():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, 3), shaken(nn.BatchNorm2d(5))
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)]
    maps = [
        LRP(freeze(nn.Sequential(convolution, nn.ReLU(inplace), norm, *head)))(images(), torch.tensor([0, 1]))
        for inplace in (False, True)
    ]
    torch.testing.assert_close(*maps)


def test_a_blank_image_gives_a_blank_map_where_there_are_no_biases():
    torch.manual_seed(0)
    assert not LRP(freeze(Residual()))(torch.zeros(1, 3, 32, 32), torch.tensor([0])).any()


def test_a_linear_classifier_of_the_pixels_gives_image_times_weights():
    model, image = FlatNet(), images(1)
    expected = (image * model.linear.weight[1].view(3, 32, 32)).sum(dim=1).detach()
    torch.testing.assert_close(LRP(freeze(model))(image, torch.tensor([1])), expected, rtol=1e-4, atol=1e-6)


class Step(nn.Module):
    """A classifier with one step that is given as a function of its features [B,4,H,W]."""

    def __init__(self, step):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)
        self.step = step
        self.linear = nn.Linear(4, 3)

    def forward(self, image):
        return self.linear(self.step(self.features(image)).mean(dim=(2, 3)))


def attention(features):
    tokens = features.flatten(2).mT[:, None]
    return F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0].mT[..., None]


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (attention, "'scaled_dot_product_attention' of two values that both depend on the image"),
        (lambda features: F.layer_norm(features, features.shape[1:]), "'layer_norm'"),
        (lambda features: features * features, "'mul' of two values that both depend on the image"),
        (lambda features: features / features.exp(), "'exp'"),
        (lambda features: torch.div(2.0 * features, features), "'div' of two values that both depend on the image"),
        (lambda features: 1 / features, "'reciprocal'|'rdiv'|'rtruediv'"),
        (lambda features: F.batch_norm(features, None, None, training=True), "'batch_norm with the statistics of"),
        (lambda features: features.sigmoid(), "only through gates"),
        (lambda features: features.detach(), "do not depend on the image"),
    ],
)
def test_what_has_no_rule_is_named(step, named):
    with pytest.raises(CannotExplain, match=named):
        LRP(freeze(Step(step)))(images(), torch.tensor([0, 1]))


@pytest.mark.parametrize("architecture", ["timm:test_vit", "timm:test_convnext"])
def test_transformers_and_convnext_are_refused(architecture):
    explanandum = built(architecture, 160)
    with pytest.raises(CannotExplain, match="attention and LayerNorm have none"):
        LRP(explanandum)(images(1, 160), torch.tensor([0]))


def test_weights_that_are_stored_in_bf16_are_computed_with_in_single_precision():
    rounded, stored, image, target = built("resnet18"), built("resnet18"), images(2, 64), torch.tensor([0, 2])
    for module in rounded.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16).float()
    stored.store_in(torch.bfloat16)
    expected = LRP(rounded)(image, target)
    torch.testing.assert_close(LRP(stored)(image, target), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(CannotExplain, match=r"ask it under torch\.no_grad"):
        LRP(freeze(SmallNet()))(images(), torch.tensor([0, 1]))
