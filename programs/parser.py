"""A parser made from typed dataclasses, with short help and errors that name the closest valid options."""

import argparse
import difflib
import re
import shutil
from collections.abc import Collection
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

OptionsT = TypeVar("OptionsT")
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


def make_flags(parser: Parser) -> None:
    """Let `--refit` stand for `--refit true`, and likewise every other option that is true or false.

    A group's own option (`--loss FILE`) still works, but is no line of the help: `--config` does the same.
    """
    for action in parser._actions:
        if action.help == "Path to a configuration file.":
            action.help = argparse.SUPPRESS
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.const = "?", True


def to_dataclass(
    options: type[OptionsT], values: Namespace | dict[str, Any], left_out: Collection[str] = ()
) -> OptionsT:
    """The fields of a dataclass picked from parsed arguments."""
    names = [item.name for item in fields(options) if item.name in values and item.name not in left_out]  # type: ignore[arg-type]
    return options(**{name: values[name] for name in names})
