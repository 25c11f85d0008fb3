"""The contract that every method of METHODS fulfils, and closed forms of single methods.

B images, C classes, N maps, H×W pixels.
"""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import nn
from toy_models import BreakableNet, BrokenError, FlatNet, GapNet, SmallNet, WindowNet, card, freeze, state_of

from explainer.attribution import METHODS, CannotExplain, GradCAM, method_class
from explainer.attribution.base import SharingMethod
from explainer.attribution.spec import MethodSpec, parse_method
from explainer.classifiers import build_classifier
from explainer.explanandum import Explanandum
from explainer.network import Explainer

QUICK = {
    "pami_window": {"radius": 4, "step": 3},
    "rise": {"masks": 200},
    "occlusion": {"window": 8, "step": 4},
    "smooth_grad": {"samples": 8},
    "integrated_gradients": {"steps": 8},
    "xrai": {"segments": "slic", "steps": 4},
    "i_gos": {"iterations": 3, "steps": 3, "l1": 0.1, "tv": 0.2},
    "igos_pp": {"iterations": 2, "steps": 3, "l1": 0.1, "tv": 0.2},
    "mask": {"iterations": 6},
    "sigcam": {"iterations": 2, "l1": 0.1, "tv": 0.2},
    "aop": {"optimiser": "mask:iterations=6"},
    "extremal": {"areas": "0.05 0.2", "iterations": 20},
}
"""Options that make a slow method quick enough for the contract, by name; e.g. few random masks."""

EVERY = pytest.mark.parametrize("name", METHODS)

# Two rows of every table are there because they never look at the classifier.
ASKING = pytest.mark.parametrize("name", [name for name in METHODS if name not in ("random", "center")])
TARGETED = pytest.mark.parametrize("name", [name for name in METHODS if name != "center"])


class BreakableExplainer(Explainer):
    """An Explainer of the smallest encoder that can be told to fail."""

    def __init__(self, classes=3):
        with torch.random.fork_rng():
            torch.manual_seed(2)
            super().__init__(classes, "tu-test_resnet", output_stride=16)
        self.broken = False

    def forward(self, image):
        logits = super().forward(image)
        if self.broken:
            raise BrokenError
        return logits


class Case:
    """A method on a small classifier, and all that it must leave alone."""

    def __init__(self, name, model=None, options=None, **changes):
        self.model = model or BreakableNet()
        self.explanandum = freeze(self.model, **changes)
        self.network = BreakableExplainer(self.explanandum.num_classes)
        self.method = MethodSpec(name, options or QUICK.get(name, {})).build(self.explanandum, network=self.network)

    def __call__(self, image, target):
        torch.manual_seed(11)  # a method that draws random numbers repeats itself
        return self.method(image, torch.as_tensor(target))

    def break_down(self):
        self.model.breaks.broken = self.network.broken = True

    def state(self):
        return [*state_of(self.explanandum, self.network), random_states()]


def random_states():
    """Of every generator that a method might draw from."""
    _, keys, *rest = np.random.get_state()
    return [torch.get_rng_state().tolist(), keys.tolist(), rest, random.getstate()]


