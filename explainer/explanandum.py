"""The explanandum: a trained classifier, frozen for good, that knows what its outputs mean.

B images, C classes, H×W pixels.
"""

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from explainer.capture import last_spatial_layer, named_layer
from explainer.classifier_check import check_classifier, check_probe, probe
from explainer.classifiers import build_classifier, trained_classifier
from explainer.keys import digest_of_network
from explainer.own_classifier import is_own, own_code
from explainer.weights import load_matching, read_metadata, read_state_dict, save_weights, some

OutputKind = Literal["multi_label", "single_label"]


def class_probabilities(logits: Tensor, output: OutputKind) -> Tensor:
    """Logits [B,C] -> probabilities [B,C], float32: sigmoid for a multi-label classifier, else softmax."""
    logits = logits.float()
    return logits.sigmoid() if output == "multi_label" else logits.softmax(dim=1)


@dataclass(frozen=True)
class ClassifierCard:
    """All that is needed, besides its weights, to rebuild a classifier and to feed it.

    Args:
        architecture: torchvision name, or `timm:<name>`.
        classes: class names, in the order of the outputs.
        image_size: pixels; images are squashed to image_size × image_size.
        mean: of the images' red, green and blue, in [0, 1], as the classifier was trained.
        std: likewise.
        output: what the logits mean: independent classes (sigmoid) or exactly one class (softmax).
        hidden: width of a fresh VGG head's two hidden layers.
        target_layer: name of the layer that CAM methods read; empty finds the last spatial one.
        version: of the user's own code, where that makes the classifier.
    """

    architecture: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    output: OutputKind = "multi_label"
    hidden: int = 4096
    target_layer: str = ""
    version: str = ""

    def facts(self) -> dict[str, Any]:
        """Its fields, for keys and files; those that most cards leave empty are left out, as older cards lack them."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("target_layer", "version")}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The card whose `asdict` went through JSON, which has no tuples."""
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**(fields | lists))


