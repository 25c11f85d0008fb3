"""benchmarks/peers.py: other libraries solve the task that ours solves, so that their seconds can be compared.

A library that is not installed is skipped.
"""

import copy
import sys

import methods
import pytest
import torch
import torch.nn.functional as F
from adapter import NoPeer
from peers import PEERS
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from toy_models import FlatNet, SmallNet, freeze

from explainer.attribution.spec import parse_method
from explainer.classifiers import normalisation
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.metrics.similarity import rank_correlation
from explainer.passes import recorded, totals

SIZE = 96
TARGET = torch.tensor([0, 1])


class NarrowResNet(ResNet):
    """One block a stage, an eighth of the channels from the first stage on; BatchNorm as after training."""

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=3)
            self.fc = nn.Linear(64, 3)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.1)
                    module.running_var.uniform_(0.5, 1.5)
                    module.weight.data.uniform_(0.5, 1.5)
                    module.bias.data.normal_(std=0.1)

    def _make_layer(self, block, planes, *arguments, **options):
        return super()._make_layer(block, planes // 8, *arguments, **options)


@pytest.fixture(scope="module")
def explanandum():
    card = ClassifierCard("resnet10", ("cat", "dog", "hen"), SIZE, *normalisation("resnet18"))
    return Explanandum(NarrowResNet(), card)


def adapted(text, title, explanandum):
    """Our method, the other library's, and the model that it has been given."""
    method = parse_method(text).build(explanandum)
    model = copy.deepcopy(explanandum.model).requires_grad_(True)
    try:
        return method, PEERS[text.partition(":")[0]][title](method, model), model
    except ImportError as error:
        pytest.skip(str(error))


def photographs(explanandum, count=2):
    return methods.photographs(explanandum.card, count, "cpu").contiguous()


def likeness(ours, theirs):
    """The lower of two correlations of each pair of maps: of their values and of their ranks."""
    if theirs.shape != ours.shape:  # the library leaves them at the layer's size
        theirs = F.interpolate(theirs[:, None], ours.shape[-2:], mode="bilinear")[:, 0]
    values = [torch.corrcoef(torch.stack(pair).flatten(1))[0, 1] for pair in zip(ours, theirs, strict=True)]
    return torch.minimum(torch.stack(values), rank_correlation(ours, theirs))


EXACT = 0.999999
SAME_TASK = [
    ("grad_cam", "pytorch-grad-cam GradCAM", 0.9999),
    ("grad_cam", "torchcam GradCAM", 0.999),
    ("grad_cam", "captum LayerGradCam", EXACT),
    ("grad_cam:target_layer=layer3", "pytorch-grad-cam GradCAM", 0.9999),
    ("grad_cam:target_layer=layer3", "torchcam GradCAM", 0.999),
    ("grad_cam:target_layer=layer3", "captum LayerGradCam", EXACT),
    ("score_cam", "pytorch-grad-cam ScoreCAM", 0.99),
    ("score_cam", "torchcam ScoreCAM", 0.999),
    ("score_cam:target_layer=layer3", "torchcam ScoreCAM", 0.999),
    ("occlusion:window=40,step=20", "captum Occlusion", EXACT),
    ("occlusion:window=31,step=17,chunk_size=3", "captum Occlusion", EXACT),
    ("gradient", "captum Saliency", EXACT),
    ("guided_backprop", "captum GuidedBackprop", EXACT),
    ("smooth_grad:samples=5,noise=0.1,seed=3", "captum NoiseTunnel", 0.999),
    ("integrated_gradients:steps=5", "captum IntegratedGradients", EXACT),
    ("integrated_gradients:steps=7,baseline=mean,chunk_size=4", "captum IntegratedGradients", EXACT),
    ("full_grad:rescale=channel", "pytorch-grad-cam FullGrad", 0.999),
    ("lrp", "zennit LRP", EXACT),
    ("lrp:composite=epsilon_plus,epsilon=0.01", "zennit LRP", 0.9999),
]
"""Our method, theirs, and how alike the maps are: less where the other one is scaled or enlarged a little otherwise."""


@pytest.mark.parametrize(("text", "title", "least"), SAME_TASK)
def test_the_other_librarys_map_is_ours(text, title, least, explanandum):
    method, attribute, _ = adapted(text, title, explanandum)
    image = photographs(explanandum)
    ours = method(image, TARGET)
    with torch.random.fork_rng():
        torch.manual_seed(getattr(method, "seed", 0))
        theirs = attribute(image, TARGET)
    assert theirs.dtype == torch.float32
    assert not theirs.requires_grad
    compared = 1 if text.startswith("smooth_grad") else 2  # ours has the same draws for all images
    assert likeness(ours[:compared], theirs[:compared]).min() > least


@pytest.mark.parametrize("baselines", ["[0,1]", "0.5"])
def test_xrai_of_its_authors_is_ours_where_all_steps_give_the_same_integral(baselines):
    # Its steps lie at both ends of the way too; a segment that comes a turn earlier for that changes much of a map.
    card = ClassifierCard("linear", ("cat", "dog", "hen"), 32, *normalisation("resnet18"))
    explanandum = Explanandum(FlatNet(), card)
    method, attribute, model = adapted(f"xrai:steps=3,baselines={baselines}", "saliency XRAI", explanandum)
    image = photographs(explanandum, 1)
    with recorded(explanandum.model) as ours:
        expected = method(image, TARGET[:1])
    with recorded(model) as theirs:
        found = attribute(image, TARGET[:1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert totals(theirs) == totals(ours)


def test_xrai_as_it_comes_takes_a_hundred_steps_from_two_baselines():
    explanandum = freeze(SmallNet())
    _, attribute, model = adapted("xrai:steps=3", "saliency XRAI, as it comes", explanandum)
    with recorded(model) as passes:
        attribute(photographs(explanandum, 1), TARGET[:1])
    assert totals(passes) == (200, 200)


MANY_PASSES = [
    ("occlusion:window=40,step=20,chunk_size=4", "captum Occlusion"),
    ("smooth_grad:samples=7,chunk_size=3", "captum NoiseTunnel"),
    ("integrated_gradients:steps=7,chunk_size=4", "captum IntegratedGradients"),
]


@pytest.mark.parametrize(("text", "title"), MANY_PASSES)
def test_the_other_library_asks_the_classifier_as_often_and_of_no_more_images_at_once(text, title, explanandum):
    method, attribute, model = adapted(text, title, explanandum)
    image = photographs(explanandum)
    with recorded(explanandum.model) as ours:
        method(image, TARGET)
    with recorded(model) as theirs:
        attribute(image, TARGET)
    assert totals(theirs) == totals(ours)
    assert max(one.images for one in theirs) <= method.chunk_size


@pytest.mark.parametrize("text", ["grad_cam", "full_grad:rescale=channel", "score_cam"])
def test_pytorch_grad_cam_leaves_nothing_in_the_model_that_collects_later_passes(text, explanandum):
    name = text.partition(":")[0]
    (title,) = (title for title in PEERS[name] if title.startswith("pytorch-grad-cam"))
    _, attribute, model = adapted(text, title, explanandum)
    attribute(photographs(explanandum, 1), TARGET[:1])
    assert not any(module._forward_hooks for module in model.modules())


WITHOUT_PEER = [
    ("score_cam:weighting=increase", "softmax only"),
    ("full_grad", "full_grad:rescale=channel"),
    ("lrp:composite=epsilon", "no composite 'epsilon'"),
    ("xrai:segments=slic", "Felzenszwalb's only"),
]


@pytest.mark.parametrize(("text", "reason"), WITHOUT_PEER)
def test_options_that_a_library_does_not_have_are_refused(text, reason, explanandum):
    for title in PEERS[text.partition(":")[0]]:
        with pytest.raises(NoPeer, match=reason):
            adapted(text, title, explanandum)


def test_zennit_is_left_out_where_it_can_not_merge_batch_norm():
    with pytest.raises(NoPeer, match="VGGs and ResNets only"):
        adapted("lrp", "zennit LRP", freeze(SmallNet()))


def test_what_is_not_installed_or_not_the_same_is_left_out_and_said(explanandum, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    image = photographs(explanandum, 1)
    for text in ("gradient", "full_grad"):
        name = text.partition(":")[0]
        assert not methods.peers(name, parse_method(text).build(explanandum), image, TARGET[:1])
    said = capsys.readouterr().out
    assert "captum Saliency is left out: " in said
    assert "pytorch-grad-cam FullGrad is left out: " in said
