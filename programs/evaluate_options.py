"""The command line of evaluate.py."""

import argparse
import shutil
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from explainer.attribution.catalogue import details, overview
from explainer.attribution.spec import parse_method
from explainer.entry import started_as
from explainer.evaluation.options import TABLES, TableOptions
from explainer.evaluation.tables import GalleryTable, TopClassesTable
from explainer.evaluation.tables.ablation import NAME as ABLATION
from explainer.evaluation.tables.ablation import Ablation, parse_ablation
from explainer.machine import MachineOptions
from explainer.own_classifier import is_own
from programs.classifier_options import LISTS, ClassifierOptions, add_lists
from programs.parser import HelpFormatter, Parser, make_flags, to_dataclass

ALL = "all"
DEFAULT_METHODS = ["explainer", "grad_cam"]
DEFAULT_METHODS_WITHOUT_RUN = ["grad_cam"]


@dataclass
class EvaluateOptions:
    """What is evaluated.

    Args:
        run: Folder that train.py made; without one, say --dataset and --explanandum.
        dataset: Data set, without a run.
        explanandum: Trained classifier, without a run: a torchvision name, timm:NAME, or one of your own
            (file.py:function or module:function). With a run only to say where the code lies that makes its classifier.
        explanandum_weights: Its weights, head included: a file (also train.py's), or imagenet (downloaded, default).
        split: Split of the data set.
        output: Folder of the tables; RUN/evaluation, or evaluation/<dataset>_<explanandum>, if not given.
        limit: Use only so many images, evenly spaced over the split.
        batch_size: Images a batch, on each device; the run's (without a run 16) if not given.
        image_size: Pixels, without a run.
        data_root: Folder of the data set; the run's (without a run data) if not given.
        workers: Processes that load images; the run's (without a run 2) if not given.
        on_bad_image: What to do about an unreadable image: stop, or leave it out and say so; the run's if not given.
        maps: Folder that keeps the maps for other evaluations; OUTPUT/maps if not given.
        keep_maps: Keep the maps (four bytes per pixel, class and method).
        shortcut_class: Plant the shortcut of this class in shapes, if the run itself has none.
        other_run: A run to compare with in the shortcut table, e.g. one whose classifier never saw the shortcut.
        figures: Draw the papers' figures too, as PDF and PNG, into OUTPUT/figures (see docs/figures.md).
        tensorboard: Log tables, curves, figures and gallery (then a table too) there, e.g. RUN/tensorboard, beside
            training.
        report: Write report/index.html too: a page with tables, charts and a gallery, which becomes a table too.
        runs: Several runs instead of one; what differs between them stands on one page.
        differing: With --runs, so many images in which a run differs most from the one before come into all galleries.
    """

    run: Path | None = None
    dataset: Literal["shapes", "voc", "coco", "folder", "imagenet"] | None = None
    explanandum: str | None = None
    explanandum_weights: str | None = None
    split: Literal["train", "val", "test"] = "test"
    output: Path | None = None
    limit: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    data_root: Path | None = None
    workers: int | None = None
    on_bad_image: Literal["error", "skip"] | None = None
    maps: Path | None = None
    keep_maps: bool = True
    shortcut_class: str | None = None
    other_run: Path | None = None
    figures: bool = False
    tensorboard: Path | None = None
    report: bool = False
    runs: tuple[Path, ...] = ()
    differing: int = 50
    classifier: ClassifierOptions = field(default_factory=ClassifierOptions)

    def __post_init__(self) -> None:
        """Either a run, or several, or a data set and a classifier."""
        self.runs = tuple(self.runs)
        named = (self.dataset is not None, self.explanandum is not None and not is_own(self.explanandum))
        both = None not in (self.dataset, self.explanandum)
        has_run = self.run is not None or bool(self.runs)
        if (has_run and any(named)) or not (has_run or both) or (self.run is not None and self.runs):
            raise ValueError(
                "Give either --run RUN (or --runs RUN RUN), or both --dataset and --explanandum (with "
                "--explanandum_weights FILE)."
            )
        if len({run.resolve() for run in self.runs}) < len(self.runs):
            raise ValueError(f"--runs names a run twice: {', '.join(map(str, self.runs))}.")
        if has_run:
            own = [name for name in ("image_size", "explanandum_weights") if getattr(self, name) is not None]
            own += self.classifier.given
            if own:
                raise ValueError(f"--{own[0]} is the run's own; give it only without --run.")
        if self.maps is not None and not self.keep_maps:
            raise ValueError("--maps and --keep_maps false contradict each other; give one of them.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit must be at least 1, got {self.limit}.")
        if self.differing < 0:
            raise ValueError(f"--differing must be 0 or more, got {self.differing}.")


@dataclass
class Wishes:
    """Which rows and tables are wanted.

    Args:
        methods: as `--methods` has them.
        tables: their names, or all.
        ablations: options under test.
        ablation_tables: those whose main numbers the ablation shows.
        table: options of the tables.
    """

    methods: list[str]
    tables: list[str]
    ablations: list[Ablation]
    ablation_tables: list[str]
    table: TableOptions


