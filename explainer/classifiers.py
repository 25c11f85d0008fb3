"""Classifiers by name, with a fresh head for the data set's classes (NN-Explainer, Sec. 4) or with their own."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.error import URLError

import timm
import torchvision
from torch import Tensor, nn

from explainer.own_classifier import EXAMPLE, is_own, own_code
from explainer.weights import load_matching, read_state_dict, some, without_prefix

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_CLASSES = 1000
NEEDS_A_HEAD = "Pass a file that holds the head too; python train.py --stage explanandum fine-tunes and saves one."


def build_classifier(
    architecture: str, num_classes: int, weights: str = "imagenet", hidden: int = 4096, image_size: int = 224
) -> tuple[nn.Module, str]:
    """Build a classifier with a freshly initialised head.

    Args:
        architecture: torchvision's name of a classifier (`vgg16`, `resnet50`, …), `timm:<name>`, or the name of code of
            the user's own that `use_own_code` has been told of; that makes a classifier with the head that it has.
        num_classes: outputs of the fresh head.
        weights: `imagenet` (downloaded by torchvision or timm), `none` (random; own code: as it makes them), or a file.
        hidden: width of the two hidden layers of a fresh VGG or AlexNet head; other heads are one linear layer.
        image_size: pixels, for the few architectures that are built for one size (vision transformers).

    Returns:
        The classifier, and the name of its fresh head within it; of own code the last linear layer, or, without any,
        the empty name of the classifier as a whole.

    Raises:
        ValueError: unknown architecture, or a file that doesn't fit it; code that fails, or that may not run.
        OSError: a download that failed.
    """
    if is_own(architecture):
        model = _own_classifier(architecture, num_classes, weights, image_size)
        return model, _last_linear(model)
    require_known(architecture)
    pretrained = weights == "imagenet"
    name = architecture.removeprefix("timm:")
    alternative = ", or --explanandum_weights none to start from random weights"
    with _downloading(architecture, alternative) if pretrained else nullcontext():
        if name != architecture:
            model, head = _timm_classifier(name, num_classes, pretrained, image_size)
        else:
            model = _torchvision_model(name, pretrained, image_size)
            head = _replace_head(model, name, num_classes, hidden)
    if weights not in ("imagenet", "none"):
        load_matching(model, read_state_dict(Path(weights)), may_miss=(head,), source=weights)
    return model, head


def trained_classifier(
    architecture: str, num_classes: int, weights: str, hidden: int = 4096, image_size: int = 224
) -> nn.Module:
    """Build a classifier with its trained head, so that it can be explained as it is.

    Args:
        architecture: as for `build_classifier`, which can rebuild what this returns.
        num_classes: outputs; the order of the classes is that of the weights.
        weights: `imagenet` (downloaded by torchvision or timm), or a file that holds the head too.
        hidden: width of the two hidden layers of a VGG's or AlexNet's head; 4096 in the published ones.
        image_size: pixels, as for `build_classifier`.

    Raises:
        ValueError: unknown architecture; weights that don't fit it or have no head for so many classes.
        OSError: a file that isn't there, or a download that failed.
    """
    if is_own(architecture):
        return _own_classifier(architecture, num_classes, weights, image_size)
    require_known(architecture)
    _require_published_head(architecture, num_classes, weights)
    model, head = build_classifier(architecture, num_classes, "none", hidden, image_size)
    state = _published(architecture, image_size) if weights == "imagenet" else read_state_dict(Path(weights))
    missing = load_matching(model, _with_our_names(architecture, state), may_miss=(head,), source=weights)
    if missing:
        layers = f" and hidden layers of {hidden}" if len(missing) > 2 else ""
        raise ValueError(
            f"{weights} has no trained head of '{architecture}' for {num_classes} classes{layers}: {some(missing)} "
            f"missing or of another shape. {NEEDS_A_HEAD}"
        )
    return model


def _own_classifier(name: str, num_classes: int, weights: str, image_size: int) -> nn.Module:
    """What a user's code makes, with weights of its own or those of a file, head included."""
    if weights == "imagenet":
        raise ValueError(
            f"Nobody publishes weights of '{name}'; pass a file with --explanandum_weights FILE, or none to take those "
            "that the code itself gives the classifier."
        )
    model = own_code(name).build(num_classes, image_size)
    if weights != "none":
        state = without_prefix(read_state_dict(Path(weights)), model.state_dict())
        load_matching(model, state, may_miss=(), source=weights)
    return model


