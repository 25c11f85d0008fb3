"""The command line of explain.py."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from explainer.attribution.spec import parse_method
from explainer.entry import started_as
from explainer.explaining import TOP
from explainer.explanation_files import KINDS, Kind
from explainer.serve.options import ServeOptions
from programs.classifier_options import LISTS, ClassifierOptions, add_lists
from programs.parser import HelpFormatter, Parser, make_flags, to_dataclass


@dataclass
class ExplainOptions:
    """What is explained, and by what.

    Args:
        run: Folder that train.py made.
        explainer: Without a run: the file of a trained Explainer, or its folder.
        explanandum: Without a run: classifier, as train.py has it. With one, where the code lies that makes its own.
        explanandum_weights: Its weights, head included: a file (also train.py's), or imagenet (downloaded).
        output: Folder of the results.
        top: Explain so many of the most probable classes, and all that the classifier recognises, if none is named.
        batch_size: Images that are explained together.
        image_size: Pixels that images are squashed to, without a run.
        workers: Processes that read images.
        accelerator: auto (a GPU where there is one), cpu or gpu.
    """

    run: Path | None = None
    explainer: Path | None = None
    explanandum: str | None = None
    explanandum_weights: str | None = None
    output: Path = Path("explanations")
    top: int = TOP
    batch_size: int = 8
    image_size: int | None = None
    workers: int = 2
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, and numbers that would fail later.

        Raises:
            ValueError: with the remedy.
        """
        if self.run is not None and self.explainer is not None:
            raise ValueError("Give --run RUN or --explainer FILE, not both.")
        if self.run is None and self.explainer is None and self.explanandum is None and not self.explanandum_weights:
            raise ValueError(
                "Say what explains: --run RUN, --explainer FILE, or a classifier with --explanandum (and "
                "--explanandum_weights FILE)."
            )
        for name, least in (("top", 1), ("batch_size", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}.")


@dataclass
class ExplainRequest:
    """A command line of explain.py.

    Args:
        places: files and folders of images.
        options: by what they are explained.
        classifier: what its name does not say.
        methods: as `--methods` has them; empty for the usual one.
        classes: names or numbers; empty for the most probable.
        kinds: of files that are written.
        page: that is served instead; None explains files.
    """

    places: list[Path]
    options: ExplainOptions
    classifier: ClassifierOptions = field(default_factory=ClassifierOptions)
    methods: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=lambda: list(KINDS))
    page: ServeOptions | None = None

    def __post_init__(self) -> None:
        """Find misspelt methods; refuse what a run or an Explainer says itself.

        Raises:
            ValueError: with the remedy.
        """
        if self.page and self.places:
            raise ValueError(f"--serve takes its images from the browser; leave {self.places[0]} out.")
        if not self.page and not self.places:
            raise ValueError("Name images, or folders of them; or open a page for the browser with --serve.")
        for text in self.methods:
            parse_method(text)
        self.methods = list(dict.fromkeys(self.methods))
        if self.options.run is not None:
            own = [name for name in ("image_size", "explanandum_weights") if getattr(self.options, name) is not None]
            own += self.classifier.given
            if own:
                raise ValueError(f"--{own[0]} is the run's own; give it only without --run.")


def make_parser() -> Parser:
    """The parser of explain.py."""
    program = started_as("explain")
    parser = Parser(
        prog="explain.py",
        usage=f"{program} (IMAGE_OR_FOLDER ... | --serve) --run RUN [--classes NAME ...] [--methods ...] [options]",
        description="Explain what a classifier sees in images: masks of classes, at each image's own size.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("images", nargs="*", type=str, help="Image files, or folders of them, searched to the bottom.")
    parser.add_argument("--serve", action="store_true", help="Open a page for the browser instead, on this machine.")
    parser.add_argument("--classes", nargs="+", type=str, default=[], metavar="NAME", help="Explain these classes.")
    parser.add_argument(
        *("--methods", "--method"),
        nargs="+",
        type=str,
        default=[],
        metavar="NAME",
        help="Attribution methods, as evaluate.py has them; side by side, if several (default: explainer, or grad_cam "
        "where nothing is trained).",
    )
    parser.add_argument(
        "--write", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND",
        help=f"Which files: {', '.join(KINDS)} (arrays: masks as float32 in masks.npz, which need most of the space).",
    )  # fmt: skip
    parser.add_class_arguments(ExplainOptions, None)
    parser.add_class_arguments(ClassifierOptions, None, skip=set(LISTS))
    parser.add_class_arguments(ServeOptions, None)
    add_lists(parser)
    make_flags(parser)
    return parser


def parse_explain(arguments: list[str]) -> ExplainRequest:
    """Command line -> what is asked for.

    Raises:
        SystemExit: with status 2 and a message for anything that is not valid.
    """
    parser = make_parser()
    given = parser.parse_args(arguments)
    try:
        return ExplainRequest(
            [Path(place) for place in given["images"]],
            to_dataclass(ExplainOptions, given),
            to_dataclass(ClassifierOptions, given),
            *(given["methods"], given["classes"], given["write"]),
            to_dataclass(ServeOptions, given) if given["serve"] else None,
        )
    except ValueError as error:
        parser.error(str(error))
