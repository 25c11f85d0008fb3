"""The command line of train.py, made from typed dataclasses, and the recipes in `configs/`.

Precedence: code default < recipe `configs/<dataset>_<explanandum>.yaml` < `--config FILE` < flag.
"""

import argparse
import difflib
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from classifier_options import LISTS, ClassifierOptions, add_lists
from datamodules import DataOptions, ImageDataModule, ShapesOptions, build_datamodule
from explainer.distillation.options import DistillOptions
from explainer.entry import started_as
from explainer.finetune import FinetuneOptions
from explainer.losses import LossWeights
from explainer.machine import MachineOptions
from explainer.objective import ObjectiveName
from explainer.optimizer import OptimizerOptions
from explainer.own_classifier import is_own, own_name
from explainer.rtis import RtisOptions
from explainer.run_folder import RunFolder

CONFIGS = Path(__file__).parent / "configs"
OWN_RECIPE = "own.yaml"
"""For classifiers of the user's own, whatever the data set."""
AUTO = "auto"
OptionsT = TypeVar("OptionsT")


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


UNKNOWN_KEY = (
    re.compile(r"(?:Key|Option) '([\w.-]+)' is not (?:expected|accepted)()"),
    re.compile(r"Group '([\w.-]+)' does not accept option '([\w.-]+)'"),
)
"""How jsonargparse's messages name the misspelt key of a YAML file."""


def _once(text: str) -> str:
    """A help text without the headings that the group before has too."""
    kept: list[str] = []
    for group in text.split("\n\n"):
        heading, _, rest = group.partition("\n")
        if kept and heading.endswith(":") and kept[-1].startswith(f"{heading}\n"):
            kept[-1] += f"\n{rest}"
        else:
            kept.append(group)
    return "\n\n".join(kept)


class HelpFormatter(DefaultHelpFormatter):
    """One line per option where the terminal is wide enough; defaults, but no Python types."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=max(100, shutil.get_terminal_size((160, 50)).columns) - 2)

    def format_help(self) -> str:
        """Neighbouring groups with the same heading stand below one."""
        return _once(super().format_help())

    def _expand_help(self, action: argparse.Action) -> str:
        return re.sub(r"\((required, )?type: .*?(?:, (default: .*))?\)$", _without_type, super()._expand_help(action))


def _without_type(found: re.Match[str]) -> str:
    parts = [part.rstrip(", ") for part in found.groups() if part]
    return f"({', '.join(parts)})" if parts else ""


class Parser(ArgumentParser):
    """Takes options by their full names only, and names the closest valid ones when one is misspelt."""

    def __init__(self, **keywords: Any) -> None:
        # The recipe is found before parsing, by the full names: an abbreviation would silently get another one.
        super().__init__(**{"allow_abbrev": False, **keywords})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2, the message and, for an unknown option or key, the valid ones."""
        valid = sorted(
            {option for action in self._actions for option in action.option_strings if option.startswith("--")}
        )
        unknown = re.findall(r"--[\w.-]+", message) if "nrecognized" in message else []
        unknown += ["--" + ".".join(filter(None, key)) for pattern in UNKNOWN_KEY for key in pattern.findall(message)]
        for name in dict.fromkeys(option for option in unknown if option not in valid):
            close = difflib.get_close_matches(name, valid, n=3)
            message += f"\n{name} is no option; " + (f"did you mean {' or '.join(close)}? " if close else "")
            message += f"Valid: {', '.join(valid)}."
        super().error(message, ex)


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


def make_flags(parser: Parser) -> None:
    """Let `--refit` stand for `--refit true`, and likewise every other option that is true or false.

    A group's own option (`--loss FILE`) still works, but is no line of the help: `--config` does the same.
    """
    for action in parser._actions:
        if action.help == "Path to a configuration file.":
            action.help = argparse.SUPPRESS
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.const = "?", True


def parse(arguments: Sequence[str]) -> tuple[TrainOptions, str]:
    """Command line -> options, and the YAML text that alone gives the same options again.

    Raises:
        SystemExit: with status 2 and a message for anything that is not valid.
        ValueError: for a file that names code to run, which the command line itself does not name.
    """
    arguments = _config_files_first(arguments)
    resumed = _peek(arguments).resume
    if resumed:
        folder = RunFolder(Path(resumed))
        folder.read_config()  # its error says what a run folder is
        arguments = ["--config", str(folder.config), *arguments]
    asks_for_help = not {"-h", "--help"}.isdisjoint(arguments)  # which shows the code's defaults
    # A resumed run has all options in its own file, but for those that are newer than the run.
    parser = make_parser(None if asks_for_help or resumed else find_recipe(arguments))
    namespace = parser.parse_args(arguments)
    options = to_options(namespace)
    if is_own(options.run.explanandum) and not _peek(arguments).explanandum:
        refuse_to_run(options.run.explanandum)
    # One-time wishes; whoever repeats the run has them no more.
    namespace.resume, namespace.refit, namespace.distill.cache_info = None, False, False
    namespace.distill.shard = DistillOptions.shard
    config = parser.dump(namespace, skip_unset=False)
    if resumed:
        saved = parser.dump(parser.parse_args(["--config", str(folder.config)]), skip_unset=False)
        refuse_changes(yaml.safe_load(saved), yaml.safe_load(config))
    return options, config