class Explanandum(nn.Module):
    """A frozen classifier: always in eval mode, no parameter requires a gradient; gradients still reach the image.

    Args:
        model: image [B,3,H,W] -> logits [B,C].
        card: what the model is and how it wants its images.
    """

    def __init__(self, model: nn.Module, card: ClassifierCard) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.card = card
        self._found_layer: str | None = None
        self._stored_in: torch.dtype | None = None
        self._before_storing: dict[str, str] = {}  # hash of the rounded weights -> hash of those they were made from
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever a parent module is switched to: dropout off, BatchNorm statistics fixed."""
        return super().train(False)

    def forward(self, image: Tensor, *, autocast: bool = True) -> Tensor:
        """Logits [B,C] of normalised images [B,3,H,W], which stay as they are whatever the model does to its input.

        Args:
            image: [B,3,H,W].
            autocast: as `store_in` has it; False is for a caller who sees to the weights' dtype in every step.
        """
        if self.model.training:  # someone called `.model.train()`, which this class can't intercept
            self.eval()
        with self._precision(image.device.type) if autocast else nullcontext():
            return self.model(image.clone())  # some normalise it in place

    def _precision(self, device_type: str) -> AbstractContextManager[Any]:
        return nullcontext() if self._stored_in is None else torch.autocast(device_type, self._stored_in)

    def probabilities(self, logits: Tensor) -> Tensor:
        """See `class_probabilities`."""
        return class_probabilities(logits, self.card.output)

    @property
    def num_classes(self) -> int:
        """C, the number of outputs."""
        return len(self.card.classes)

    @property
    def target_layer(self) -> str:
        """Name of the layer that CAM methods read, within `model`."""
        if self.card.target_layer:
            return self.card.target_layer
        if self._found_layer is None:
            self.eval()  # as in `forward`: the zero image that finds the layer must not move BatchNorm's statistics
            with self._precision(next(self.model.parameters()).device.type):
                self._found_layer = last_spatial_layer(self.model, self.card.image_size)
        return self._found_layer

    def reading(self, layer: str) -> Self:
        """Let CAM methods read another layer; an empty name changes nothing.

        Raises:
            CannotExplain: if there is no layer of that name.
        """
        if layer:
            named_layer(self.model, layer)
            self.card = replace(self.card, target_layer=layer)
        return self

    def layer_or_own(self, name: str | None) -> str:
        """Name of the layer that a CAM method reads: the one that it was told, or `target_layer`.

        Raises:
            CannotExplain: if there is no layer of that name.
        """
        if name is None:
            return self.target_layer
        named_layer(self.model, name)
        return name

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and of the card: equal fingerprints mean equal outputs and maps for the same photograph.

        Where the weights lie, their memory layout and `store_in` make no difference.
        """
        digest = self._digest()
        return self._before_storing.get(digest, digest)

    def _digest(self) -> str:
        digest = hashlib.sha256(json.dumps(self.card.facts(), sort_keys=True).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def store_in(self, dtype: torch.dtype) -> Self:
        """Keep the weights of convolutions and linear layers in the dtype that autocast would cast them to.

        The numbers are those of autocast; the cast of every weight in every step, which autocast caches only for
        weights that are trained, is saved. From here on every pass runs under autocast.
        """
        before = self.fingerprint
        self._stored_in = dtype
        for module in self.model.modules():
            # Exact types: some subclasses first compute with their weight, e.g. standardise it, in float32.
            if type(module) in (nn.Conv2d, nn.Linear):
                module.to(dtype)
        self._before_storing = {self._digest(): before}
        return self

    def save(self, file: Path, **notes: str) -> None:
        """Write weights and card to a safetensors file, whole or not at all; `notes` go into its header.

        Raises:
            RuntimeError: after `store_in`, when the weights are rounded ones.
        """
        if self._stored_in is not None:
            raise RuntimeError(f"The weights are rounded to {self._stored_in}; save the explanandum before store_in.")
        if is_own(self.card.architecture):
            notes |= {"probe": json.dumps(probe(self.model, self.card.image_size))}
        save_weights(self.model, file, {"card": json.dumps(self.card.facts()), **notes})

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file was not written by `save`; if the classifier is made by code that may not run, or
                that makes another one by now.
        """
        return cls(*load_classifier(file))


def read_card(file: Path) -> ClassifierCard:
    """The card in a file that `Explanandum.save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file was not written by `save`.
    """
    notes = read_metadata(file)
    if "card" not in notes:
        raise ValueError(f"{file} holds plain weights, not an explanandum that train.py saved.")
    return ClassifierCard.from_json(json.loads(notes["card"]))


def load_classifier(file: Path) -> tuple[nn.Module, ClassifierCard]:
    """Rebuild the classifier that `Explanandum.save` wrote, not frozen yet."""
    card = read_card(file)
    model, _ = build_classifier(card.architecture, len(card.classes), "none", card.hidden, card.image_size)
    load_matching(model, read_state_dict(file), may_miss=(), source=file)
    if is_own(card.architecture):
        check_probe(model, card.image_size, json.loads(read_metadata(file)["probe"]), card.architecture)
        card = replace(card, version=own_code(card.architecture).version)
    return model, card


def open_explanandum(weights: str | Path, card: ClassifierCard) -> Explanandum:
    """A trained classifier as it is, head included.

    Args:
        weights: a file that `Explanandum.save` wrote, whose own card then counts; else what `trained_classifier` takes,
            built by `card`.
        card: of the classifier that is expected.

    Raises:
        ValueError: if the file's own card has other classes, and as `trained_classifier` does; if a user's code makes a
            classifier that can't be explained, or whose weights are random.
        OSError: if there is no such file, or a download failed.
    """
    file = Path(weights)
    if file.suffix != ".safetensors" or "card" not in read_metadata(file):
        model = trained_classifier(card.architecture, len(card.classes), str(weights), card.hidden, card.image_size)
        if is_own(card.architecture):
            check_classifier(model, len(card.classes), card.image_size, card.target_layer)
            if str(weights) == "none":
                _refuse_random(model, card)
        return Explanandum(model, card)
    explanandum = Explanandum.load(file)
    if explanandum.card.classes != card.classes:
        raise ValueError(
            f"{file} is a classifier of other classes ({_listed(explanandum.card.classes)}) than the data set's "
            f"({_listed(card.classes)}), or in another order; pass one that was trained on this data set's classes."
        )
    return explanandum


def _refuse_random(model: nn.Module, card: ClassifierCard) -> None:
    """Code that makes other weights each time gives none that are trained."""
    with torch.random.fork_rng():
        torch.manual_seed(torch.initial_seed() + 1)
        again, _ = build_classifier(card.architecture, len(card.classes), "none", card.hidden, card.image_size)
    if digest_of_network(again) != digest_of_network(model):
        raise ValueError(
            f"{card.architecture} makes a classifier with random weights, others each time. Pass trained ones with "
            "--explanandum_weights FILE, let the code load them, or train it first: train.py --finetune.epochs 10."
        )


def _listed(classes: tuple[str, ...]) -> str:
    return f"{len(classes)}: {some(list(classes))}"
