"""The programs under the names that they are installed by: explainer-train is train.py, and likewise the others.

They lie in a folder of their own, beside this package, and import each other as scripts in one folder do.
"""

import sys
from importlib import import_module
from pathlib import Path

from explainer.entry import run_command

INSTALLED = "explainer_programs"
"""Folder beside the packages; in a clone the programs lie beside them themselves."""


def train() -> None:
    """`python train.py`."""
    _run("train")


def evaluate() -> None:
    """`python evaluate.py`."""
    _run("evaluate")


def explain() -> None:
    """`python explain.py`."""
    _run("explain")


def folder() -> Path:
    """Where the programs and `configs/` lie."""
    beside = Path(__file__).parents[1]
    return beside / INSTALLED if (beside / INSTALLED).is_dir() else beside


def _run(name: str) -> None:
    sys.path.insert(0, str(folder()))  # as Python does for a script
    run_command(import_module(name).main)
