"""Every classifier by name: a fresh head for the classes, published weights from a file, errors that help."""

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from explainer.classifiers import IMAGENET_MEAN, build_classifier, normalisation, require_known, trained_classifier

REAL_WEIGHTS = Path(os.environ.get("REAL_WEIGHTS", Path(__file__).parents[2] / "shared" / "weights"))
FAMILIES = {
    "alexnet": 64, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64,
    "googlenet": 64, "inception_v3": 96, "maxvit_t": 224, "mnasnet0_5": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "regnet_y_400mf": 64, "resnet18": 64, "resnext50_32x4d": 64, "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64, "swin_t": 64, "swin_v2_t": 64, "vgg11_bn": 64, "vit_b_32": 64,
    "timm:test_resnet": 64, "timm:test_vit": 64, "timm:test_nfnet.r160_in1k": 64, "timm:dla46_c": 64,
    "timm:vit_tiny_patch16_224": 96, "timm:caformer_s18": 64,
}  # fmt: skip


def real_weights(name):
    """A file of published weights, or a skipped test where it is absent."""
    file = REAL_WEIGHTS / name
    if not file.is_file():
        pytest.skip(f"no {name} under {REAL_WEIGHTS}; set REAL_WEIGHTS to the folder that holds it")
    return file


@pytest.mark.parametrize(("architecture", "size"), FAMILIES.items())
def test_any_family_gives_a_logit_for_each_class(architecture, size):
    model, head = build_classifier(architecture, 5, "none", hidden=8, image_size=size)
    with torch.no_grad():
        logits = model.eval()(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert list(model.get_submodule(head).parameters())


@pytest.mark.parametrize("architecture", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_gone_in_training_too(architecture):
    model, _ = build_classifier(architecture, 5, "none")
    assert model.train()(torch.randn(2, 3, 96, 96)).shape == (2, 5)
    assert model.transform_input  # the weights' own preprocessing must not depend on where the weights come from


def test_vgg_gets_three_fresh_linear_layers_with_dropout():
    model, head = build_classifier("vgg16", 20, "none")
    layers = list(model.get_submodule(head))
    linear = [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)]
    assert head == "classifier"
    assert linear == [(25088, 4096), (4096, 4096), (4096, 20)]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert [type(layer) for layer in layers[:3]] == [nn.Linear, nn.ReLU, nn.Dropout]


def test_resnet_gets_one_fresh_linear_layer():
    model, head = build_classifier("resnet50", 20, "none")
    assert head == "fc"
    assert isinstance(model.fc, nn.Linear)
    assert (model.fc.in_features, model.fc.out_features) == (2048, 20)


def test_squeezenets_logits_may_be_negative():
    model, _ = build_classifier("squeezenet1_1", 40, "none")
    assert (model.eval()(torch.randn(2, 3, 64, 64)) < 0).any()


def published(tmp_path, dtype=torch.float32, drop=()):
    """A file as torchvision publishes them, 1000 classes, and what it holds."""
    model = torchvision.models.resnet18(num_classes=1000)
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if not name.startswith(tuple(drop) or ("\0",))
    }
    torch.save(state, tmp_path / "resnet18.pth")
    return str(tmp_path / "resnet18.pth"), state


def assert_body_is(model, head, state):
    """Everything but the head holds the file's values, as float32."""
    body = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{head}.")}
    assert body
    for name, value in body.items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, state[name].to(value.dtype)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_weight_file_fills_all_but_the_head(tmp_path, dtype):
    file, state = published(tmp_path, dtype)
    model, head = build_classifier("resnet18", 3, file)
    assert_body_is(model, head, state)


def test_a_file_without_a_head_is_enough(tmp_path):
    file, state = published(tmp_path, drop=["fc."])
    model, head = build_classifier("resnet18", 3, file)
    assert_body_is(model, head, state)


def test_a_file_without_anything_else_is_an_error_that_names_it(tmp_path):
    file, _ = published(tmp_path, drop=["layer4.1.conv2", "fc."])
    with pytest.raises(ValueError, match=r"resnet18.pth does not fit: layer4.1.conv2.weight missing"):
        build_classifier("resnet18", 3, file)


def test_a_head_for_the_same_classes_is_taken_from_the_file(tmp_path):
    trained, _ = build_classifier("resnet18", 3, "none")
    torch.save(trained.state_dict(), tmp_path / "own.pt")
    model, _ = build_classifier("resnet18", 3, str(tmp_path / "own.pt"))
    assert torch.equal(model.fc.weight, trained.fc.weight)


