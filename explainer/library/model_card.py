"""The model card (README.md) that goes with a saved Explainer."""

import re
from collections.abc import Sequence

from explainer.explanandum import ClassifierCard
from explainer.library.origin import Origin

FEW = 30
"""So many class names are listed openly; more are folded away."""

FRONT_MATTER = """---
library_name: explainer
pipeline_tag: image-segmentation
tags:
- explainability
- attribution
- pytorch_model_hub_mixin
---
"""


def model_card(card: ClassifierCard, origin: Origin, *, with_classifier: bool) -> str:
    """The text, in Markdown, its metadata as the hub reads them in front.

    Args:
        card: of the classifier that is explained.
        origin: how the Explainer was trained.
        with_classifier: whether the classifier's weights come along.
    """
    return (
        FRONT_MATTER
        + "\n\n".join(
            [
                f"# Explainer of `{_plain(card.architecture)}`",
                "Gives a mask for every class of an image classifier in one forward pass: where the classifier looked. "
                "After *What You See is What You Classify: Black Box Attributions* (Stalder et al., NeurIPS 2022).",
                _usage(with_classifier),
                f"## Classes\n\n{_classes(card.classes)}",
                _images(card),
                *_training(origin),
            ]
        )
        + "\n"
    )


def _usage(with_classifier: bool) -> str:
    scores = (
        "The classifier's weights are in `explanandum.safetensors`: they give the scores."
        if with_classifier
        else "The classifier itself does not come along, so that there are masks, but no scores."
    )
    return f"""## Use

```python
from PIL import Image
from explainer import Explainer

explainer = Explainer.from_pretrained("FOLDER or hub id")
explainer.explain(Image.open("photo.jpg"))  # shows itself in a notebook
```

{scores} Nothing in these files is executed when they are loaded."""


def _classes(classes: Sequence[str]) -> str:
    names = ", ".join(f"`{_plain(name)}`" for name in classes)
    if len(classes) <= FEW:
        return f"{len(classes)}: {names}"
    return f"<details><summary>{len(classes)} classes</summary>\n\n{names}\n\n</details>"


def _images(card: ClassifierCard) -> str:
    single = card.output == "single_label"
    return (
        f"## Images\n\nRGB, squashed to {card.image_size} × {card.image_size} pixels, values in [0, 1], normalised "
        f"with mean {list(card.mean)} and standard deviation {list(card.std)}. "
        + ("One has exactly one class (softmax)." if single else "One may have several classes or none (sigmoid).")
    )


def _training(origin: Origin) -> list[str]:
    """What is known of it."""
    parts = []
    if origin.command:
        parts.append(f"## Training\n\n```sh\n{_plain(origin.command)}\n```")
    for title, metrics in (("Explainer", origin.metrics), ("classifier", origin.classifier_metrics)):
        if metrics:
            rows = "\n".join(f"| `{_plain(name)}` | {value:.4g} |" for name, value in metrics.items())
            parts.append(f"## Metrics of the {title}\n\n| metric | value |\n|---|---:|\n{rows}")
    return parts


def _plain(text: str) -> str:
    """On one line, and with nothing that would end the code span or table cell that it stands in."""
    return re.sub(r"[`|\s]+", " ", text)
