"""What explain.py explains with: a classifier, and a trained Explainer where there is one."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torchvision.models import ResNet50_Weights

from explainer.attribution import AttributionMethod, CannotExplain
from explainer.attribution.spec import parse_method
from explainer.classifiers import IMAGENET_CLASSES
from explainer.explanandum import ClassifierCard, Explanandum, OutputKind, open_explanandum
from explainer.library import pretrained
from explainer.library.pretrained import CONFIG
from explainer.network import Explainer
from explainer.own_classifier import is_own, own_code, use_own_code
from explainer.run_folder import RunFolder, load_explainer
from explainer.weights import read_metadata
from programs.classifier_options import named_architecture
from programs.evaluate_subject import default_weights, open_run
from programs.explain_options import ExplainOptions, ExplainRequest

IMAGE_SIZE = 224
CHEAP = ("grad_cam", "grad_cam_pp", "group_cam", "full_grad", "lrp", "guided_backprop")
"""Methods of 35 passes at most, which a page can offer without letting anybody wait."""


@dataclass(frozen=True, eq=False)
class Explaining:
    """A classifier under explanation.

    Args:
        explanandum: the classifier.
        network: the trained Explainer, if there is one.
    """

    explanandum: Explanandum
    network: Explainer | None

    def methods(self, texts: list[str], workers: int) -> dict[str, AttributionMethod]:
        """The methods by the texts that name them; by default the Explainer, or Grad-CAM where there is none.

        Raises:
            ValueError: for a trained method without a trained network, or one that the classifier does not suit.
        """
        texts = texts or ["explainer" if self.network is not None else "grad_cam"]
        return {text: self._method(text, workers) for text in texts}

    def cheap_methods(self, workers: int) -> dict[str, AttributionMethod]:
        """The Explainer, where there is one, and those of CHEAP that suit the classifier."""
        found = {"explainer": self._method("explainer", workers)} if self.network is not None else {}
        for name in CHEAP:
            with suppress(ValueError, CannotExplain):
                found[name] = self._method(name, workers)
        return found

    def _method(self, text: str, workers: int) -> AttributionMethod:
        spec = parse_method(text)
        if spec.is_trained and self.network is None:
            raise ValueError(f"The method '{text}' is trained; name a run that did so with --run, or --explainer FILE.")
        return spec.build(self.explanandum, workers=workers, network=self.network)

    def to(self, device: torch.device) -> "Explaining":
        """Move both to a device."""
        for network in (self.explanandum, self.network):
            if network is not None:
                network.to(device).to(memory_format=torch.channels_last)
        return self


def open_explaining(request: ExplainRequest) -> Explaining:
    """Load what the command line names.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for files that don't fit each other, or the options.
    """
    options = request.options
    if options.run is not None:
        folder = RunFolder(options.run)
        folder.read_config()  # its error says what a run folder is
        explanandum = open_run(folder, options.explanandum, request.classifier.target_layer)
        network = folder.load_explainer() if folder.explainer.is_file() else None
        return Explaining(explanandum, network)
    if options.explainer is None:
        return Explaining(_classifier(request, {}, None), None)
    if (options.explainer / CONFIG).is_file():
        return _pretrained(request, options.explainer)
    folder, file = _explainer_file(options.explainer)
    network = load_explainer(file)
    beside = folder.explanandum if folder.explanandum.is_file() else None
    explanandum = _classifier(request, read_metadata(file), beside)
    if network.num_classes != explanandum.num_classes:
        raise ValueError(
            f"{options.explainer} was trained for {network.num_classes} classes, the classifier has "
            f"{explanandum.num_classes}; name the classifier that it was trained against."
        )
    return Explaining(explanandum, network)


def _pretrained(request: ExplainRequest, folder: Path) -> Explaining:
    """What `Explainer.save_pretrained` wrote; without a classifier, it is the one that the options name."""
    network = pretrained.Explainer.from_pretrained(folder)
    card, options = network.card, request.options
    if options.explanandum is not None:
        named_architecture(options.explanandum)
    explanandum = network.explanandum
    if explanandum is None:
        if is_own(card.architecture):
            card = replace(card, version=own_code(card.architecture).version)
        explanandum = open_explanandum(options.explanandum_weights or default_weights(card.architecture), card)
    return Explaining(explanandum.reading(request.classifier.target_layer), network)


def _explainer_file(place: Path) -> tuple[RunFolder, Path]:
    """The folder of a trained Explainer and its file in there, of either of them."""
    if not place.is_dir():
        return RunFolder(place.parent), place
    return RunFolder(place), RunFolder(place).explainer


def _classifier(request: ExplainRequest, notes: dict[str, str], beside: Path | None) -> Explanandum:
    """The classifier that the options name, or the one that lies beside the Explainer.

    Args:
        request: what is asked for.
        notes: of the Explainer's file.
        beside: the classifier's file there, if there is one.
    """
    options, classifier = request.options, request.classifier
    if options.explanandum is not None and is_own(options.explanandum):
        use_own_code(options.explanandum)
    weights = Path(options.explanandum_weights) if options.explanandum_weights else beside
    if weights is not None and weights.suffix == ".safetensors" and "card" in read_metadata(weights):
        return Explanandum.load(weights).reading(classifier.target_layer)
    if options.explanandum is None:
        raise ValueError(
            "Name the classifier that is to be explained: --explanandum NAME, or a file explanandum.safetensors of "
            "train.py with --explanandum_weights."
        )
    name = named_architecture(options.explanandum)
    card = ClassifierCard(
        *(name, _class_names(request, notes), options.image_size or IMAGE_SIZE),
        *classifier.normalisation(name),
        output=classifier.output_kind or _usual_output(options),
        version=own_code(name).version if is_own(name) else "",
    )
    explanandum = open_explanandum(options.explanandum_weights or default_weights(name), card)
    return explanandum.reading(classifier.target_layer)


def _class_names(request: ExplainRequest, notes: dict[str, str]) -> tuple[str, ...]:
    """Those given, those that the Explainer's file holds, or ImageNet's for published weights."""
    if request.classifier.class_names:
        return tuple(request.classifier.class_names)
    if "classes" in notes:
        return tuple(json.loads(notes["classes"]))
    if _is_published(request.options):
        names = ResNet50_Weights.DEFAULT.meta["categories"]
        assert len(names) == IMAGENET_CLASSES
        return tuple(names)
    raise ValueError(
        "The classes of the classifier have no names yet; give them in the order of its outputs with --class_names, "
        "one after the other or in a file with one a line."
    )


def _usual_output(options: ExplainOptions) -> OutputKind:
    """Published classifiers have one class an image; of others train.py thinks, too, that they may have several."""
    return "single_label" if _is_published(options) else "multi_label"


def _is_published(options: ExplainOptions) -> bool:
    own = options.explanandum is not None and is_own(options.explanandum)
    return not own and options.explanandum_weights in (None, "imagenet")
