"""Learned explanations of image classifiers: the Explainer, other attribution methods, and their evaluation.

```python
from explainer import METHODS, AttributionCallback, ClassifierCard, Explainer, Explanandum, explain_image
```

Each of these names is imported when it is first asked for: a program that needs one part does not wait for the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explainer.attribution import METHODS
    from explainer.explanandum import ClassifierCard, Explanandum
    from explainer.library.callback import AttributionCallback
    from explainer.library.explanation import Explanation
    from explainer.library.one_image import explain_image
    from explainer.library.pretrained import Explainer

__all__ = [
    "METHODS",
    "AttributionCallback",
    "ClassifierCard",
    "Explainer",
    "Explanandum",
    "Explanation",
    "explain_image",
]

_HOMES = {
    "METHODS": "attribution",
    "AttributionCallback": "library.callback",
    "ClassifierCard": "explanandum",
    "Explainer": "library.pretrained",
    "Explanandum": "explanandum",
    "Explanation": "library.explanation",
    "explain_image": "library.one_image",
}


def __getattr__(name: str) -> Any:
    """One of `__all__`, from the module where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'explainer' has no attribute '{name}'; it has: {', '.join(__all__)}.")
    return getattr(import_module(f"explainer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
