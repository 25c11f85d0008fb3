"""What train.py, evaluate.py and explain.py can be told of a classifier that its name does not say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from datamodules import ImageDataModule
from datamodules.base import SPLITS
from datamodules.labels_table import read_classes
from explainer.classifiers import normalisation
from explainer.explanandum import OutputKind
from explainer.own_classifier import is_own, own_name, use_own_code
from explainer.weights import some

Channels = tuple[float, float, float]
LISTS = ("class_names", "mean", "std")


@dataclass
class ClassifierOptions:
    """Of a classifier of the user's own, above all.

    Args:
        class_names: Names in the order of the outputs, or a file with one a line (default: the data set's).
        mean: Of red, green and blue in [0, 1], that images are normalised with (default: as published weights).
        std: Their standard deviations.
        output_kind: An image has any number of classes (sigmoid), or just one (softmax); by default as the data set.
        target_layer: Layer that CAM methods read, by its name within the classifier; else the last that gives maps.
    """

    class_names: list[str] = field(default_factory=list)
    mean: list[float] | None = None
    std: list[float] | None = None
    output_kind: OutputKind | None = None
    target_layer: str = ""

    def __post_init__(self) -> None:
        """Read the file of names, if it is one; refuse what can't be.

        Raises:
            ValueError: for a mean without a standard deviation or the other way round, or one that is not positive; for
                names that stand there twice.
        """
        if len(self.class_names) == 1 and Path(self.class_names[0]).is_file():
            self.class_names = list(read_classes(Path(self.class_names[0])))
        twice = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
        if twice:
            raise ValueError(f"--class_names has {', '.join(twice)} more than once; every class needs one name.")
        if (self.mean is None) != (self.std is None):
            raise ValueError("--mean and --std belong together; give both, three numbers each.")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"--std must be positive in every channel, got {self.std}.")

    @property
    def given(self) -> list[str]:
        """The options that say something, all but the layer, which changes no classifier."""
        return [name for name in (*LISTS, "output_kind") if getattr(self, name) not in (None, [])]

    def normalisation(self, architecture: str) -> tuple[Channels, Channels]:
        """Mean and standard deviation: those given, or the architecture's."""
        if self.mean is None or self.std is None:
            return normalisation(architecture)
        (red, green, blue), (red_std, green_std, blue_std) = self.mean, self.std
        return (red, green, blue), (red_std, green_std, blue_std)


def add_lists(parser: ArgumentParser) -> None:
    """The options of `ClassifierOptions` that take several values."""
    texts = {
        "class_names": "Names in the order of the outputs, or a file with one a line (default: the data set's).",
        "mean": "Of red, green and blue in [0, 1], that images are normalised with (default: as published weights).",
        "std": "Their standard deviations.",
    }
    keywords: dict[str, dict[str, Any]] = {
        "class_names": {"nargs": "+", "type": str, "default": [], "metavar": "NAME"},
        "mean": {"nargs": 3, "type": float, "metavar": "M"},
        "std": {"nargs": 3, "type": float, "metavar": "S"},
    }
    for name in LISTS:
        parser.add_argument(f"--{name}", help=texts[name], **keywords[name])


def require_known_classes(options: ClassifierOptions, datamodule: ImageDataModule) -> None:
    """Whether the classes of the data set are those that the classifier's outputs are called.

    Raises:
        ValueError: if they are others, or in another order, and the data set can't be told.
    """
    named = tuple(options.class_names)
    if named and named != datamodule.classes:
        raise ValueError(
            f"--class_names has {len(named)} names ({some(list(named))}), but the data set fixes its "
            f"{datamodule.num_classes} classes and their order: {some(list(datamodule.classes))}. Leave --class_names "
            "out, and let the classifier give its outputs in that order."
        )


def require_single_labels(datamodule: ImageDataModule) -> None:
    """Whether each image has exactly one class, as a softmax has it.

    Raises:
        ValueError: naming the first image that has none, or several.
    """
    for split in [split for split in SPLITS if datamodule.is_available(split)]:
        dataset = datamodule.dataset(split)
        for name, labels in zip(dataset.image_ids, dataset.labels(), strict=True):
            if len(labels) != 1:
                raise ValueError(
                    f"--output_kind single_label needs images of exactly one class, but {name} ({split}) has "
                    f"{len(labels)}. Correct its row, or pass --output_kind multi_label."
                )


def named_architecture(explanandum: str) -> str:
    """What a card calls the classifier that the command line names; a user's own code is run.

    Raises:
        ValueError: if that fails.
    """
    if is_own(explanandum):
        use_own_code(explanandum)
    return own_name(explanandum)
