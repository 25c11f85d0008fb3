"""What options may be; a wrong one is an error when the method is made, not a strange map later."""

from collections.abc import Sequence
from math import inf, isfinite
from typing import Any


def whole(option: str, value: Any, least: int = 1) -> None:
    """The option must be a whole number that is not too small.

    Raises:
        ValueError: if it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{option} is {value!r}; give a whole number, at least {least}.")


def number(option: str, value: Any, least: float = 0, most: float = inf, *, or_least: bool = False) -> None:
    """The option must be a number above `least` (or equal to it, with `or_least`), up to `most`.

    Raises:
        ValueError: if it is anything else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if not is_number or value < least or (value == least and not or_least) or value > most:
        low = f"at least {least}" if or_least else f"above {least}"
        high = f", at most {most}" if most < inf else ""
        raise ValueError(f"{option} is {value!r}; give a number {low}{high}.")


def flag(option: str, value: Any) -> None:
    """The option must be true or false.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{option} is {value!r}; give true or false.")


def one_of(option: str, value: Any, choices: Sequence[str]) -> None:
    """The option must be one of several words.

    Raises:
        ValueError: if it is anything else.
    """
    if value not in choices:
        raise ValueError(f"Unknown {option} '{value}'; choose one of: {', '.join(choices)}.")