def images(count=3, height=32, width=32):
    """Noise, the same every time."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(count))


def assert_is_a_map(maps, image):
    assert maps.shape == (len(image), *image.shape[-2:])
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert not maps.requires_grad


@EVERY
@pytest.mark.parametrize("output", ["multi_label", "single_label"])
def test_gives_one_finite_float32_map_per_image(name, output):
    image = images()
    assert_is_a_map(Case(name, output=output)(image, [0, 2, 1]), image)


@EVERY
@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e3])
def test_flat_images_give_finite_maps(name, value):
    image = torch.full((2, 3, 32, 32), value)
    assert_is_a_map(Case(name)(image, [0, 1]), image)


@EVERY
def test_a_classifier_that_sees_nothing_gives_finite_maps(name):
    model = BreakableNet()
    nn.init.zeros_(model.logits.weight)
    assert_is_a_map(Case(name, model)(images(), [0, 1, 2]), images())


@EVERY
def test_a_batch_gives_what_its_images_give_one_by_one(name):
    case, image, target = Case(name), images(4), [2, 0, 1, 0]
    alone = torch.cat([case(image[index : index + 1], target[index : index + 1]) for index in range(4)])
    torch.testing.assert_close(case(image, target), alone, rtol=1e-4, atol=1e-6)


@TARGETED
def test_each_image_is_asked_about_its_own_target(name):
    case, image = Case(name), images(1).expand(3, -1, -1, -1)
    maps = case(image, [0, 1, 2])
    for target in range(3):
        torch.testing.assert_close(maps[target], case(image, [target] * 3)[target], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(maps[0], maps[1])


@EVERY
def test_the_same_seed_gives_the_same_map(name):
    case = Case(name)
    assert torch.equal(case(images(), [0, 1, 2]), case(images(), [0, 1, 2]))


@EVERY
def test_takes_images_that_are_not_square(name):
    image = images(2, 24, 40)
    assert_is_a_map(Case(name)(image, [0, 1]), image)


@EVERY
def test_memory_layout_of_the_image_does_not_matter(name):
    case, image = Case(name), images()
    expected = case(image, [0, 1, 2])
    strided = image.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(case(strided, [0, 1, 2]), expected, rtol=1e-4, atol=1e-6)


@EVERY
def test_leaves_image_and_target_alone(name):
    case, image, target = Case(name), images().requires_grad_(), torch.tensor([0, 1, 2])
    before = image.detach().clone()
    case(image, target)
    assert torch.equal(image, before)
    assert image.grad is None
    assert target.tolist() == [0, 1, 2]


def with_traces(case):
    """What a user may have set that a careless method would lose: gradients, one module's mode, a hook, a generator."""
    for parameter in (*case.explanandum.parameters(), *case.network.parameters()):
        parameter.grad = torch.rand_like(parameter)
    case.network.train()
    next(module for module in case.network.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    case.model.features.register_forward_hook(lambda *_: None)
    return case


@EVERY
def test_leaves_no_trace(name):
    case = with_traces(Case(name))
    before = case.state()
    torch_state = torch.get_rng_state()
    case.method(images(), torch.tensor([0, 1, 2]))
    torch.set_rng_state(torch_state)  # drawing from the global generator is allowed, reseeding it is not
    assert case.state() == before


@ASKING
def test_leaves_no_trace_after_an_error_inside_the_model(name):
    case = with_traces(Case(name))
    case.break_down()
    before = case.state()
    torch_state = torch.get_rng_state()
    with pytest.raises(BrokenError):
        case.method(images(), torch.tensor([0, 1, 2]))
    torch.set_rng_state(torch_state)
    assert case.state() == before


@EVERY
def test_dropout_and_batch_statistics_are_off_whatever_the_mode(name):
    case = Case(name)
    expected = case(images(), [0, 1, 2])
    case.network.train()
    case.explanandum.model.train()
    assert torch.equal(case(images(), [0, 1, 2]), expected)


@EVERY
def test_works_where_gradients_are_switched_off(name):
    case = Case(name)
    expected = case(images(), [0, 1, 2])
    with torch.no_grad():
        assert torch.equal(case(images(), [0, 1, 2]), expected)
        assert not torch.is_grad_enabled()


@EVERY
def test_works_under_autocast(name):
    image = images()
    with torch.autocast("cpu", torch.bfloat16):
        maps = Case(name)(image, [0, 1, 2])
    assert_is_a_map(maps, image)


@EVERY
def test_works_with_weights_stored_in_bf16(name):
    case, image = Case(name), images()
    case.explanandum.store_in(torch.bfloat16)
    assert_is_a_map(case(image, [0, 1, 2]), image)


@EVERY
def test_all_present_classes_at_once_are_what_they_are_one_by_one(name):
    case, image = Case(name), images(4)
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    torch.manual_seed(11)
    maps, image_index, target = case.method.present_class_maps(image, labels)
    assert list(zip(image_index.tolist(), target.tolist(), strict=True)) == [
        (0, 0), (0, 2), (2, 0), (2, 1), (2, 2), (3, 1),
    ]  # fmt: skip
    assert_is_a_map(maps, image[image_index])
    for single, index, label in zip(maps, image_index.tolist(), target.tolist(), strict=True):
        expected = case(image[index : index + 1], [label])[0]
        # A line search passes rounding on magnified, hence not 1e-6.
        torch.testing.assert_close(single, expected, rtol=1e-4, atol=2e-5)


@EVERY
def test_a_batch_without_any_class_gives_no_map(name):
    maps, image_index, target = Case(name).method.present_class_maps(images(), torch.zeros(3, 3))
    assert maps.shape == (0, 32, 32)
    assert maps.dtype == torch.float32
    assert len(image_index) == len(target) == 0


@EVERY
def test_an_empty_batch_gives_no_map(name):
    method, none = Case(name).method, images()[:0]
    assert method(none, torch.zeros(0, dtype=torch.long)).shape == (0, 32, 32)
    maps, image_index, target = method.present_class_maps(none, torch.zeros(0, 3))
    assert maps.shape == (0, 32, 32)
    assert len(image_index) == len(target) == 0


@EVERY
def test_a_mask_lies_in_the_unit_range(name):
    case = Case(name)
    if not case.method.unit_range:
        pytest.skip("gives raw values")
    maps = case(images(), [0, 1, 2])
    assert maps.min() >= 0
    assert maps.max() <= 1


@EVERY
def test_networks_of_its_own_are_named(name):
    # Lightning moves to the device what is named here; the explanandum moves by itself.
    case = Case(name)
    own = (case.network,) if name == "explainer" else ()
    assert [id(module) for module in case.method.modules] == [id(module) for module in own]


# A learned mask knows nothing of the classifier at hand; every other method must find what it looks at.
@EVERY
@pytest.mark.parametrize("target", [[0, 3], [0, -1], [0], [0, 1, 2], [0.0, 1.0]])
def test_targets_that_are_no_classes_are_refused_with_the_number_of_classes(name, target):
    with pytest.raises(ValueError, match=r"targets are \[.*\]; give .* each of 2 images, .*from 0 to 2, .* 3 classes"):
        Case(name).method(images(2), torch.tensor(target))


def test_labels_may_lie_on_another_device_than_the_images():
    class Devices(SharingMethod):
        def _maps(self, image, image_index, target):
            assert image.device == image_index.device == target.device
            return image.sum(dim=1)[image_index]

    maps, image_index, target = Devices(freeze(SmallNet())).present_class_maps(
        torch.zeros(2, 3, 4, 4, device="meta"), torch.tensor([[1, 0, 1], [0, 0, 0]])
    )
    assert maps.device == image_index.device == target.device == torch.device("meta")
    assert maps.shape == (2, 4, 4)


class Normalising(SmallNet):
    """A classifier that changes what it is given."""

    def forward(self, image):
        image -= 0.5
        return super().forward(image)


@EVERY
def test_a_classifier_that_changes_its_input_is_explained_and_the_image_stays(name):
    case, image = Case(name, Normalising()), images(2)
    before = image.clone()
    assert case(image, [0, 1]).isfinite().all()
    assert torch.equal(image, before)


POST_HOC = pytest.mark.parametrize("name", [name for name in METHODS if name not in ("explainer", "random", "center")])


@POST_HOC
def test_the_maximum_lies_in_the_only_square_that_the_class_reads(name):
    model = WindowNet()
    # All squares are brighter than the rest, so that blurring takes away from what the class reads.
    image = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + model.windows.windows.sum(dim=0)
    options = {"masks": 3000} if name == "rise" else None  # fewer leave more noise than signal
    if name == "extremal":  # its area's weight is made for logits of some size
        model.scale.data.mul_(30)
        options = {"areas": "0.05 0.2", "iterations": 60, "learning_rate": 0.1}
    if name == "guided_backprop":
        model.windows = nn.Sequential(model.windows, nn.ReLU())  # there must be one to guide
    maps = Case(name, model, options, target_layer="windows")(image, [0, 1, 2])
    for single, corner in zip(maps, model.corners, strict=True):
        row, column = (single == single.max()).nonzero().float().mean(dim=0)  # a whole segment may have it
        assert corner <= row < corner + 8
        assert corner <= column < corner + 8


def test_grad_cam_of_a_gap_classifier_is_its_weighted_channels():
    model, image = GapNet(), images(3)
    target = torch.tensor([0, 1, 2])
    channels = model.features(image)
    expected = torch.einsum("bk,bkhw->bhw", model.linear.weight[target], channels).relu() / (32 * 32)
    maps = GradCAM(freeze(model))(image, target)
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-5, atol=1e-8)
    assert maps.max() > 0


