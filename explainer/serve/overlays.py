"""The pictures in the page: plain HTML, in which a script lays each mask over the photograph (assets/overlays.js).

The masks travel once; what the sliders change is drawn in the browser.
"""

import base64
from functools import cache
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from explainer.explaining import PhotographMaps, ScoredClass
from explainer.explanation_files import grey_picture
from explainer.report.gallery import HEAT, heat, label_of
from explainer.serve.studio import Opened

ASSETS = Path(__file__).parent / "assets"
OPACITY, THRESHOLD = HEAT, 0.0
"""Where the sliders stand at first: as in the pictures that explain.py writes."""


def script() -> str:
    """Draws the overlays, and draws them anew when a slider moves."""
    return f"<script>{(ASSETS / 'overlays.js').read_text()}</script>"


def style() -> str:
    """Of the overlays, as CSS."""
    stops = ", ".join(_colours()[:: len(_colours()) // 15])
    return (ASSETS / "overlays.css").read_text() + f".scale i {{ background: linear-gradient(to right, {stops}); }}\n"


def photograph_html(opened: Opened) -> str:
    """The photograph, and how large it is."""
    width, height = opened.size
    name = escape(opened.file.name)
    return (
        f'<figure class="photograph"><img alt="{name}" src="{_address(opened.shown, "JPEG")}">'
        f"<figcaption>{name}, {width} × {height} pixels</figcaption></figure>"
    )


def overlays_html(opened: Opened) -> str:
    """A block for each method, in it a picture for each class, the most probable first."""
    blocks = "".join(_block(text, explanation) for text, explanation in opened.explanations.items())
    if not any(one.classes for one in opened.explanations.values()):
        return message_html("Choose at least one class and one method.")
    photograph, colours = _address(opened.shown, "JPEG"), " ".join(_colours())
    scale = '<p class="scale">0 <i></i> 1: matters most. * the classifier recognises it.</p>'
    return f'<div class="overlays" data-photograph="{photograph}" data-colours="{colours}">{blocks}{scale}</div>'


def message_html(text: str, *, problem: bool = False) -> str:
    """A sentence in the place of the pictures."""
    return f'<p class="message" role="{"alert" if problem else "status"}">{escape(text)}</p>'


def _block(text: str, explanation: PhotographMaps) -> str:
    name, details = label_of(text)
    options = "".join(f" <small>{escape(line)}</small>" for line in details)
    tiles = "".join(_tile(text, one, explanation) for one in explanation.classes)
    return f'<section><h3>{escape(name)}{options}</h3><div class="tiles">{tiles}</div></section>'


def _tile(text: str, one: ScoredClass, explanation: PhotographMaps) -> str:
    name = escape(one.name + "*" * one.recognised)
    caption = f"<b>{name}</b> {one.probability:.2f}"
    if one.index not in explanation.maps:
        reason = escape(explanation.failures.get(one.index, "the method was not asked"))
        return f'<figure class="failed"><p>No map: {reason}</p><figcaption>{caption}</figcaption></figure>'
    mask = grey_picture(explanation.mask(one.index))
    label = escape(f"{one.name}, as {text} sees it")
    canvas = (
        f'<canvas role="img" aria-label="{label}" width="{mask.width}" height="{mask.height}" '
        f'data-mask="{_address(mask, "PNG")}"></canvas>'
    )
    return f"<figure>{canvas}<figcaption>{caption} <output></output></figcaption></figure>"


def _address(picture: Image.Image, kind: str) -> str:
    """The picture itself, as a data URL."""
    written = BytesIO()
    picture.save(written, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(written.getvalue()).decode()}"


@cache
def _colours() -> tuple[str, ...]:
    """Of the heat from 0 to 1 in 256 steps, as `#rrggbb`."""
    values = (heat(np.linspace(0, 1, 256)) * 255).round().astype(np.uint8)
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in values)
