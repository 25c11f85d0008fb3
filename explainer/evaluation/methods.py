"""An attribution method as a row of a table."""

from dataclasses import dataclass
from typing import Any

from explainer.attribution import AttributionMethod
from explainer.attribution.spec import all_options, deciding_options, parse_method
from explainer.explanandum import Explanandum
from explainer.keys import digest, digest_of_network


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
    key = digest(explanandum.fingerprint, spec.name, deciding_options(spec), networks, precision)
    if method.versions != [1]:  # not for the first, so that what was kept before there were versions stays valid
        key = digest(key, method.versions)
    return NamedMethod(text, method, key, classifier, digest(key, all_options(spec)))
