"""An attribution method as a row of a table."""

from dataclasses import dataclass
from typing import Any

from explainer.attribution import AttributionMethod
from explainer.attribution.spec import options_of, parse_method
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
    """

    name: str
    method: AttributionMethod
    key: str
    classifier: str = ""


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
    options = {name: value for name, value in (options_of(spec.name) | spec.options).items()}
    deciding = {name: value for name, value in options.items() if name not in DECIDE_NOTHING}
    networks = [digest_of_network(network) for network in method.modules]
    return NamedMethod(
        text, method, digest(explanandum.fingerprint, spec.name, deciding, networks, precision), classifier
    )
