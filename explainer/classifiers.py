"""Classifiers by name, with a fresh head for the data set's classes (NN-Explainer, Sec. 4)."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.error import URLError

import timm
import torchvision
from torch import nn

from explainer.weights import load_matching, read_state_dict

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def build_classifier(
    architecture: str, num_classes: int, weights: str = "imagenet", hidden: int = 4096, image_size: int = 224
) -> tuple[nn.Module, str]:
    """Build a classifier with a freshly initialised head.

    Args:
        architecture: torchvision's name of a classifier (`vgg16`, `resnet50`, …) or `timm:<name>`.
        num_classes: outputs of the fresh head.
        weights: `imagenet` (downloaded by torchvision or timm), `none` (random), or a file.
        hidden: width of the two hidden layers of a fresh VGG or AlexNet head; other heads are one linear layer.
        image_size: pixels, for the few architectures that are built for one size (vision transformers).

    Returns:
        The classifier, and the name of its fresh head within it.

    Raises:
        ValueError: unknown architecture, or a file that doesn't fit it.
        OSError: a download that failed.
    """
    require_known(architecture)
    pretrained = weights == "imagenet"
    name = architecture.removeprefix("timm:")
    try:
        if name != architecture:
            model, head = _timm_classifier(name, num_classes, pretrained, image_size)
        else:
            model, head = _torchvision_classifier(name, num_classes, pretrained, hidden, image_size)
    except (OSError, URLError, RuntimeError) as error:
        if not pretrained:
            raise
        raise OSError(
            f"Cannot download the ImageNet weights of '{architecture}' ({error}). Pass a file with "
            "--explanandum_weights FILE, or --explanandum_weights none to start from random weights."
        ) from error
    if weights not in ("imagenet", "none"):
        load_matching(model, read_state_dict(Path(weights)), may_miss=(head,), source=weights)
    return model, head


def require_known(architecture: str) -> None:
    """Check a name before anything expensive is done with it.

    Raises:
        ValueError: if neither torchvision nor timm has such a classifier; lists the valid names or the closest ones.
    """
    name = architecture.removeprefix("timm:")
    if name == architecture:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise ValueError(
                f"Unknown explanandum '{name}'; choose 'timm:' and a timm name, or one of: {', '.join(known)}."
            )
        return
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        close = get_close_matches(base, timm.list_models(), 10, 0.4)
        raise ValueError(
            f"Unknown timm model '{base}'; see timm.list_models()" + (f", e.g. {', '.join(close)}." if close else ".")
        )
    tagged = timm.list_models(f"{base}.*", pretrained=True)
    if tag and name not in tagged:
        raise ValueError(f"Unknown weights '{name}' of a timm model; choose '{base}' or one of: {', '.join(tagged)}.")


def normalisation(architecture: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation that the architecture's published weights were trained with.

    Raises:
        ValueError: unknown architecture.
    """
    require_known(architecture)
    if architecture.startswith("timm:"):
        config = timm.get_pretrained_cfg(architecture.removeprefix("timm:"))
        if config is not None:
            (red, green, blue), (red_std, green_std, blue_std) = config.mean, config.std
            return (red, green, blue), (red_std, green_std, blue_std)
    return IMAGENET_MEAN, IMAGENET_STD


def _torchvision_classifier(
    name: str, num_classes: int, pretrained: bool, hidden: int, image_size: int
) -> tuple[nn.Module, str]:
    inception = name in ("googlenet", "inception_v3")
    keywords: dict[str, Any] = {}
    if name.startswith("vit_"):
        keywords["image_size"] = image_size
    elif name.startswith("maxvit_"):
        keywords["input_size"] = (image_size, image_size)
    elif inception:
        # Their published weights want values in [-1, 1]. The model converts, also where it starts from random weights
        # or a file: the same architecture must give the same outputs when it is rebuilt.
        keywords = {"transform_input": True, "init_weights": not pretrained}
    model = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **keywords)
    if inception:  # without its auxiliary heads the model returns plain logits
        model.aux_logits, model.AuxLogits, model.aux1, model.aux2 = False, None, None, None
    return model, _replace_head(model, name, num_classes, hidden)


def _timm_classifier(name: str, num_classes: int, pretrained: bool, image_size: int) -> tuple[nn.Module, str]:
    config = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    model: Any = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **size)
    names = [part for part, module in model.named_modules() if module is model.get_classifier()]
    if not names or isinstance(model.get_classifier(), nn.Identity):
        raise ValueError(f"timm model '{name}' has not one classification head but several or none; choose another.")
    return model, names[0]


def _replace_head(model: Any, architecture: str, num_classes: int, hidden: int) -> str:
    if architecture.startswith(("vgg", "alexnet")):
        first = next(layer for layer in model.classifier if isinstance(layer, nn.Linear))
        model.classifier = _vgg_head(first.in_features, hidden, num_classes)
        return "classifier"
    if architecture.startswith("squeezenet"):  # its ReLU on the logits would forbid negative ones
        model.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, num_classes, 1), nn.AdaptiveAvgPool2d(1))
        return "classifier"
    name, last = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    model.set_submodule(name, nn.Linear(last.in_features, num_classes))
    return name


def _vgg_head(features: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Three fresh linear layers with dropout .5 (the authors' VGG-16 for VOC and COCO)."""
    return nn.Sequential(
        *(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        *(nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        nn.Linear(hidden, num_classes),
    )
