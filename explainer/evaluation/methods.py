"""An attribution method as a row of a table."""

from dataclasses import dataclass
from typing import Any

from explainer.attribution import AttributionMethod
from explainer.attribution.spec import MethodSpec, options_of, parse_method
from explainer.evaluation.keys import digest, digest_of_network
from explainer.explanandum import Explanandum

DECIDE_NOTHING = ("chunk_size", "workers")
"""Options that change how fast a map is there, not what it shows."""


@dataclass(frozen=True)
class NamedMethod:
    """A method, ready to be called.

    Args:
        name: of its row: the text it was asked for with.
        method: the method itself.
        key: equal for methods whose maps are equal: classifier, method, options, trained network and precision.
        classifier: name of the explanandum, where a table compares several.
        exact_key: equal for methods that also cost the same: all options count; the key, if not given.
    """

    name: str
    method: AttributionMethod
    key: str
    classifier: str = ""
    exact_key: str = ""


def named_method(
    text: str, explanandum: Explanandum, precision: str, classifier: str = "", **resources: Any
) -> NamedMethod:
    """Build the method that a text such as `group_cam:groups=16` names.

    Args:
        text: see `parse_method`.
        explanandum: its classifier.
        precision: of the computation, as Lightning names it.
        classifier: name for the explanandum.
        **resources: what a method may take besides, e.g. the trained `network`.

    Raises:
        ValueError: for an unknown method or option.
    """
    spec = parse_method(text)
    method = spec.build(explanandum, **resources)
    networks = [digest_of_network(network) for network in method.modules]
    key = digest(explanandum.fingerprint, spec.name, _deciding(spec), networks, precision)
    if method.version > 1:  # not for the first, so that what was kept before there were versions stays valid
        key = digest(key, method.version)
    return NamedMethod(text, method, key, classifier, digest(key, options_of(spec.name) | spec.options))


def _deciding(spec: MethodSpec) -> dict[str, Any]:
    """The options that decide what a map shows; one that equals its default (32 or 32.0) is as if it was not given."""
    defaults = options_of(spec.name)
    given = {name: value for name, value in spec.options.items() if value != defaults[name]}
    return {name: value for name, value in (defaults | given).items() if name not in DECIDE_NOTHING}
