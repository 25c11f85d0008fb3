"""Methods named on a command line: `name` or `name:option=value,option=value`."""

import inspect
from dataclasses import dataclass
from typing import Any

import yaml

from explainer.attribution import METHODS, AttributionMethod, method_class
from explainer.explanandum import Explanandum


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

    def build(self, explanandum: Explanandum, **resources: Any) -> AttributionMethod:
        """The method for a classifier; `resources` (e.g. the trained `network`) reach it only if it takes them."""
        given = {key: value for key, value in resources.items() if self.takes(key)}
        return METHODS[self.name](explanandum, **given, **self.options)


def parse_method(text: str) -> MethodSpec:
    """Read `name:option=value,…`; values are YAML scalars.

    Raises:
        ValueError: for an unknown method or option, listing the valid ones.
    """
    name, _, rest = text.partition(":")
    known = [key for key in inspect.signature(method_class(name)).parameters if key not in ("explanandum", "network")]
    options = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or key not in known:
            raise ValueError(
                f"Unknown option '{item}' of method '{name}'; write option=value with one of: {', '.join(known)}."
            )
        options[key] = yaml.safe_load(value)
    return MethodSpec(name, options)