def _last_linear(model: nn.Module) -> str:
    """Name of the last linear layer; empty, the name of the model itself, if there is none."""
    return ["", *(name for name, module in model.named_modules() if isinstance(module, nn.Linear))][-1]


def _require_published_head(architecture: str, num_classes: int, weights: str) -> None:
    """Refuse, before anything is downloaded, what no published head can give."""
    if architecture.startswith("squeezenet"):
        raise ValueError(
            f"Plain weights of '{architecture}' make another classifier here: the published head ends in a ReLU, which "
            "ours leaves out. Choose another architecture, or fine-tune this one: python train.py --stage explanandum."
        )
    if weights == "imagenet" and num_classes != IMAGENET_CLASSES:
        raise ValueError(
            f"The published weights of '{architecture}' have a head for ImageNet's {IMAGENET_CLASSES} classes, but the "
            f"data set has {num_classes}: a head must be trained for them. {NEEDS_A_HEAD}"
        )


@contextmanager
def _downloading(architecture: str, alternative: str = "") -> Iterator[None]:
    try:
        yield
    except (OSError, URLError, RuntimeError) as error:
        raise OSError(
            f"Cannot download the ImageNet weights of '{architecture}' ({error}). Pass a file with "
            f"--explanandum_weights FILE{alternative}."
        ) from error


def _published(architecture: str, image_size: int) -> dict[str, Tensor]:
    """The published state dict, its head as it is: told a number of classes, timm would swap another head silently."""
    name = architecture.removeprefix("timm:")
    with _downloading(architecture):
        model = (_torchvision_model if name == architecture else _timm_model)(name, True, image_size)
    return dict(model.state_dict())


def _with_our_names(architecture: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The AlexNet of torchvision drops out before a hidden layer, ours after it: the same layers by other names."""
    if architecture != "alexnet" or "classifier.1.weight" not in state:
        return state
    ours = {
        f"classifier.{a}.{part}": f"classifier.{b}.{part}" for a, b in ((1, 0), (4, 3)) for part in ("weight", "bias")
    }
    return {ours.get(name, name): value for name, value in state.items()}


def require_known(architecture: str) -> None:
    """Check a name before anything expensive is done with it.

    Raises:
        ValueError: if neither torchvision nor timm has such a classifier, nor may code of that name run; lists the
            valid names or the closest ones.
    """
    if is_own(architecture):
        own_code(architecture)
        return
    name = architecture.removeprefix("timm:")
    if name == architecture:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise ValueError(
                f"Unknown explanandum '{name}'; choose {EXAMPLE} for one of your own, 'timm:' and a timm name, or one "
                f"of: {', '.join(known)}."
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

    ImageNet's, where nobody says otherwise.

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


def _torchvision_model(name: str, pretrained: bool, image_size: int) -> Any:
    """The model with torchvision's own head for ImageNet, without auxiliary ones."""
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
    return model


def _timm_classifier(name: str, num_classes: int, pretrained: bool, image_size: int) -> tuple[nn.Module, str]:
    model = _timm_model(name, pretrained, image_size, num_classes=num_classes)
    names = [part for part, module in model.named_modules() if module is model.get_classifier()]
    if not names or isinstance(model.get_classifier(), nn.Identity):
        raise ValueError(f"timm model '{name}' has not one classification head but several or none; choose another.")
    return model, names[0]


def _timm_model(name: str, pretrained: bool, image_size: int, **keywords: Any) -> Any:
    config = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    return timm.create_model(name, pretrained=pretrained, **size, **keywords)


def _replace_head(model: Any, architecture: str, num_classes: int, hidden: int) -> str:
    if architecture.startswith(("vgg", "alexnet")):
        first = next(layer for layer in model.classifier if isinstance(layer, nn.Linear))
        model.classifier = _vgg_head(first.in_features, hidden, num_classes)
        return "classifier"
    if architecture.startswith("squeezenet"):  # its ReLU on the logits would forbid negative ones
        model.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, num_classes, 1), nn.AdaptiveAvgPool2d(1))
        return "classifier"
    name = _last_linear(model)
    model.set_submodule(name, nn.Linear(model.get_submodule(name).in_features, num_classes))
    return name


def _vgg_head(features: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Three fresh linear layers with dropout .5 (the authors' VGG-16 for VOC and COCO)."""
    return nn.Sequential(
        *(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        *(nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        nn.Linear(hidden, num_classes),
    )