class ListMethods(argparse.Action):
    """Print what --methods takes, and exit: like --help, whatever else is on the command line."""

    def __init__(self, option_strings: list[str], dest: str, **keywords: Any) -> None:
        super().__init__(
            option_strings,
            argparse.SUPPRESS,
            nargs="*",
            default=argparse.SUPPRESS,
            metavar="NAME",
            help=keywords["help"],
        )

    def __call__(self, parser: argparse.ArgumentParser, _namespace: Any, names: Any, _option: Any = None) -> None:
        """Exit with status 0, or, for an unknown name, with status 2."""
        width = min(max(shutil.get_terminal_size((100, 50)).columns, 60), 120)
        try:
            print("\n\n".join(details(name, width) for name in names) if names else overview(width))
        except ValueError as error:
            parser.error(str(error))
        parser.exit()


def make_parser() -> Parser:
    """The parser of evaluate.py; float32 unless told otherwise: a result must not depend on hardware."""
    parser = Parser(
        prog="evaluate.py",
        usage=f"{started_as('evaluate')} --run RUN [--methods NAME ...] [--tables NAME ...] [options]",
        description="Evaluate attribution methods: methods x tables, from one set of maps.",
        formatter_class=HelpFormatter,
    )
    parser.add_class_arguments(EvaluateOptions, None, skip={"classifier", "runs"})
    parser.add_class_arguments(ClassifierOptions, None, skip=set(LISTS))
    add_lists(parser)
    parser.add_argument(
        "--runs",
        nargs="+",
        type=Path,
        default=[],
        help="Several runs instead of --run: their tables, and one page that says in what they differ.",
    )
    _add_methods(parser)
    _add_tables(parser)
    parser.add_class_arguments(MachineOptions, None, default={"precision": "32-true"}, skip={"compile"})
    make_flags(parser)
    return parser


def _add_methods(parser: Parser) -> None:
    parser.add_argument(
        "--methods",
        nargs="+",
        type=str,
        help="Attribution methods, each as NAME or NAME:option=value,option=value (default: explainer grad_cam).",
    )
    parser.add_argument(
        "--list_methods",
        action=ListMethods,
        help="Print every method with its paper, cost and options, or what a method's options mean, and exit.",
    )


def _add_tables(parser: Parser) -> None:
    """Which tables, and the options of each."""
    names = [*TABLES, ABLATION]
    parser.add_argument(
        "--tables",
        nargs="+",
        metavar="NAME",
        choices=[ALL, *names],
        default=["segmentation"],
        help=f"Tables to make: {', '.join(names)}; or all that the data set allows.",
    )
    parser.add_argument(
        "--ablate",
        nargs="+",
        type=str,
        default=[],
        help="Options under test for the table ablation, e.g. group_cam:groups=1,4,8,16,32.",
    )
    parser.add_argument(
        "--ablation_tables",
        nargs="+",
        metavar="NAME",
        choices=list(TABLES),
        default=["insertion_deletion"],
        help="Tables whose main numbers the ablation shows.",
    )
    for item in fields(TableOptions):
        parser.add_class_arguments(item.default_factory, item.name, skip={"classes"})
    parser.add_argument(
        "--masking.classes",
        nargs="+",
        type=str,
        default=[],
        help="Classes of the masking table (default: bottle car cat dog person, or the five most frequent).",
    )


def parse_evaluation(arguments: list[str]) -> tuple[EvaluateOptions, Wishes, MachineOptions]:
    """Command line -> options.

    Raises:
        SystemExit: with status 2 and a message for anything that is not valid.
        ValueError: for an unknown method or option of a method.
    """
    parser = make_parser()
    given = parser.parse_args(arguments)
    try:
        given["classifier"] = to_dataclass(ClassifierOptions, given)
        options = to_dataclass(EvaluateOptions, given)
    except ValueError as error:
        parser.error(str(error))
    table = TableOptions(
        **{item.name: to_dataclass(item.default_factory, given[item.name]) for item in fields(TableOptions)}  # type: ignore[arg-type]
    )
    table.masking = replace(table.masking, classes=tuple(given["masking"]["classes"]))
    has_run = options.run is not None or bool(options.runs)
    methods = given["methods"] or (DEFAULT_METHODS if has_run else DEFAULT_METHODS_WITHOUT_RUN)
    for text in methods:
        parse_method(text)
    tables = given["tables"] if ALL not in given["tables"] else [ALL]
    ablations = [parse_ablation(text) for text in given["ablate"]]
    if ablations and not {ALL, ABLATION} & set(tables):
        tables = [*tables, ABLATION]
    if ABLATION in tables and not ablations:
        raise ValueError("The table 'ablation' needs an option under test, e.g. --ablate group_cam:groups=1,4,8,16,32.")
    if options.report or options.runs or options.tensorboard:
        tables = list(dict.fromkeys([*tables, *tables_of_page(methods)])) if ALL not in tables else tables
    wishes = Wishes(list(dict.fromkeys(methods)), tables, ablations, given["ablation_tables"], table)
    return options, wishes, to_dataclass(MachineOptions, given)


def tables_of_page(methods: list[str]) -> list[str]:
    """Those that the page and TensorBoard take their pictures from."""
    trained = any(parse_method(text).is_trained for text in methods)
    return [GalleryTable.name, *([TopClassesTable.name] if trained else [])]
