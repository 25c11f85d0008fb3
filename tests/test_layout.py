"""Tokens and channels-last maps lie over the image as the maps that they are made of do.

B images, K channels, h×w cells, T tokens, H×W pixels.
"""

import pytest
import timm
import torch
from small_families import small_explanandum
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from toy_models import GapNet, card, freeze

from explainer.attribution import METHODS, CannotExplain, GradCAM
from explainer.attribution.cam import CAM
from explainer.capture import captured_activation, last_spatial_layer
from explainer.explanandum import Explanandum
from explainer.layout import MOST_BEFORE, to_maps, token_grid

CAMS = [name for name, method in METHODS.items() if issubclass(method, CAM) or name in ("score_cam", "sigcam")]
OPTIONS = {"sigcam": {"iterations": 2, "l1": 0.01, "tv": 0.02}}


class Lines(nn.Module):
    """Maps [B,K,h,w] -> tokens [B,T,K], line by line, after `before` others."""

    def __init__(self, before):
        super().__init__()
        self.before = before

    def forward(self, maps):
        tokens = maps.flatten(2).transpose(1, 2)
        return torch.cat([tokens.new_full((len(tokens), self.before, tokens.shape[2]), 7.0), tokens], dim=1)


class ChannelsLast(nn.Module):
    def forward(self, maps):
        return maps.permute(0, 2, 3, 1)


class RelaidNet(GapNet):
    """A GapNet whose head reads its maps as tokens, or with the channels last; it says the same."""

    def __init__(self, layer, before=0):
        super().__init__()
        self.layer, self.before = layer, before

    def forward(self, image):
        relaid = self.layer(self.features(image))
        axes = (1, 2) if relaid.ndim == 4 else 1
        return self.linear((relaid if relaid.ndim == 4 else relaid[:, self.before :]).mean(dim=axes))


def images(height=32, width=32):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def maps_of(name, model, layer, image):
    method = METHODS[name](freeze(model, target_layer=layer), **OPTIONS.get(name, {}))
    return method(image, torch.tensor([0, 2]))


@pytest.mark.parametrize("size", [(32, 32), (24, 40)], ids=["square", "wide"])
@pytest.mark.parametrize("layer", [Lines(0), Lines(1), Lines(5), ChannelsLast()], ids=str)
@pytest.mark.parametrize("name", CAMS)
def test_a_cam_of_tokens_or_channels_last_is_that_of_the_same_maps(name, layer, size):
    expected = maps_of(name, GapNet(), "features", images(*size))
    found = maps_of(name, RelaidNet(layer, getattr(layer, "before", 0)), "layer", images(*size))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert expected.std() > 0


@pytest.mark.parametrize(
    ("shape", "size", "grid"),
    [
        ((2, 768, 7, 7), (224, 224), (7, 7)),
        ((2, 7, 7, 768), (224, 224), (7, 7)),
        ((2, 7, 7, 7), (224, 224), (7, 7)),
        ((2, 8, 7, 6), (200, 180), (7, 6)),  # not exactly the image's shape, but the channels' is none either
        ((2, 7, 6, 768), (224, 192), (7, 6)),
        ((2, 768, 8, 5), (299, 200), (8, 5)),  # convolutions without padding lose the border
        ((2, 197, 768), (224, 224), (14, 14)),
        ((2, 261, 384), (224, 224), (16, 16)),  # four registers
        ((2, 36, 24), (100, 75), (7, 5)),  # patches of 16 pixels, the last ones padded
        ((2, 1 + 6 * 10, 8), (24, 40), (6, 10)),
    ],
    ids=str,
)
def test_the_grid_follows_the_images_shape(shape, size, grid):
    assert to_maps(torch.zeros(shape), size).shape[2:] == grid


@pytest.mark.parametrize("shape", [(2, 512), (2, 8, 7, 7, 7), (2, 14 * 14 + MOST_BEFORE + 1, 8), (2, 0, 8)], ids=str)
def test_what_is_no_picture_of_the_image_gives_no_map(shape):
    assert to_maps(torch.zeros(shape), (224, 224)) is None


def test_as_many_tokens_as_one_is_ready_to_drop_are_dropped():
    assert token_grid(14 * 14 + MOST_BEFORE, (224, 224)) == (14, 14)


def timm_explanandum(name, **settings):
    torch.manual_seed(0)
    return Explanandum(timm.create_model(name, num_classes=3, img_size=64, **settings), card(name, size=64))


def small_mixer():
    torch.manual_seed(0)
    model = MlpMixer(3, 64, 3, patch_size=32, num_blocks=1, embed_dim=16)
    nn.init.normal_(model.head.weight)  # timm's is zero, so that nothing would reach the logits
    return Explanandum(model, card(size=64))