def test_grad_cam_of_a_window_classifier_is_the_brightness_in_the_window():
    model, image = WindowNet(), images(3).abs()
    expected = (image.mean(dim=1) * model.windows.windows) / (8 * 8)
    torch.testing.assert_close(GradCAM(freeze(model))(image, torch.tensor([0, 1, 2])), expected)


@pytest.mark.parametrize(
    ("architecture", "layer"), [("resnet18", "layer4"), ("resnet18", "layer3"), ("vgg11", "features")]
)
def test_grad_cam_equals_captums(architecture, layer):
    torch.manual_seed(4)
    model, _ = build_classifier(architecture, 3, "none", hidden=16)
    explanandum = Explanandum(model, card(size=64, target_layer=layer))
    image, target = images(4, 64, 64), torch.tensor([0, 1, 2, 0])
    attribution = LayerGradCam(explanandum, model.get_submodule(layer))
    cam = attribution.attribute(image, target, relu_attributions=True).detach()
    expected = F.interpolate(cam, (64, 64), mode="bilinear", align_corners=False)[:, 0]
    maps = GradCAM(explanandum)(image, target)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
    assert expected.max() > 0


def test_grad_cam_reads_another_layer_if_told():
    explanandum = freeze(SmallNet())
    deep, early = GradCAM(explanandum), GradCAM(explanandum, target_layer="features.3")
    assert (deep.target_layer, early.target_layer) == ("features", "features.3")
    assert not torch.allclose(deep(images(1), torch.tensor([0])), early(images(1), torch.tensor([0])))