def test_vggs_fresh_head_takes_nothing_from_a_file_for_other_classes(tmp_path):
    source = torchvision.models.vgg11(num_classes=7, init_weights=False)
    torch.save(source.state_dict(), tmp_path / "vgg.pt")
    model, _ = build_classifier("vgg11", 3, str(tmp_path / "vgg.pt"))
    assert torch.equal(model.features[0].weight, source.features[0].weight)
    assert model.classifier[0].weight.shape == source.classifier[0].weight.shape
    assert not torch.equal(model.classifier[0].weight, source.classifier[0].weight)


def test_a_file_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(FileNotFoundError, match="No weight file at /nowhere/weights.pt"):
        build_classifier("resnet18", 3, "/nowhere/weights.pt")


def unreachable(*_arguments, **_keywords):
    raise URLError("[Errno -2] Name or service not known")


def test_offline_without_weights_says_what_to_do(monkeypatch):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(OSError, match=r"Cannot download.*'resnet18'.*--explanandum_weights FILE.*none"):
        build_classifier("resnet18", 3, "imagenet")


def test_offline_without_weights_says_what_to_do_for_timm_too(monkeypatch, tmp_path):
    # What the hub's client raises after its retries, at once.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=r"Cannot download.*'timm:test_resnet'.*--explanandum_weights FILE"):
        build_classifier("timm:test_resnet", 3, "imagenet")


def test_an_error_that_is_no_download_stays_what_it_is(tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="bad.pt"):
        build_classifier("resnet18", 3, str(tmp_path / "bad.pt"))


@pytest.mark.parametrize("use", [require_known, normalisation, lambda name: build_classifier(name, 3, "none")])
def test_unknown_names_list_the_valid_ones(use):
    with pytest.raises(ValueError, match=r"Unknown explanandum 'vgg61'.*'timm:'.*resnet50.*vgg16"):
        use("vgg61")
    with pytest.raises(ValueError, match=r"Unknown timm model 'resnt18'; see timm.list_models.*resnet18"):
        use("timm:resnt18")
    with pytest.raises(ValueError, match=r"Unknown weights 'resnet18.mine'.*resnet18.a1_in1k"):
        use("timm:resnet18.mine")


def test_segmentation_networks_of_torchvision_are_no_classifiers():
    with pytest.raises(ValueError, match="Unknown explanandum 'deeplabv3_resnet50'"):
        require_known("deeplabv3_resnet50")


def test_a_timm_model_with_two_heads_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="has not one classification head"):
        build_classifier("timm:deit_tiny_distilled_patch16_224", 3, "none")


def test_normalisation_is_that_of_the_published_weights():
    assert normalisation("vgg16")[0] == IMAGENET_MEAN
    assert normalisation("timm:resnet18")[0] == IMAGENET_MEAN
    assert normalisation("timm:vit_tiny_patch16_224") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_real_vgg16_convolutions_load_and_the_head_is_fresh():
    file = real_weights("vgg16_imagenet_features.safetensors")
    model, head = build_classifier("vgg16", 20, str(file), hidden=8)
    assert_body_is(model, head, load_file(file))


def test_real_vgg16_convolutions_tell_an_edge_from_noise():
    file = real_weights("vgg16_imagenet_features.safetensors")
    features = build_classifier("vgg16", 20, str(file), hidden=8)[0].features.eval()
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 1
    with torch.no_grad():
        first = features[:2](edge)[0].amax(dim=0)
    assert first[:, 31:33].mean() > 1.5 * first[8:-8, 8:24].mean()


def test_real_weights_of_another_architecture_are_an_error():
    file = real_weights("vgg16_imagenet_features.safetensors")
    with pytest.raises(ValueError, match=r"does not fit: features.0.0.weight"):
        build_classifier("mobilenet_v2", 20, str(file))


# Classifiers with their trained head


def publish(monkeypatch, state):
    """Let torchvision and timm download this state dict."""
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(state))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))


def assert_same_logits(model, other, size):
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.eval()(image)
        assert logits.shape == (2, 1000)
        torch.testing.assert_close(logits, other.eval()(image))


@pytest.mark.parametrize(
    "architecture", ["alexnet", "vgg11", "resnet18", "densenet121", "mobilenet_v3_small", "efficientnet_b0", "swin_t"]
)
@pytest.mark.parametrize("source", ["imagenet", "file"])
def test_published_weights_make_the_published_classifier_head_included(tmp_path, monkeypatch, architecture, source):
    theirs = torchvision.models.get_model(architecture)
    if source == "file":
        torch.save(theirs.state_dict(), tmp_path / "published.pth")
        source = str(tmp_path / "published.pth")
    else:
        publish(monkeypatch, theirs.state_dict())
    assert_same_logits(trained_classifier(architecture, 1000, source), theirs, 64)


