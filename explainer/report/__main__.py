"""`python -m explainer.report DIR [DIR ...]`: the page of one finished evaluation, or of several side by side."""

import argparse
import sys
from pathlib import Path

from explainer.report.page import EMBEDDED, write_page

MIB = 2**20


def main(arguments: list[str] | None = None) -> Path:
    """Write the page and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m explainer.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="Folder that evaluate.py wrote, or a run.")
    parser.add_argument("--output", type=Path, help="Folder of the page; the first DIR's report/ if not given.")
    parser.add_argument(
        "--embed",
        type=int,
        metavar="MB",
        default=EMBEDDED // MIB,
        help="Pictures up to so many MiB are part of the page, more lie beside it (default: %(default)s).",
    )
    given = parser.parse_args(arguments)
    page = write_page(given.folders, given.output, given.embed * MIB)
    print(f"Written to {page}")
    return page


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
