"""Every command that the pages show is one that the programs take."""

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import lru_cache
from pathlib import Path

import jsonargparse
import pytest
from documented import PAGES, ROOT, commands, files, name_of, spans

from programs.evaluate_options import make_parser as evaluate_parser
from programs.evaluate_options import parse_evaluation
from programs.explain_options import make_parser as explain_parser
from programs.explain_options import parse_explain
from programs.recipes import parse
from programs.train_options import make_parser

OURS = {"train": parse, "evaluate": parse_evaluation, "explain": parse_explain}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
MODULES = ("explainer.report", "explainer.report.figures", "explainer.export")
SCRIPTS = sorted(
    file
    for folder in ("benchmarks", "docs")
    for file in (ROOT / folder).glob("*.py")
    if "__main__" in file.read_text() and "parse" in file.read_text()
)
TOOLS = {"pytest": {"-q"}, "venv": set(), "http.server": {"--directory"}}
"""Modules of others, with the options that they are shown with."""
SHELL_WORDS = {"source", "mkdir", "cd"}


class ParsedError(Exception):
    """A program has read its command line; nothing more of it is wanted."""

    def __init__(self, parser):
        super().__init__()
        self.parser = parser


def read_by(module, arguments, *, parsing=True):
    """Have a program read its command line, and no more; returns its parser.

    Args:
        module: of the program, with a `main`.
        arguments: of the command line.
        parsing: check them; else the parser alone is wanted.
    """

    def stopping(original):
        def parse_args(self, *given, **keywords):
            if parsing:
                original(self, *given, **keywords)
            raise ParsedError(self)

        return parse_args

    program = importlib.import_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        for kind in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
            patch.setattr(kind, "parse_args", stopping(kind.parse_args))
        try:
            program.main()
        except ParsedError as stopped:
            return stopped.parser
        except SystemExit as stopped:
            assert stopped.code == 0, arguments  # --help
            return None
    raise AssertionError(f"{module} does not read its command line first")


def check(words, page, folder):
    """Refuse a command that would not do as it stands."""
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, *arguments = words
    name = Path(program).name
    if name in SHELL_WORDS:
        return
    if name == "make":
        assert {word for word in arguments if "=" not in word} <= TARGETS
    elif name == "tensorboard":
        assert arguments[0] == "--logdir" and len(arguments) == 2
    elif name == "pip":
        check_pip(arguments)
    elif name.startswith("explainer-"):
        assert name in PROJECT["scripts"]
        check_ours(name.removeprefix("explainer-"), arguments, folder)
    elif name in ("python", "python3"):
        check_python(arguments, page, folder)
    else:
        assert name == "ruff", f"no check for {program}"


def check_python(arguments, page, folder):
    """`python FILE …` and `python -m MODULE …`."""
    if arguments[0] == "-m":
        _, module, *rest = arguments
        if module == "pip":
            check_pip(rest)
        elif module in MODULES:
            read_by(f"{module}.__main__", rest)
        else:
            assert {word for word in rest if word.startswith("-")} <= TOOLS[module]
    elif arguments[0].removesuffix(".py") in OURS:
        check_ours(arguments[0].removesuffix(".py"), arguments[1:], folder)
    elif arguments[0] not in files(page):
        script = ROOT / arguments[0]
        assert script in SCRIPTS, f"{arguments[0]} is neither a program nor a file that the page has written"
        read_by(script.stem, arguments[1:])
        if "--" in arguments:
            check_ours("train", arguments[arguments.index("--") + 1 :], folder)


@lru_cache
def config():
    """The text of a file of options."""
    return parse([])[1]


def check_ours(name, arguments, folder):
    """Parse as the program does; files and folders that only the reader has are not looked for."""
    (folder / "config.yaml").write_text(config())
    for index, argument in enumerate(arguments[:-1]):
        if argument == "--resume":
            arguments[index + 1] = str(folder)
        if argument == "--config" and not arguments[index + 1].startswith("configs/"):
            arguments[index + 1] = str(folder / "config.yaml")
    try:
        OURS[name](arguments)
    except SystemExit as stop:
        assert stop.code == 0, (name, arguments)  # --help, --print_config and --list_methods end with 0


def check_pip(arguments):
    """Extras and files of constraints exist."""
    assert arguments[0] == "install"
    for index, word in enumerate(arguments):
        if word == "--constraint":
            assert (ROOT / arguments[index + 1]).is_file()
        for extra in re.findall(r"^\.\[(.*)\]$", word):
            assert set(extra.split(",")) <= PROJECT["optional-dependencies"].keys()


@pytest.fixture
def folder(tmp_path, monkeypatch, capsys):
    """Of the reader's own files; commands are given in the repository's root."""
    monkeypatch.chdir(ROOT)
    return tmp_path


CHECKED = set()
"""Commands that several pages show; to parse one takes a while."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_taken_by_its_program(page, folder):
    for words in commands(page):
        if tuple(words) not in CHECKED:
            check(list(words), page, folder)
            CHECKED.add(tuple(words))


def test_every_command_of_the_makefile_is_taken_too(folder):
    recipes = re.findall(r"^\t\$\(BIN\)/(python (?:train|evaluate)\.py .*)$", (ROOT / "Makefile").read_text(), re.M)
    assert len(recipes) == 2
    for line in recipes:
        check(shlex.split(line), None, folder)


def test_the_pages_show_every_program():
    shown = {word for page in PAGES for words in commands(page) for word in words[:3]}
    assert {f"{name}.py" for name in OURS} <= shown
    assert set(MODULES) <= shown
    assert {script.relative_to(ROOT).as_posix() for script in SCRIPTS} <= shown


@pytest.fixture(scope="module")
def options():
    """Every option of every program."""
    modules = [*(f"{module}.__main__" for module in MODULES), *(script.stem for script in SCRIPTS)]
    parsers = [read_by(module, [], parsing=False) for module in modules]
    return set().union(*map(strings, (*parsers, make_parser(), evaluate_parser(), explain_parser())))


def strings(parser):
    return {text for action in parser._actions for text in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_that_a_page_names_exists(page, options):
    for span in spans(page):
        name = span.split("=")[0].split()[0]
        if name.startswith("--") and name != "--":
            known = {option for option in options if option.startswith(name.removesuffix("*"))}
            assert name in options or (name.endswith(".*") and known), name


def test_what_is_no_command_is_found_out(folder):
    wrong = (
        ["python", "train.py", "--learning_rate", "1"],
        ["python", "evaluate.py", "--run", "R", "--tables", "insertions"],
        ["python", "evaluate.py", "--run", "R", "--methods", "grad_cam:layers=3"],
        ["python", "-m", "explainer.report"],
        ["python", "docs/missing.py"],
        ["pip", "install", ".[missing]"],
        ["make", "missing"],
    )
    for words in wrong:
        with pytest.raises((AssertionError, SystemExit, ValueError)):
            check(words, PAGES[0], folder)


def test_every_script_starts_from_a_clone_without_a_path_being_set():
    """Python looks for modules in a script's own folder, not in that of the clone."""
    folders = [str(ROOT / part) for part in (".", "programs", "benchmarks", "docs")]
    code = f"""
import runpy, sys
others = [place for place in sys.path if place and place != {str(ROOT)!r}]
for script in {[str(script) for script in SCRIPTS]}:
    sys.path[:] = [script.rpartition("/")[0], *others]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).rpartition("/")[0] in {folders}:
            del sys.modules[name]
    runpy.run_path(script)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
