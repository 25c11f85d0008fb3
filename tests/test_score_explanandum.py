"""A score function in the place of a classifier: methods that need outputs only see no difference.

B images, T scores of an image, H×W pixels.
"""

import pytest
import torch
from torch import nn
from toy_models import SmallNet, card, freeze

from explainer.attribution import METHODS, CannotExplain
from explainer.score_explanandum import ScoreExplanandum

OPTIONS = {
    "pami": {"second_run": False},
    "pami_window": {"radius": 4, "step": 3},
    "rise": {"masks": 40},
    "occlusion": {"window": 8, "step": 4},
}
IMAGE = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def test_every_method_that_needs_outputs_only_is_tried():
    assert set(OPTIONS) == {name for name, method in METHODS.items() if method.needs == "outputs only"}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_probabilities_as_a_score_give_the_maps_of_the_classifier(name):
    classifier = freeze(SmallNet())
    scored = ScoreExplanandum(lambda image: classifier.probabilities(classifier(image)), classifier.card.classes)
    labels = torch.tensor([[1, 0, 1], [0, 1, 1]])
    expected = METHODS[name](classifier, **OPTIONS[name]).present_class_maps(IMAGE, labels)
    found = METHODS[name](scored, **OPTIONS[name]).present_class_maps(IMAGE, labels)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_single_number_for_each_image_is_the_only_target():
    def red(image):
        return image[:, 0, 4:8, 4:8].mean(dim=(1, 2))

    method = METHODS["pami_window"](ScoreExplanandum(red, ["red"]), radius=3, step=1, masking="black")
    (found,) = method(IMAGE[:1], torch.tensor([0]))
    assert found[4:8, 4:8].min() > 0
    assert not found[12:, 12:].any()


def test_scores_need_not_be_probabilities():
    brightness = ScoreExplanandum(lambda image: -100 * image.mean(dim=(1, 2, 3)), ["darkness"])
    assert METHODS["rise"](brightness, masks=20)(IMAGE, torch.tensor([0, 0])).max() < 0


def test_statistics_say_what_black_is():
    asked = []
    scored = ScoreExplanandum(lambda image: asked.append(image) or image[:, 0, 0, 0], ["any"], (0.5,) * 3, (0.25,) * 3)
    METHODS["pami_window"](scored, radius=2, step=30, masking="black")(IMAGE[:1], torch.tensor([0]))
    assert asked[0].min() == -2


def test_the_network_behind_a_score_stays_as_it_is():
    model = SmallNet().eval()
    model.head.train()
    scored = ScoreExplanandum(lambda image: model(image)[:, 0], ["first"])
    METHODS["rise"](scored, masks=4)(IMAGE, torch.tensor([0, 0]))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.head.training and not model.features.training
    of_a_module = ScoreExplanandum(model, card().classes)
    assert not list(of_a_module.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradients_pass_through_a_score_that_has_some():
    scored = ScoreExplanandum(lambda image: (image[:, 1] ** 2).sum(dim=(1, 2)), ["green"])
    found = METHODS["gradient"](scored)(IMAGE, torch.tensor([0, 0]))
    torch.testing.assert_close(found, 2 * IMAGE[:, 1])


class Scaled(SmallNet):
    """A SmallNet with numbers of its own that multiply and are added, outside of any layer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8)[:, None, None])

    def forward(self, image):
        features = 2 * self.features(1 - image) * self.scale + self.scale
        return self.logits(self.head(self.pool(features).flatten(1)))


@pytest.mark.parametrize("name", ["full_grad", "lrp", "guided_backprop"])
def test_a_network_behind_a_score_need_not_be_frozen(name):
    model = Scaled().eval()
    scored = ScoreExplanandum(lambda image: model(image)[:, :1], ["first"])
    target = torch.tensor([0, 0])
    found = METHODS[name](scored)(IMAGE, target)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(found, METHODS[name](freeze(Scaled()))(IMAGE, target), rtol=1e-4, atol=1e-5)


def test_a_network_that_is_not_frozen_is_refused_for_the_right_reasons_only():
    model = SmallNet().eval()
    curved = ScoreExplanandum(lambda image: model(image).tanh()[:, :1], ["first"])
    with pytest.raises(CannotExplain, match="because of TanhBackward0; use"):
        METHODS["full_grad"](curved)(IMAGE, torch.tensor([0, 0]))
    detached = ScoreExplanandum(lambda image: model(image.detach())[:, :1], ["first"])
    for name, message in (("full_grad", "no gradient with respect to"), ("lrp", "do not depend on the image")):
        with pytest.raises(CannotExplain, match=message):
            METHODS[name](detached)(IMAGE, torch.tensor([0, 0]))


@pytest.mark.parametrize("form", [torch.Tensor.tolist, torch.Tensor.numpy])
def test_lists_and_arrays_are_scores_too(form):
    asked = ScoreExplanandum(lambda image: image.mean(dim=(1, 2, 3)), ["brightness"])
    told = ScoreExplanandum(lambda image: form(image.mean(dim=(1, 2, 3))), ["brightness"])
    methods = [METHODS["rise"](scored, masks=10) for scored in (asked, told)]
    torch.testing.assert_close(*(method(IMAGE, torch.tensor([0, 0])) for method in methods))


@pytest.mark.parametrize("names", ["dog", [], [1]])
def test_names_are_a_list_of_words(names):
    with pytest.raises(ValueError, match=r"names are .*; give a list of words, one for each score, such as \['dog'\]"):
        ScoreExplanandum(lambda image: image.mean(dim=(1, 2, 3)), names)


@pytest.mark.parametrize(
    "score", [lambda image: image, lambda image: torch.ones(len(image), 3), lambda image: torch.ones(5)]
)
def test_scores_of_another_shape_are_refused(score):
    with pytest.raises(ValueError, match=r"gave numbers of shape \[.*\] for 2 images; it must give \[2,2\]"):
        ScoreExplanandum(score, ["one", "two"])(IMAGE)


@pytest.mark.parametrize("name", ["grad_cam", "score_cam"])
def test_methods_that_read_a_layer_say_what_to_take_instead(name):
    with pytest.raises(CannotExplain, match="shows no layers; take a method that needs outputs only"):
        METHODS[name](ScoreExplanandum(lambda image: image.mean(dim=(1, 2, 3)), ["mean"]))(IMAGE, torch.tensor([0, 0]))


def test_a_function_has_no_fingerprint_under_which_maps_could_be_kept():
    with pytest.raises(TypeError, match="has no fingerprint"):
        _ = ScoreExplanandum(lambda image: image, ["any"]).fingerprint
