"""`python -m explainer.report.figures DIR`: the figures of an evaluation, as PDF and PNG."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from explainer.report.figures import FIGURES, PAGE, Choice, write_figures
from explainer.report.figures.sheet import DPI, FORMATS


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m explainer.report.figures", description="Draw an evaluation's figures for a paper."
    )
    parser.add_argument("folder", type=Path, help="Folder of an evaluation (evaluate.py's --output).")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(FIGURES), default=[], help=", ".join(FIGURES))
    parser.add_argument("--methods", nargs="+", metavar="NAME", default=[], help="Methods, in this order (all).")
    parser.add_argument("--images", nargs="+", metavar="NAME", default=[], help="Images by their names, or how many.")
    parser.add_argument(
        "--beside", nargs="+", metavar="DIR", type=Path, default=[], help="Other classifiers' folders, for backbones."
    )
    parser.add_argument("--width", type=float, default=PAGE, help="Of a figure, in inches (default: %(default)s).")
    parser.add_argument("--output", type=Path, help="Folder of the figures (default: DIR/figures).")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), help="pdf, png, svg … (default: pdf png).")
    parser.add_argument("--dpi", type=int, default=DPI, help="Pixels an inch (default: %(default)s).")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the figures and say where they are; a mistake is one line and exit status 1."""
    given = make_parser().parse_args(arguments)
    one_number = len(given.images) == 1 and given.images[0].isdigit()
    choice = Choice(given.width, given.methods, int(given.images[0]) if one_number else given.images, given.beside)
    try:
        files = write_figures(given.folder, choice, given.only, given.output, given.formats, given.dpi)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if not files:
        sys.exit(f"error: {given.folder} holds nothing that a figure could be drawn of.")
    for file in files:
        print(file)


if __name__ == "__main__":
    main()
