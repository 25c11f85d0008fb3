"""An explanandum stays what it was, knows what its outputs mean, and comes back from a file as it was."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from toy_models import CLASSES, FlatNet, GapNet, SmallNet, card, freeze, state_of

from explainer.capture import CannotExplain, captured_activation
from explainer.classifiers import build_classifier
from explainer.explanandum import Explanandum, load_classifier, open_explanandum
from explainer.weights import save_weights

IMAGE = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


class Parent(nn.Module):
    """A trained network in front of a frozen classifier, as the Explainer is."""

    def __init__(self):
        super().__init__()
        self.explanandum = freeze(SmallNet())
        self.trained = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, image):
        return self.explanandum(self.trained(image))


def build(architecture, size=64, **options):
    """A random classifier with a card that `Explanandum.load` can rebuild it from."""
    model, _ = build_classifier(architecture, 3, "none", hidden=8, image_size=size)
    return Explanandum(model, card(architecture, size=size, hidden=8, **options))


@pytest.mark.parametrize(
    "switch",
    [
        lambda parent: parent.train(),
        lambda parent: parent.explanandum.train(),
        lambda parent: parent.explanandum.train(True),
        lambda parent: parent.explanandum.model.train(),
        lambda parent: [module.train() for module in parent.modules()],
    ],
    ids=["parent", "itself", "positional", "inner_model", "every_module"],
)
def test_dropout_and_batch_statistics_stay_off_whoever_calls_train(switch):
    parent = Parent()
    expected = parent.explanandum(IMAGE)
    before = {name: value.clone() for name, value in parent.explanandum.state_dict().items()}
    switch(parent)
    assert torch.equal(parent.explanandum(IMAGE), expected)
    torch.testing.assert_close(parent.explanandum(IMAGE[:1]), expected[:1])  # BatchNorm in train mode mixes images
    assert all(torch.equal(value, before[name]) for name, value in parent.explanandum.state_dict().items())
    assert not any(module.training for module in parent.explanandum.modules())


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_training_a_parent_changes_not_a_bit_of_it(optimizer):
    parent = Parent().train()
    before = state_of(parent.explanandum)
    trained = copy.deepcopy(parent.trained.state_dict())
    steps = optimizer(parent.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        parent.train()
        parent(IMAGE).square().mean().backward()
        steps.step()
        steps.zero_grad()
    assert state_of(parent.explanandum) == before
    assert any(not torch.equal(value, trained[name]) for name, value in parent.trained.state_dict().items())


def test_gradients_reach_the_image_but_no_parameter():
    explanandum, image = freeze(SmallNet()), IMAGE.clone().requires_grad_()
    explanandum(image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in explanandum.parameters())


def test_probabilities_follow_the_output_kind():
    logits = torch.tensor([[0.0, 1.0, -2.0]])
    assert torch.equal(freeze(SmallNet()).probabilities(logits), logits.sigmoid())
    single = freeze(SmallNet(), output="single_label")
    assert torch.equal(single.probabilities(logits), logits.softmax(dim=1))
    assert single.probabilities(logits.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [
        ("vgg16", "features"),
        ("resnet50", "layer4"),
        ("densenet121", "features"),
        ("swin_t", "permute"),
        ("timm:test_resnet", "layer4"),
        ("timm:test_vit", "blocks.5.norm1"),  # behind it no token but the class token counts
    ],
)
def test_target_layer_is_the_last_that_gives_a_map(architecture, layer):
    assert build(architecture).target_layer == layer


def test_target_layer_of_vgg_gives_the_last_pooling():
    explanandum = build("vgg16")
    image = torch.randn(2, 3, 64, 64)
    activations = []
    for layer in ("features", "features.30"):
        with captured_activation(explanandum.model, layer) as captured:
            explanandum(image)
        activations.append(captured.value)
    assert isinstance(explanandum.model.get_submodule("features.30"), nn.MaxPool2d)
    assert torch.equal(*activations)


def test_in_place_relu_after_densenets_target_layer_does_not_reach_the_captured_value():
    explanandum = build("densenet121")
    with captured_activation(explanandum.model, "features") as captured:
        explanandum(torch.randn(1, 3, 64, 64))
    assert (captured.value < 0).any()


def test_a_target_layer_can_be_named():
    assert freeze(SmallNet(), target_layer="features.3").target_layer == "features.3"


def test_finding_the_target_layer_leaves_no_trace():
    explanandum = freeze(SmallNet())
    before = state_of(explanandum.model)
    assert explanandum.target_layer == "features"
    assert state_of(explanandum.model) == before


def test_a_model_without_maps_says_so():
    with pytest.raises(CannotExplain, match="name a target layer"):
        _ = freeze(FlatNet()).target_layer


def test_fingerprint_changes_with_any_weight_and_statistic():
    seen = {freeze(SmallNet()).fingerprint}
    names = list(SmallNet().state_dict())
    for name in names:
        model = SmallNet()
        values = model.state_dict()[name].view(-1)  # shares the model's memory
        values[0] = values[0] + 1e-3 if values.is_floating_point() else values[0] + 1
        seen.add(freeze(model).fingerprint)
    assert len(seen) == len(names) + 1


def test_fingerprint_changes_with_preprocessing_and_meaning():
    changes = [{}, {"size": 64}, {"output": "single_label"}, {"classes": ("cat", "hen", "dog")}]
    prints = [freeze(SmallNet(), **change).fingerprint for change in changes]
    shifted = card()
    for name in ("mean", "std"):
        moved = type(shifted)(**{**vars(shifted), name: (0.5, 0.5, 0.5)})
        prints.append(Explanandum(SmallNet(), moved).fingerprint)
    assert len(set(prints)) == len(prints)


def test_fingerprint_does_not_change_with_anything_else():
    explanandum = freeze(SmallNet())
    expected = explanandum.fingerprint
    assert len(expected) == 16
    explanandum.train()
    explanandum(IMAGE)
    assert explanandum.fingerprint == expected
    assert explanandum.to(memory_format=torch.channels_last).fingerprint == expected
    assert copy.deepcopy(explanandum).fingerprint == expected


def test_fingerprint_is_the_same_in_another_process():
    program = "from toy_models import SmallNet, freeze; print(freeze(SmallNet()).fingerprint)"
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == freeze(SmallNet()).fingerprint


def test_fingerprint_survives_the_rounding_of_store_in_but_not_a_change_after_it():
    explanandum = freeze(SmallNet())
    before = explanandum.fingerprint
    assert explanandum.store_in(torch.bfloat16).fingerprint == before
    assert explanandum.store_in(torch.bfloat16).fingerprint == before
    assert copy.deepcopy(explanandum).fingerprint == before
    explanandum.model.logits.weight.data.zero_()
    assert explanandum.fingerprint != before


@pytest.mark.parametrize("architecture", ["resnet18", "timm:test_nfnet", "timm:test_vit", "timm:test_convnext"])
def test_store_in_computes_what_autocast_computes(architecture):
    explanandum, image = build(architecture), torch.randn(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = explanandum(image)
    explanandum.store_in(torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(explanandum(image), expected)
    assert explanandum.target_layer  # its forward pass runs under autocast too


def test_store_in_lets_gradients_reach_a_float32_image():
    image = IMAGE.clone().requires_grad_()
    freeze(SmallNet()).store_in(torch.bfloat16)(image).float().sum().backward()
    assert image.grad is not None
    assert image.grad.dtype == torch.float32
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("architecture", ["resnet18", "timm:test_efficientnet", "vgg11", "googlenet"])
def test_a_saved_explanandum_comes_back_the_same(tmp_path, architecture):
    original = build(architecture, output="single_label")
    file = tmp_path / "folder" / "explanandum.safetensors"
    original.save(file, note="kept")
    back = Explanandum.load(file)
    image = torch.randn(2, 3, 64, 64)
    assert back.card == original.card
    assert back.fingerprint == original.fingerprint
    assert torch.equal(back(image), original(image))
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_loaded_classifier_can_be_trained_on(tmp_path):
    build("timm:test_resnet").save(tmp_path / "file.safetensors")
    model, loaded = load_classifier(tmp_path / "file.safetensors")
    assert loaded.classes == CLASSES
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_rounded_weights_are_not_saved(tmp_path):
    with pytest.raises(RuntimeError, match="before store_in"):
        freeze(SmallNet()).store_in(torch.bfloat16).save(tmp_path / "file.safetensors")


def test_loading_what_is_no_explanandum_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        Explanandum.load(tmp_path / "nothing.safetensors")
    save_weights(GapNet(), tmp_path / "plain.safetensors", {})
    with pytest.raises(ValueError, match="plain weights, not an explanandum"):
        Explanandum.load(tmp_path / "plain.safetensors")


def test_opening_what_train_py_saved_takes_its_own_card(tmp_path):
    original = build("timm:test_resnet", output="single_label")
    original.save(tmp_path / "file.safetensors")
    asked = card("resnet18", size=224)  # the same classes, all else different
    opened = open_explanandum(tmp_path / "file.safetensors", asked)
    assert opened.card == original.card
    assert opened.fingerprint == original.fingerprint


@pytest.mark.parametrize("classes", [("hen", "dog", "cat"), ("cat", "dog"), tuple("abcdefgh")])
def test_opening_a_classifier_of_other_classes_is_an_error_that_shows_both(tmp_path, classes):
    build("timm:test_resnet").save(tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match=rf"other classes \(3: cat, dog, hen\).*\({len(classes)}: {classes[0]}, "):
        open_explanandum(str(tmp_path / "file.safetensors"), card("timm:test_resnet", classes=classes))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_opening_plain_weights_takes_the_card_that_is_given(tmp_path, suffix):
    model, _ = build_classifier("timm:test_resnet", 3, "none")
    file = tmp_path / f"plain.{suffix}"
    save_weights(model, file, {}) if suffix == "safetensors" else torch.save(model.state_dict(), file)
    asked = card("timm:test_resnet", output="single_label")
    opened = open_explanandum(file, asked)
    assert opened.card == asked
    assert opened.fingerprint == Explanandum(model, asked).fingerprint


def test_opening_what_has_no_trained_head_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="a head must be trained"):
        open_explanandum("imagenet", card("resnet18"))
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        open_explanandum(tmp_path / "nothing.safetensors", card("resnet18"))
