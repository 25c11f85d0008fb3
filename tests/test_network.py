"""The Explainer network gives a mask as large as the image, from any encoder, with or without published weights."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

from explainer.network import ATROUS_RATES, Explainer, load_encoder

REAL_WEIGHTS = Path(os.environ.get("REAL_WEIGHTS", Path(__file__).parents[2] / "shared" / "weights"))
SMALL = "tu-test_resnet"


def build(encoder=SMALL, **options):
    """A network for three classes, in eval mode."""
    torch.manual_seed(0)
    return Explainer(3, encoder, **{"output_stride": 16, **options}).eval()


@pytest.mark.parametrize("size", [(64, 64), (100, 75), (33, 47), (40, 24)])
@pytest.mark.parametrize("stride", [8, 16])
def test_logits_are_as_large_as_the_image(size, stride):
    with torch.no_grad():
        logits = build(output_stride=stride)(torch.randn(2, 3, *size))
    assert logits.shape == (2, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("encoder", ["resnet50", "resnet18", "mobilenet_v2", "tu-resnet18", "tu-convnext_atto"])
def test_any_encoder_that_can_be_dilated_works(encoder):
    with torch.no_grad():
        assert build(encoder)(torch.randn(1, 3, 33, 47)).shape == (1, 3, 33, 47)


@pytest.mark.parametrize("stride", [8, 16])
def test_the_output_stride_and_its_atrous_rates_are_those_asked_for(stride):
    network = build("resnet18", output_stride=stride)
    with torch.no_grad():
        assert network.deeplab.encoder(torch.randn(1, 3, 64, 64))[-1].shape[-1] == 64 // stride
    rates = {module.dilation[0] for module in network.deeplab.decoder.modules() if isinstance(module, torch.nn.Conv2d)}
    assert set(ATROUS_RATES[stride]) <= rates


def test_another_output_stride_is_an_error():
    with pytest.raises(ValueError, match="output_stride is 4; choose 8 or 16"):
        build(output_stride=4)


def test_unknown_encoder_lists_the_known():
    with pytest.raises(ValueError, match=r"Unknown encoder 'resnet5'.*'tu-'.*resnet50"):
        build("resnet5")


def test_unknown_timm_encoder_is_a_value_error_that_names_it():
    with pytest.raises(ValueError, match="nonsense"):
        build("tu-nonsense")


@pytest.mark.parametrize("encoder", ["resnet18", SMALL])
def test_offline_weights_say_what_to_do(encoder, monkeypatch, tmp_path):
    # What the hub's client raises after its retries, at once.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=rf"Cannot download.*'{encoder}'.*--encoder_weights FILE, or none") as error:
        build(encoder, encoder_weights="imagenet")
    assert "should be set to" not in str(error.value)  # a hint for our code, not for the user


def test_the_recipe_rebuilds_the_network():
    network = build(decoder_channels=32)
    twin = Explainer.from_recipe({name: str(value) for name, value in network.recipe.items()})
    twin.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(twin.eval()(image), network(image))


def test_an_encoder_takes_a_classifiers_weight_file(tmp_path):
    classifier = resnet18()
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pt")
    network = build("resnet18", encoder_weights=str(tmp_path / "resnet18.pt"))
    assert torch.equal(network.deeplab.encoder.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)
    with pytest.raises(ValueError, match=r"resnet18.pt does not fit"):
        build("mobilenet_v2", encoder_weights=str(tmp_path / "resnet18.pt"))


def test_a_missing_weight_file_is_named():
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        build(encoder_weights="/nowhere/nothing.pt")


def test_real_imagenet_weights_fill_the_lite_encoder():
    file = REAL_WEIGHTS / "tf_efficientnet_lite0_imagenet.safetensors"
    if not file.is_file():
        pytest.skip(f"no {file.name} under {REAL_WEIGHTS}; set REAL_WEIGHTS to the folder that holds it")
    encoder = build("tu-tf_efficientnet_lite0", encoder_weights=str(file)).deeplab.encoder
    state = load_file(file)
    own = encoder.model.state_dict()
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in own.items() if name in state)
    assert len(own.keys() & state.keys()) > 200
    with pytest.raises(ValueError, match="does not fit"):
        load_encoder(build().deeplab.encoder, file)
