"""What `pip install .` leaves is all there: packages, programs and recipes."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path

from setuptools import find_packages

from explainer import scripts
from explainer.entry import started_as
from programs.recipes import CONFIGS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUP = PROJECT["tool"]["setuptools"]


def test_every_package_is_installed():
    found = find_packages(str(ROOT), include=["datamodules*", "explainer*"])
    assert sorted(SETUP["packages"]) == sorted([*found, scripts.INSTALLED, f"{scripts.INSTALLED}.programs"])


def test_every_program_has_a_name_and_the_name_a_program():
    named = {name.removeprefix("explainer-"): place for name, place in PROJECT["project"]["scripts"].items()}
    with_main = {file.stem for file in ROOT.glob("*.py") if '__name__ == "__main__"' in file.read_text()}
    assert named.keys() == with_main
    for name, place in named.items():
        module, _, function = place.partition(":")
        assert callable(getattr(import_module(module), function)) and function == name


def test_programs_and_recipes_are_installed_into_one_folder():
    assert SETUP["package-dir"] == {scripts.INSTALLED: "."}
    patterns = SETUP["package-data"][scripts.INSTALLED]
    shipped = {file for pattern in patterns for file in ROOT.glob(pattern)}
    assert shipped == set(CONFIGS.iterdir())
    assert scripts.folder() == ROOT  # in a clone


def test_a_hint_names_the_program_as_it_was_started(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/explainer-train"])
    assert started_as("evaluate") == "explainer-evaluate"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert started_as("evaluate") == "python evaluate.py"
