"""The methods in words, for a terminal: all of them in short, or one with the meaning of its options."""

import textwrap
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse

from explainer.attribution import METHODS, AttributionMethod
from explainer.attribution.spec import in_yaml, method_row, options_of

HINT = "What the options mean: --list_methods NAME. On the command line: --methods NAME:option=value,option=value."

INDENT = "    "


def overview(width: int) -> str:
    """Every method: its source, what it needs, its cost and its options with their defaults.

    Args:
        width: of a line, in characters.
    """
    entries = ("\n".join([name, *_facts(method_row(name), width)]) for name in METHODS)
    return "\n".join([*entries, "", *_wrapped(HINT, width)])


def details(name: str, width: int) -> str:
    """One method: what it does, its source and cost, and of each option the default, the choices and the meaning.

    Args:
        name: key of METHODS.
        width: of a line, in characters.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    row = {title: fact for title, fact in method_row(name).items() if title != "options"}
    method = METHODS[name]
    written = parse(method.__doc__ or "")
    paragraphs = [written.short_description or "", *(written.long_description or "").split("\n\n")]
    lines = [name]
    for paragraph in filter(None, paragraphs):
        lines += [*_wrapped(paragraph, width, INDENT), ""]
    lines += _facts(row, width)
    meanings, choices = _meanings(method), _choices(method)
    for option, default in options_of(name).items():
        others = [in_yaml(choice) for choice in choices.get(option, ()) if choice != default]
        head = f"{option}={in_yaml(default)}" + (f" (or {', '.join(others)})" if others else "")
        lines += ["", *_wrapped(head, width, INDENT), *_wrapped(meanings[option], width, 2 * INDENT)]
    return "\n".join(lines)


def _meanings(method: type[AttributionMethod]) -> dict[str, str]:
    """By option what the docstring of the class says, or of one that it inherits the option from."""
    written = (parse(owner.__doc__ or "") for owner in reversed(method.__mro__))
    return {item.arg_name: item.description or "" for docstring in written for item in docstring.params}


def _choices(method: type[AttributionMethod]) -> dict[str, tuple[Any, ...]]:
    """By option the words that it can be, where there are some."""
    kinds = get_type_hints(method.__init__)
    return {option: get_args(kind) for option, kind in kinds.items() if get_origin(kind) is Literal}


def _facts(row: dict[str, str], width: int) -> list[str]:
    lines = []
    for title, fact in row.items():
        head = f"{INDENT}{title + ':':18}"
        lines += _wrapped(fact, width, head, " " * len(head))
    return lines


def _wrapped(text: str, width: int, first: str = "", others: str | None = None) -> list[str]:
    """Lines no longer than `width`, but for what has no blank, with the indents of the first and of the others."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first if others is None else others,
        break_long_words=False,
        break_on_hyphens=False,
    )