def test_timms_published_weights_make_the_published_classifier(monkeypatch):
    theirs = timm.create_model("test_resnet")
    publish(monkeypatch, theirs.state_dict())
    assert_same_logits(trained_classifier("timm:test_resnet", 1000, "imagenet"), theirs, 64)


def test_googlenets_published_weights_come_without_auxiliary_heads_and_with_their_preprocessing(monkeypatch):
    theirs = torchvision.models.googlenet(init_weights=False, transform_input=True)
    publish(monkeypatch, theirs.state_dict())
    assert_same_logits(trained_classifier("googlenet", 1000, "imagenet"), theirs, 64)


def test_timms_weights_for_other_classes_never_leave_a_random_head(monkeypatch):
    name = "timm:vit_tiny_patch16_224.augreg_in21k"
    publish(monkeypatch, timm.create_model(name.removeprefix("timm:")).state_dict())
    with pytest.raises(ValueError, match=r"imagenet has no trained head of 'timm:vit_tiny.*head.weight, head.bias"):
        trained_classifier(name, 1000, "imagenet")


def test_a_file_of_ones_own_gives_its_head(tmp_path):
    own, head = build_classifier("vgg11", 3, "none", hidden=8)
    torch.save(own.state_dict(), tmp_path / "own.pt")
    model = trained_classifier("vgg11", 3, str(tmp_path / "own.pt"), hidden=8)
    for name, value in own.get_submodule(head).state_dict().items():
        assert torch.equal(model.get_submodule(head).state_dict()[name], value)


@pytest.mark.parametrize("architecture", ["vgg16", "timm:test_resnet"])
def test_published_weights_for_other_classes_than_imagenets_need_a_head(architecture):
    with pytest.raises(ValueError, match=r"1000 classes, but the data set has 20: a head must be trained.*train.py"):
        trained_classifier(architecture, 20, "imagenet")


def test_a_file_without_its_head_is_an_error_that_says_what_is_missing(tmp_path):
    file, _ = published(tmp_path, drop=["fc."])
    with pytest.raises(
        ValueError, match=r"resnet18.pth has no trained head of 'resnet18' for 1000 classes: fc.weight, "
    ):
        trained_classifier("resnet18", 1000, file)


def test_a_head_for_other_classes_or_of_another_width_is_an_error(tmp_path):
    file, _ = published(tmp_path)
    with pytest.raises(ValueError, match=r"no trained head of 'resnet18' for 3 classes: fc.weight, fc.bias missing or"):
        trained_classifier("resnet18", 3, file)
    model, _ = build_classifier("vgg11", 3, "none", hidden=8)
    torch.save(model.state_dict(), tmp_path / "narrow.pt")
    with pytest.raises(ValueError, match=r"3 classes and hidden layers of 16: classifier.0.weight, .* and 1 more|, "):
        trained_classifier("vgg11", 3, str(tmp_path / "narrow.pt"), hidden=16)


def test_another_architectures_file_is_not_called_headless(tmp_path):
    file, _ = published(tmp_path)
    with pytest.raises(ValueError, match=r"does not fit.*same architecture"):
        trained_classifier("mobilenet_v2", 1000, file)


def test_squeezenet_cannot_be_taken_as_it_is():
    with pytest.raises(ValueError, match=r"'squeezenet1_1' make another classifier here: .* ReLU.*train.py"):
        trained_classifier("squeezenet1_1", 1000, "imagenet")


def test_a_failed_download_of_a_trained_classifier_says_what_to_do(monkeypatch):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(OSError, match=r"Cannot download.*'resnet18'.*--explanandum_weights FILE\.$"):
        trained_classifier("resnet18", 1000, "imagenet")


def test_real_efficientnet_loads_with_its_head():
    file = real_weights("tf_efficientnet_lite0_imagenet.safetensors")
    model, state = trained_classifier("timm:tf_efficientnet_lite0", 1000, str(file)), load_file(file)
    own = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert own.keys() <= state.keys()
    assert all(torch.equal(value, state[name]) for name, value in own.items())


def test_real_vgg16_convolutions_are_no_trained_classifier():
    file = real_weights("vgg16_imagenet_features.safetensors")
    with pytest.raises(ValueError, match=r"no trained head of 'vgg16'.*classifier.0.weight.*train.py --stage explan"):
        trained_classifier("vgg16", 1000, str(file), hidden=8)
