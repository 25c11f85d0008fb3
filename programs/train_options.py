"""What train.py can be told, as typed dataclasses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, Namespace

from datamodules import DataOptions, ImageDataModule, ShapesOptions, build_datamodule
from explainer.distillation.options import DistillOptions
from explainer.entry import started_as
from explainer.finetune import FinetuneOptions
from explainer.losses import LossWeights
from explainer.machine import MachineOptions
from explainer.objective import ObjectiveName
from explainer.optimizer import OptimizerOptions
from explainer.rtis import RtisOptions
from programs.classifier_options import LISTS, ClassifierOptions, add_lists
from programs.parser import HelpFormatter, Parser, make_flags, to_dataclass

AUTO = "auto"


@dataclass
class RunOptions:
    """What is trained on what.

    Args:
        dataset: Data set.
        explanandum: Classifier: torchvision's NAME, timm:NAME, your FILE.py:FUNCTION, or auto (vgg16; tiny for shapes).
        explanandum_weights: What its training starts from: imagenet (downloaded), none, or a file.
        encoder: Encoder of the Explainer, as segmentation-models-pytorch names it.
        encoder_weights: What the encoder starts from: none (as the paper says), imagenet (downloaded), or a file.
        output_stride: Image pixels per pixel of the encoder's output, 8 or 16.
        decoder_channels: Width of the Explainer's spatial pyramid (256 in DeepLabV3).
        epochs: At most so many epochs of the Explainer (the authors set no limit).
        patience: Epochs without a validation loss better by .001 before training stops.
        seed: Of weights, order, augmentation and dropout.
        output: Folder of the runs.
        name: Of the run's folder; <dataset>_<explanandum> if not given; a taken name gets a number.
        stage: all, or explanandum to stop once the classifier is there, or teachers once their maps are there too.
        objective: explain: the paper's losses; rtis: Real-Time Image Saliency's; distill: teachers alone, no schedule.
        refit: Fine-tune the classifier again even if it is in the cache.
        resume: Run folder to go on with.
    """

    dataset: Literal["shapes", "voc", "coco", "folder", "imagenet"] = "shapes"
    explanandum: str = AUTO
    explanandum_weights: str = "imagenet"
    encoder: str = "resnet50"
    encoder_weights: str = "none"
    output_stride: Literal[8, 16] = 8
    decoder_channels: int = 256
    epochs: int = 1000
    patience: int = 5
    seed: int = 42
    output: Path = Path("runs")
    name: str | None = None
    stage: Literal["all", "explanandum", "teachers"] = "all"
    objective: ObjectiveName = "explain"
    refit: bool = False
    resume: Path | None = None

    def __post_init__(self) -> None:
        """Settle the classifier; refuse numbers that would fail only after the classifier's training."""
        self.explanandum = settled(self.explanandum, self.dataset)
        for name, smallest in (("epochs", 1), ("patience", 0), ("decoder_channels", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"--{name} must be at least {smallest}, got {getattr(self, name)}.")


def settled(explanandum: str, dataset: str) -> str:
    """The classifier that `auto` stands for: one that trains in a minute on `shapes`, else the paper's first."""
    if explanandum != AUTO:
        return explanandum
    return "timm:test_resnet" if dataset == "shapes" else "vgg16"


@dataclass
class TrainOptions:
    """Everything that train.py can be told.

    Raises:
        ValueError: where teachers are needed, and none is named.
    """

    run: RunOptions = field(default_factory=RunOptions)
    data: DataOptions = field(default_factory=DataOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)
    classifier: ClassifierOptions = field(default_factory=ClassifierOptions)
    loss: LossWeights = field(default_factory=LossWeights)
    rtis: RtisOptions = field(default_factory=RtisOptions)
    finetune: FinetuneOptions = field(default_factory=FinetuneOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    shapes: ShapesOptions = field(default_factory=ShapesOptions)

    def __post_init__(self) -> None:
        """Refuse what would fail only after the classifier's training."""
        wishes = {
            "--objective distill": self.run.objective == "distill",
            "--stage teachers": self.run.stage == "teachers",
        }
        for wish, wished in wishes.items():
            if wished and not self.distill.teachers:
                raise ValueError(f"{wish} needs a teacher; name a method with --distill.teachers.")
        taught, patience = bool(self.distill.teachers) and self.run.objective == "explain", self.run.patience
        if taught and 0 < patience <= self.distill.warmup_epochs:
            raise ValueError(
                f"--distill.warmup_epochs {self.distill.warmup_epochs:g} needs a larger --patience than {patience}: "
                "the paper's losses, which decide when training stops, may rise while the teachers count most."
            )
        if self.distill.part() != (0, 1) and self.run.stage != "teachers":
            raise ValueError(f"--distill.shard {self.distill.shard} is for --stage teachers; training needs all maps.")


FLAT: dict[str, tuple[type, set[str | int]]] = {
    "run": (RunOptions, set()),
    "data": (DataOptions, {"mean", "std", "seed", "class_names"}),  # the classifier's business, and the run's
    "optimizer": (OptimizerOptions, set()),
    "machine": (MachineOptions, set()),
    "classifier": (ClassifierOptions, set(LISTS)),
}


NESTED: dict[str, type] = {
    "loss": LossWeights,
    "rtis": RtisOptions,
    "finetune": FinetuneOptions,
    "distill": DistillOptions,
    "shapes": ShapesOptions,
}


def make_parser(default_config: Path | None = None) -> Parser:
    """The parser of train.py; `default_config` is the recipe below `--config` and flags."""
    parser = Parser(
        prog="train.py",
        usage=f"{started_as('train')} [--dataset NAME] [--explanandum NAME] [--data_root DIR] [options]",
        description=(
            "Train an Explainer against a frozen classifier. A value comes from the default shown here, then the "
            "recipe configs/<dataset>_<explanandum>.yaml, then --config, then the flag; --print_config shows the "
            "outcome."
        ),
        default_config_files=[str(default_config)] if default_config else [],
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with options.")
    for options, skipped in FLAT.values():
        parser.add_class_arguments(options, None, skip=skipped)
    for name, options in NESTED.items():
        parser.add_class_arguments(options, name, skip={"teachers"} if name == "distill" else set())
    parser.add_argument(
        "--distill.teachers",
        nargs="+",
        default=[],
        help="Methods, as evaluate.py --methods has them, e.g. group_cam pami:second_run=false; none by default.",
    )
    add_lists(parser)
    make_flags(parser)
    return parser


def to_options(namespace: Namespace | dict[str, Any]) -> TrainOptions:
    """Parsed arguments, or a run's saved config, as dataclasses."""
    # What the classifier's options call the same, the data set is told once it is known what classifier it is.
    late = {"data": set(LISTS)}
    flat: dict[str, Any] = {
        name: to_dataclass(options, namespace, late.get(name, set())) for name, (options, _) in FLAT.items()
    }
    nested: dict[str, Any] = {name: to_dataclass(options, namespace[name]) for name, options in NESTED.items()}
    return TrainOptions(**flat, **nested)


def make_datamodule(options: TrainOptions) -> ImageDataModule:
    """The data set of a run, not set up yet."""
    return build_datamodule(options.run.dataset, options.data, options.shapes)
