"""The nine families of docs/generality.md in little: the libraries' own classes, narrow and of few layers."""

from functools import partial

import timm
import torch
from torch import nn
from torchvision.models import inception
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer
from toy_models import card

from explainer.explanandum import Explanandum

CLASSES = ("cat", "dog", "hen", "fox", "owl")
COUNT = len(CLASSES)
NARROWER = 16
"""By which factor the channels of Inception are fewer."""


class NarrowConv(inception.BasicConv2d):
    """Inception's convolution, of fewer channels than it is told."""

    def __init__(self, inputs, outputs, **settings):
        super().__init__(inputs if inputs == 3 else inputs // NARROWER, outputs // NARROWER, **settings)


def narrow_inception():
    parts = [getattr(inception, f"Inception{letter}") for letter in "ABCDE"]
    blocks = [NarrowConv, *(partial(part, conv_block=NarrowConv) for part in parts), inception.InceptionAux]
    model = inception.Inception3(
        COUNT, aux_logits=False, transform_input=True, inception_blocks=blocks, init_weights=False
    )
    model.fc = nn.Linear(2048 // NARROWER, COUNT)
    return model


def narrow_vgg():
    with torch.device("meta"):  # the wide layers that are replaced take longer than all the rest
        model = VGG(nn.Identity(), COUNT, init_weights=False)
    model.features = make_layers([8, "M", 8, "M", 16, "M", 16, "M", 16, "M"])
    for index, sizes in {0: (16 * 7 * 7, 16), 3: (16, 16), 6: (16, COUNT)}.items():
        model.classifier[index] = nn.Linear(*sizes)
    return model


def narrow_resnet(name):
    channels = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
    return timm.create_model(name, num_classes=COUNT, **channels)


FAMILIES = {
    "VGG-16": narrow_vgg,
    "ResNet-50": partial(narrow_resnet, "resnet50"),
    "SE-ResNet-50": partial(narrow_resnet, "seresnet50"),
    "Inception-v3": narrow_inception,
    "DenseNet-121": partial(DenseNet, 4, (2, 2, 2, 2), 8, num_classes=COUNT),
    "RegNet-X": partial(RegNet, BlockParams([1] * 4, [8, 8, 16, 24], [8] * 4, [1.0] * 4, [2] * 4), COUNT, stem_width=8),
    "ConvNeXt-T": partial(
        ConvNeXt,
        [CNBlockConfig(8, 8, 1), CNBlockConfig(8, 16, 1), CNBlockConfig(16, 16, 1), CNBlockConfig(16, None, 1)],
        num_classes=COUNT,
    ),
    "ViT-B/16": partial(VisionTransformer, 64, 16, 2, 2, 16, 32, num_classes=COUNT),
    "Swin-T": partial(SwinTransformer, [4, 4], 8, [1, 1, 1, 2], [1, 1, 2, 2], [7, 7], num_classes=COUNT),
}
"""By the names on the page."""


def small_explanandum(family, size):
    """A narrow classifier of the family, for images of size × size pixels."""
    return Explanandum(FAMILIES[family](), card(family, CLASSES, size))
