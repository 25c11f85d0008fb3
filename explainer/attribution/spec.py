"""Methods named on a command line: `name` or `name:option=value,option=value`."""

import inspect
from dataclasses import dataclass
from typing import Any

import yaml

from explainer.attribution import METHODS, AttributionMethod, method_class
from explainer.explanandum import Explanandum

RESOURCES = ("explanandum", "network")
"""What a method is handed rather than told on the command line."""
PARTS = ("base", "optimiser")
"""Options that name a method."""
DECIDE_NOTHING = ("chunk_size", "workers")
"""Options that change how fast a map is there, not what it shows."""


@dataclass(frozen=True)
class MethodSpec:
    """A method and its options.

    Args:
        name: key of METHODS.
        options: keywords of its class.
    """

    name: str
    options: dict[str, Any]

    def takes(self, resource: str) -> bool:
        """Whether the method needs something besides the explanandum, e.g. the trained `network`."""
        return resource in inspect.signature(METHODS[self.name]).parameters

    @property
    def is_trained(self) -> bool:
        """Whether the method, or one that it is made of (`aop:base=explainer`), needs the trained network."""
        network = inspect.signature(METHODS[self.name]).parameters.get("network")
        if network is not None and network.default is network.empty:
            return True
        chosen = options_of(self.name) | self.options
        return any(parse_method(chosen[option]).is_trained for option in PARTS if option in chosen)

    def build(self, explanandum: Explanandum, **resources: Any) -> AttributionMethod:
        """The method for a classifier; it gets what it takes of `resources`, e.g. the trained `network`.

        Its own options come first: `workers` among the resources is but another default.
        """
        given = {key: value for key, value in resources.items() if self.takes(key)}
        return METHODS[self.name](explanandum, **(given | self.options))


def parse_method(text: str) -> MethodSpec:
    """Read `name:option=value,…`; values are YAML, or in parentheses a method with options of its own.

    Raises:
        ValueError: for an unknown method or option, listing the valid ones.

    Examples:
        >>> parse_method("rise:masks=500,seed=1")
        MethodSpec(name='rise', options={'masks': 500, 'seed': 1})
    """
    name, _, rest = text.partition(":")
    known = options_of(name)
    options = {}
    for item in split_options(rest):
        key, equals, value = item.partition("=")
        if not equals or key not in known:
            raise ValueError(
                f"Unknown option '{item}' of method '{name}'; write option=value with one of: {', '.join(known)}."
            )
        options[key] = value[1:-1] if value.startswith("(") and value.endswith(")") else _value(value)
    return MethodSpec(name, options)


def split_options(text: str) -> list[str]:
    """Parts between commas; not those within brackets, as in `radius=[20,40]` and `base=(rise:masks=500,cells=[5,5])`.

    Raises:
        ValueError: for brackets that don't match.
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise ValueError(f"The brackets of '{text}' don't match; close each that is opened.")
    return [part for part in parts if part]


def _value(text: str) -> Any:
    """Of an option, as YAML has it, but with numbers such as 1e-2, which it takes for words."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def options_of(name: str) -> dict[str, Any]:
    """The options of a method that a command line can give, with their defaults.

    Raises:
        ValueError: for an unknown method, listing the known ones.
    """
    parameters = inspect.signature(method_class(name)).parameters.items()
    return {option: parameter.default for option, parameter in parameters if option not in RESOURCES}


def all_options(spec: MethodSpec) -> dict[str, Any]:
    """All options; one that equals its default (32 or 32.0) is as if it was not given."""
    defaults = options_of(spec.name)
    given = {name: value for name, value in spec.options.items() if value != defaults[name]}
    newer = METHODS[spec.name].newer_options
    return {name: value for name, value in (defaults | given).items() if name in given or name not in newer}


def deciding_options(spec: MethodSpec) -> dict[str, Any]:
    """The options that decide what a map shows."""
    return {name: value for name, value in all_options(spec).items() if name not in DECIDE_NOTHING}


def method_row(name: str) -> dict[str, str]:
    """A method's source, what it needs of the classifier, its cost and its options with their defaults, in words.

    Raises:
        ValueError: for an unknown method, listing the known ones.
    """
    method = method_class(name)
    return {
        "paper": method.paper,
        "needs": method.needs,
        "passes per image": method.passes,
        "options": ", ".join(f"{option}={in_yaml(default)}" for option, default in options_of(name).items()),
    }


def in_yaml(value: Any) -> str:
    """A value as one would write it on the command line."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n...\n").strip().replace(", ", ",")
