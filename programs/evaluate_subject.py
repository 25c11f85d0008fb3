"""What evaluate.py examines: a classifier with its images, of a run or by their names."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from datamodules import ImageDataModule
from explainer.attribution import AttributionMethod
from explainer.attribution.spec import parse_method
from explainer.evaluation import NamedMethod, named_method
from explainer.explanandum import ClassifierCard, Explanandum, open_explanandum
from explainer.machine import MachineOptions, precision_of
from explainer.network import Explainer
from explainer.own_classifier import is_own, own_code, use_own_code
from explainer.run_folder import RunFolder
from programs.classifier_options import named_architecture, require_known_classes
from programs.evaluate_options import EvaluateOptions
from programs.recipes import parse
from programs.train_options import TrainOptions, make_datamodule


@dataclass(frozen=True, eq=False)
class Subject:
    """A classifier under examination, with its images.

    Args:
        name: for tables that compare several.
        explanandum: the classifier.
        datamodule: its images, prepared as it wants them.
        precision: of the computation, as Lightning names it.
        network: the trained Explainer, if there is a run.
        training_hours: that it took.
    """

    name: str
    explanandum: Explanandum
    datamodule: ImageDataModule
    precision: str
    network: Explainer | None = None
    training_hours: float | None = None
    built: dict[tuple[str, str], NamedMethod] = field(default_factory=dict, init=False)

    def build(self, text: str, explanandum: Explanandum) -> AttributionMethod:
        """The method that a text names, for this classifier or a changed one."""
        return parse_method(text).build(explanandum, **self.resources(text))

    def method(self, text: str, classifier: str = "") -> NamedMethod:
        """The same, as a row of a table; built once, since its key takes a look at all weights."""
        if (text, classifier) not in self.built:
            resources = self.resources(text)
            self.built[text, classifier] = named_method(text, self.explanandum, self.precision, classifier, **resources)
        return self.built[text, classifier]

    def resources(self, text: str) -> dict[str, Any]:
        """What a method is handed besides the classifier."""
        if parse_method(text).is_trained and self.network is None:
            raise ValueError(f"The method '{text}' is trained; name a run that did so with --run.")
        return {"workers": self.datamodule.options.workers, "network": self.network}


def open_subject(options: EvaluateOptions, machine: MachineOptions) -> Subject:
    """Load what is to be examined, from a run or from the names of a data set and a classifier."""
    precision = precision_of(machine)
    if options.run is not None:
        folder = RunFolder(options.run)
        folder.read_config()  # its error says what a run folder is
        explanandum = open_run(folder, options.explanandum, options.classifier.target_layer)
        datamodule = run_data(options, folder, explanandum.card)
        network, hours = None, None
        if folder.explainer.is_file():
            network, hours = folder.load_explainer(), training_hours(folder)
        subject = Subject(folder.path.name, explanandum, datamodule, precision, network, hours)
    else:
        trained, card = requested(options)
        datamodule = open_data(options, trained, card)
        require_known_classes(options.classifier, datamodule)
        output = options.classifier.output_kind or ("single_label" if datamodule.single_label else "multi_label")
        card = replace(card, classes=datamodule.classes, output=output)
        explanandum = open_explanandum(options.explanandum_weights or default_weights(card.architecture), card)
        explanandum.reading(options.classifier.target_layer)
        datamodule = open_data(options, trained, explanandum.card)  # a file of ours says how it wants its images
        subject = Subject(card.architecture, explanandum, datamodule, precision)
    if subject.datamodule.classes != explanandum.card.classes:
        raise ValueError(
            f"The explanandum has {explanandum.num_classes} classes, the data set at {datamodule.options.data_root} "
            f"has {datamodule.num_classes}, or other names; evaluate on the data set that it was trained on."
        )
    if precision == "bf16-mixed":
        explanandum.store_in(torch.bfloat16)
    return subject


def open_run(folder: RunFolder, code: str | None, target_layer: str) -> Explanandum:
    """A run's classifier; `code` says where the user's own code lies, if that makes it."""
    if code:
        use_own_code(code)
    return folder.load_explanandum().reading(target_layer)


def run_data(options: EvaluateOptions, folder: RunFolder, card: ClassifierCard) -> ImageDataModule:
    """A run's data set, its images prepared as its classifier wants them."""
    named = ["--explanandum", options.explanandum] if options.explanandum else []
    trained, _ = parse(["--config", str(folder.config), *named])
    return open_data(options, trained, card)


def requested(options: EvaluateOptions) -> tuple[TrainOptions, ClassifierCard]:
    """Options as train.py would have them for the same names, and the classifier's card, its classes unknown yet."""
    names = ["--dataset", str(options.dataset), "--explanandum", str(options.explanandum)]
    given = ["--image_size", str(options.image_size)] if options.image_size else []
    trained, _ = parse([*names, *given])
    trained.classifier = options.classifier
    name = named_architecture(trained.run.explanandum)
    return trained, ClassifierCard(
        *(name, (), trained.data.image_size, *options.classifier.normalisation(name)),
        hidden=trained.finetune.hidden,
        version=own_code(name).version if is_own(name) else "",
    )


def default_weights(architecture: str) -> str:
    """Of a trained classifier, if no file is named: those published, or those that the user's own code gives it."""
    return "none" if is_own(architecture) else "imagenet"


def open_data(options: EvaluateOptions, trained: TrainOptions, card: ClassifierCard) -> ImageDataModule:
    """The data set, its images prepared as the classifier wants them."""
    names = ("batch_size", "data_root", "workers", "on_bad_image")
    changes: dict[str, Any] = {name: getattr(options, name) for name in names}
    changes[f"limit_{options.split}"] = options.limit
    given = {name: value for name, value in changes.items() if value is not None}
    names_of_classes = tuple(trained.classifier.class_names)
    data = replace(
        trained.data, mean=card.mean, std=card.std, image_size=card.image_size, class_names=names_of_classes, **given
    )
    shapes = trained.shapes
    if options.shortcut_class:
        if trained.run.dataset != "shapes":
            raise ValueError(f"--shortcut_class plants a cue in shapes only, not in {trained.run.dataset}.")
        shapes = replace(shapes, shortcut_class=options.shortcut_class)
    datamodule = make_datamodule(replace(trained, data=data, shapes=shapes))
    datamodule.dataset(options.split)  # fetched where it can be; a missing split is an error now
    return datamodule


def training_hours(folder: RunFolder) -> float | None:
    """Of the Explainer; unknown while it is still being trained."""
    return float(json.loads(folder.summary.read_text())["hours"]) if folder.summary.is_file() else None