SMALL_SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("build", "layer", "stride"),
    [
        (lambda: small_explanandum("ViT-B/16", 64), "encoder.dropout", 16),
        (lambda: timm_explanandum("test_vit"), "pos_drop", 16),
        (lambda: timm_explanandum("test_vit", reg_tokens=4), "norm_pre", 16),
        (lambda: small_explanandum("Swin-T", 64), "features.0", 4),
        (lambda: timm_explanandum("swin_tiny_patch4_window7_224", **SMALL_SWIN), "patch_embed", 4),
    ],
    ids=["torchvision_vit", "timm_vit", "registers", "torchvision_swin", "timm_swin"],
)
def test_a_pixel_of_the_image_moves_the_cell_that_lies_over_it(build, layer, stride):
    explanandum, image = build(), torch.zeros(2, 3, 64, 64)
    row, column = 21, 50
    image[1, :, row, column] = 1
    with torch.no_grad(), captured_activation(explanandum.model, layer) as captured:
        explanandum(image)
    before, after = captured.as_maps(captured.value, image)
    moved = (before != after).any(dim=0).nonzero().tolist()
    assert moved == [[row // stride, column // stride]]


@pytest.mark.parametrize(
    ("build", "layer", "cells"),
    [
        (lambda: timm_explanandum("test_vit"), "blocks.5.norm1", 4),
        (lambda: timm_explanandum("test_vit", reg_tokens=4), "blocks.5.norm1", 4),
        (lambda: timm_explanandum("test_vit", global_pool="avg", fc_norm=False), "norm", 4),  # reads all tokens
        (lambda: timm_explanandum("swin_tiny_patch4_window7_224", **SMALL_SWIN), "norm", 2),
        (small_mixer, "norm", 2),
    ],
    ids=["class_token", "registers", "mean_of_tokens", "channels_last", "mixer"],
)
def test_the_target_layer_of_tokens_is_the_last_that_the_logits_depend_on(build, layer, cells):
    explanandum, image = build(), images(64, 64)
    assert explanandum.target_layer == layer
    with torch.inference_mode():
        assert last_spatial_layer(explanandum.model, 64) == layer
    method = GradCAM(explanandum)
    assert method.cells(image, torch.tensor([0, 1])).shape == (2, cells, cells)
    assert method(image, torch.tensor([0, 1])).std() > 0


def test_grad_cam_of_a_vision_transformer_is_that_of_the_tokens_behind_its_class_token():
    explanandum, image = timm_explanandum("test_vit"), images(64, 64)
    model, blocks = explanandum.model, explanandum.model.blocks
    tokens = model._pos_embed(model.patch_embed(image))
    for block in blocks[:-1]:
        tokens = block(tokens)
    read = blocks[-1].norm1(tokens).detach().requires_grad_()
    mixed = tokens.detach() + blocks[-1].attn(read)
    mixed = mixed + blocks[-1].mlp(blocks[-1].norm2(mixed))
    logits = model.head(model.norm(mixed)[:, 0])
    torch.testing.assert_close(logits, explanandum(image))
    (gradient,) = torch.autograd.grad(logits[0, 2] + logits[1, 0], read)
    expected = torch.zeros(2, 4, 4)
    for index in range(2):
        weight = gradient[index, 1:].mean(dim=0)
        for cell in range(16):
            expected[index, cell // 4, cell % 4] = (weight * read[index, 1 + cell]).sum().clamp(min=0)
    found = GradCAM(explanandum).cells(image, torch.tensor([2, 0]))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    assert expected.max() > 0


def test_the_patch_tokens_behind_the_last_attention_have_no_gradient():
    explanandum = timm_explanandum("test_vit")
    maps = GradCAM(explanandum, target_layer="norm")(images(64, 64), torch.tensor([0, 1]))
    assert not maps.any()  # hence another layer is the classifier's own


def test_windows_that_are_a_batch_of_their_own_are_refused():
    class Windows(nn.Module):
        def forward(self, maps):
            return maps.unflatten(0, (-1, 1)).expand(-1, 4, -1, -1, -1).flatten(0, 1)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Windows(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(CannotExplain, match=r"of 2 images '1' gives \[8, 4, 30, 30\]"):
        GradCAM(freeze(model, target_layer="1"))(images(), torch.tensor([0, 1]))


def test_a_layer_whose_output_goes_nowhere_is_not_the_target_layer():
    class Side(GapNet):
        def __init__(self):
            super().__init__()
            self.side = nn.Conv2d(5, 2, 1)

        def forward(self, image):
            features = self.features(image)
            self.side(features)
            return self.linear(features.mean(dim=(2, 3)))

    assert freeze(Side()).target_layer == "features"


def test_a_classifier_without_gradients_still_has_a_target_layer():
    class Fixed(GapNet):
        @torch.no_grad()
        def forward(self, image):
            return super().forward(image)

    assert freeze(Fixed()).target_layer == "features"