def refuse_to_run(code: str) -> NoReturn:
    """A file must not have code run that whoever starts the program has not named.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"The configuration has its classifier made by code, '{code}', which runs only if you name it. If you trust "
        f"it, add --explanandum {code}, with the path where it lies."
    )


MAY_CHANGE = {"epochs", "patience", "stage", "data_root", "workers", "output", "name", "limit_test"}
MAY_CHANGE |= {item.name for item in fields(MachineOptions)}
"""What a resumed run may be told anew; with anything else changed its saved config would no longer repeat it."""
MAY_CHANGE_WITHIN = {"distill": {"cache", "batch_size", "shard"}}
"""Likewise within groups: where and how teacher maps are computed, not which."""


def refuse_changes(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare a run's saved options with those it is to go on with.

    Raises:
        ValueError: naming the options that can't change.
    """
    changed = sorted(
        name
        for name, value in wanted.items()
        if name not in MAY_CHANGE and _fixed(name, saved.get(name)) != _fixed(name, value)
    )
    if changed:
        free = MAY_CHANGE | {f"{group}.{name}" for group, names in MAY_CHANGE_WITHIN.items() for name in names}
        raise ValueError(
            f"A resumed run keeps its {', '.join(changed)}; start a new run, or change only: {', '.join(sorted(free))}."
        )


def _fixed(name: str, value: Any) -> Any:
    """An option, or of a group what can't change; the user's own code may have moved."""
    if name == "explanandum":
        return own_name(value)
    free = MAY_CHANGE_WITHIN.get(name, set())
    return {key: item for key, item in value.items() if key not in free} if isinstance(value, dict) else value


def find_recipe(arguments: Sequence[str]) -> Path | None:
    """The recipe for the data set and classifier that the arguments (or files they name) choose; None if there is none.

    Raises:
        FileNotFoundError: if the recipes were not installed.
    """
    if not CONFIGS.is_dir():
        raise FileNotFoundError(f"No recipes at {CONFIGS}; install again, with `pip install .` in a clone.")
    peeked = _peek(arguments)
    chosen = {"dataset": RunOptions.dataset, "explanandum": RunOptions.explanandum}
    for file in peeked.config:
        content = _yaml(Path(file)) if Path(file).is_file() else {}
        chosen |= {key: content[key] for key in chosen if isinstance(content, dict) and key in content}
    chosen |= {key: getattr(peeked, key) for key in chosen if getattr(peeked, key)}
    classifier = settled(chosen["explanandum"], chosen["dataset"])
    name = OWN_RECIPE if is_own(classifier) else f"{chosen['dataset']}_{classifier}.yaml".replace(":", "-")
    recipe = CONFIGS / name
    return recipe if recipe.is_file() else None


def _yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no valid YAML: {error}") from error


def _config_files_first(arguments: Sequence[str]) -> list[str]:
    """The arguments reordered: to jsonargparse the last one wins, but a flag beats a file wherever it stands."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("--config", action="append", default=[])
    try:
        known, others = peek.parse_known_args(arguments)
    except argparse.ArgumentError:  # `--config` without a file: the full parser will say so
        return list(arguments)
    return [*(part for file in known.config for part in ("--config", file)), *others]


def _peek(arguments: Sequence[str]) -> argparse.Namespace:
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--dataset", "--explanandum", "--resume"):
        peek.add_argument(name)
    peek.add_argument("--config", action="append", default=[])
    try:
        return peek.parse_known_args(arguments)[0]
    except argparse.ArgumentError:  # e.g. an option without its value: the full parser will say so
        return argparse.Namespace(dataset=None, explanandum=None, resume=None, config=[])


def to_options(namespace: Namespace | dict[str, Any]) -> TrainOptions:
    """Parsed arguments, or a run's saved config, as dataclasses."""
    # What the classifier's options call the same, the data set is told once it is known what classifier it is.
    late = {"data": set(LISTS)}
    flat: dict[str, Any] = {
        name: to_dataclass(options, namespace, late.get(name, set())) for name, (options, _) in FLAT.items()
    }
    nested: dict[str, Any] = {name: to_dataclass(options, namespace[name]) for name, options in NESTED.items()}
    return TrainOptions(**flat, **nested)


def to_dataclass(
    options: type[OptionsT], values: Namespace | dict[str, Any], left_out: Collection[str] = ()
) -> OptionsT:
    """The fields of a dataclass picked from parsed arguments."""
    names = [item.name for item in fields(options) if item.name in values and item.name not in left_out]  # type: ignore[arg-type]
    return options(**{name: values[name] for name in names})


def make_datamodule(options: TrainOptions) -> ImageDataModule:
    """The data set of a run, not set up yet."""
    return build_datamodule(options.run.dataset, options.data, options.shapes)