def test_grad_cam_refuses_what_gives_no_map():
    with pytest.raises(CannotExplain, match="name a target layer"):
        GradCAM(freeze(FlatNet()))
    for layer, message in (("head", r"'head' gives \[3, 16\]"), ("nothing", "Unknown target layer 'nothing'")):
        with pytest.raises(CannotExplain, match=message):
            GradCAM(freeze(SmallNet()), target_layer=layer)(images(), torch.tensor([0, 1, 2]))


def test_the_learned_method_gives_the_networks_class_masks():
    case, image = Case("explainer"), images(2)
    with torch.no_grad():
        masks = case.network.eval()(image).sigmoid()
    assert torch.equal(case(image, [2, 0]), torch.stack([masks[0, 2], masks[1, 0]]))


def test_the_learned_method_refuses_another_number_of_classes():
    with pytest.raises(ValueError, match="4 classes, the explanandum 3"):
        METHODS["explainer"](freeze(SmallNet()), network=BreakableExplainer(4))


def test_unknown_method_lists_the_known():
    for ask in (method_class, parse_method):
        with pytest.raises(ValueError, match=r"Unknown method 'gradcam'; choose one of: explainer, grad_cam"):
            ask("gradcam")


def test_a_method_is_named_with_its_options():
    assert parse_method("explainer") == MethodSpec("explainer", {})
    spec = parse_method("grad_cam:target_layer=features.3")
    assert spec == MethodSpec("grad_cam", {"target_layer": "features.3"})
    assert spec.build(freeze(SmallNet()), network=None).target_layer == "features.3"


def test_a_comma_within_brackets_parts_no_options():
    spec = parse_method("pami_window:radius=[20,40.5],step=3")
    assert spec.options == {"radius": [20, 40.5], "step": 3}
    spec = parse_method("aop:base=(rise:masks=5,cells=3),theta=0.5")
    assert spec.options == {"base": "rise:masks=5,cells=3", "theta": 0.5}
    assert spec.build(freeze(SmallNet())).base.masks == 5


def test_options_come_before_resources():
    assert parse_method("pami:workers=3").build(freeze(SmallNet()), workers=1).segmenter.workers == 3
    assert parse_method("pami").build(freeze(SmallNet()), workers=1).segmenter.workers == 1


@pytest.mark.parametrize("text", ["grad_cam:layer=features", "grad_cam:target_layer", "explainer:network=x"])
def test_an_unknown_option_of_a_method_lists_the_known(text):
    with pytest.raises(ValueError, match=r"Unknown option '.*' of method '.*'; write option=value"):
        parse_method(text)


WRONG = [
    *("rise:masks=0", "rise:cells=0", "rise:probability=0", "rise:probability=1.5", "rise:chunk_size=big"),
    *("group_cam:groups=2.5", "group_cam:sigma=0", "group_cam:kernel_size=4", "group_cam:theta=none"),
    *("pami_window:radius=-1", "pami_window:radius=4 8", "pami_window:step=0", "pami_window:step=2.5"),
    *("pami_window:shape=oval", "pami_window:aspect=0", "pami:masking=grey", "pami:workers=-1"),
    *("score_cam:weighting=max", "score_cam:chunk_size=2.5", "i_gos:score=softmax", "i_gos:steps=0"),
    *("occlusion:window=0", "occlusion:step=0", "occlusion:step=5,window=4", "occlusion:chunk_size=0"),
    *("smooth_grad:samples=0", "smooth_grad:noise=0", "smooth_grad:chunk_size=some", "full_grad:rescale=image"),
    *("integrated_gradients:steps=1.5", "integrated_gradients:baseline=white", "integrated_gradients:chunk_size=-1"),
    *("lrp:composite=gamma", "lrp:epsilon=0", "xrai:segments=seeds", "xrai:steps=0", "xrai:baselines=[0,2]"),
    *("xrai:baselines=[]", "xrai:chunk_size=0"),
    *("smooth_grad:seed=1.5", "rise:seed=x", "random:seed=-1", "mask:seed=1.5", "i_gos:seed=x", "igos_pp:seed=1.5"),
    *("mask:learning_rate=fast", "extremal:sigma=0", "igos_pp:edge_sigma=0", "sigcam:iterations=-1"),
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_option_is_an_error_when_the_method_is_made(text):
    option = text.partition(":")[2].partition("=")[0]
    with pytest.raises(ValueError, match=rf"\b{option}\b.*(give|choose)"):
        parse_method(text).build(freeze(SmallNet()))


@EVERY
def test_every_name_is_snake_case_and_documented(name):
    assert name == name.lower().replace("-", "_")
    assert METHODS[name].__doc__
    assert METHODS[name].__call__.__doc__
