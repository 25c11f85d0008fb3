"""What is left of explanations: masks, overlays and a contact sheet for each photograph, and one file about all.

K classes of a photograph, H×W pixels.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from explainer.explaining import PhotographMaps, ScoredClass
from explainer.files import whole, write_whole
from explainer.report.gallery import Floats, caption_of
from explainer.report.sheet import MOST, Block, Tile, draw_sheet, overlay_picture, shrunk

Kind = Literal["masks", "arrays", "overlays", "sheets"]
KINDS: tuple[Kind, ...] = ("masks", "arrays", "overlays", "sheets")
LONGEST_NAME = 80
LARGEST_JPEG = 65_535
"""Pixels of a side, which the format can't exceed."""
SUMMARY = "explanations.json"

ByMethod = Mapping[str, PhotographMaps]
"""Explanations of the same photograph, by the methods' names."""


@dataclass
class ExplanationFiles:
    """A folder of results, a folder in it for each photograph, and in that one for each method.

    Args:
        folder: of the results.
        classes: names of all the classes.
        kinds: what is written.
        about: facts for the summary.
    """

    folder: Path
    classes: Sequence[str]
    kinds: Sequence[Kind] = KINDS
    about: Mapping[str, Any] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list, init=False)
    failed: list[dict[str, str]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Classes as names of files."""
        self._file_names = file_names(self.classes)

    def add(self, name: str, source: Path, explanations: ByMethod) -> None:
        """Write what is to be written of a photograph.

        Args:
            name: of its folder.
            source: the photograph's file.
            explanations: by method; with at least one.
        """
        photograph = next(iter(explanations.values())).photograph
        entry: dict[str, Any] = {"file": str(source), "folder": name}
        entry |= {"width": photograph.width, "height": photograph.height, "methods": {}}
        blocks = []
        for folder, (method, explanation) in zip(file_names(list(explanations)), explanations.items(), strict=True):
            entry["methods"][method], tiles = self._write_method(f"{name}/{folder}", explanation)
            blocks.append(_block(method, explanation, tiles))
            self.failed += [
                {"file": str(source), "method": method, "class": self.classes[index], "reason": reason}
                for index, reason in explanation.failures.items()
            ]
        if "sheets" in self.kinds:
            sheet = draw_sheet(f"{name}, {photograph.width} x {photograph.height} pixels", blocks)
            entry["sheet"] = self._save(sheet, f"{name}/sheet")
        self.images.append(entry)

    def fail(self, source: Path, reason: str) -> None:
        """Note a photograph that can't be explained."""
        self.failed.append({"file": str(source), "reason": reason})

    def finish(self) -> Path:
        """Write the summary: of each photograph its classes, with their probabilities and files, and what failed."""
        content = {**self.about, "images": self.images, "failed": self.failed}
        write_whole(self.folder / SUMMARY, json.dumps(content, indent=1, ensure_ascii=False))
        return self.folder / SUMMARY

    def _write_method(self, place: str, explanation: PhotographMaps) -> tuple[dict[str, Any], list[Tile]]:
        """One class after the other: of a large photograph with many classes not all masks fit into memory."""
        classes, tiles, arrays = [], [], []
        for one in explanation.classes:
            facts: dict[str, Any] = {"class": one.name, "index": one.index, "probability": round(one.probability, 6)}
            facts["recognised"] = one.recognised
            overlay = None
            if one.index in explanation.maps:
                mask = explanation.mask(one.index)
                more, overlay = self._write_class(place, explanation.photograph, self._file_names[one.index], mask)
                facts |= more
                arrays += [mask.numpy()] if "arrays" in self.kinds else []
            classes.append(facts)
            tiles.append(Tile(_caption(one), overlay))
        entry: dict[str, Any] = {"classes": classes}
        if arrays:
            entry["arrays"] = self._save_arrays(place, explanation, arrays)
        return entry, tiles

    def _write_class(
        self, place: str, photograph: Image.Image, name: str, mask: Tensor
    ) -> tuple[dict[str, Any], Image.Image]:
        """What the summary says of a class, and a small overlay for the sheet."""
        facts: dict[str, Any] = {"area": round(float(mask.mean()), 6)}
        grey = grey_picture(mask)
        if "masks" in self.kinds:
            facts["mask"] = self._save_png(grey, f"{place}/mask_{name}.png")
        if "overlays" in self.kinds:
            facts["overlay"] = self._save(overlay_picture(photograph, grey), f"{place}/overlay_{name}")
        return facts, overlay_picture(shrunk(photograph), shrunk(grey))

    def _save(self, picture: Image.Image, place: str) -> str:
        """A colour picture, as JPEG where that can hold it: a tenth of a PNG's size and time."""
        if max(picture.size) > LARGEST_JPEG:
            return self._save_png(picture, f"{place}.png")
        with whole(self.folder / f"{place}.jpg") as beside:
            picture.save(beside, "JPEG", quality=92)
        return f"{place}.jpg"

    def _save_png(self, picture: Image.Image, place: str) -> str:
        with whole(self.folder / place) as beside:
            picture.save(beside, "PNG", compress_level=1)  # a fifth of the time for a fifth more bytes
        return place

    def _save_arrays(self, place: str, explanation: PhotographMaps, masks: Sequence[Floats]) -> str:
        """The masks as they are, float32 [K,H,W], with the classes' names and probabilities [K]."""
        mapped = [one for one in explanation.classes if one.index in explanation.maps]
        with whole(self.folder / place / "masks.npz") as beside:
            np.savez(
                beside,
                masks=np.stack(masks),
                classes=np.array([one.name for one in mapped]),
                probabilities=np.array([one.probability for one in mapped], np.float32),
            )
        return f"{place}/masks.npz"


def grey_picture(mask: Tensor) -> Image.Image:
    """A mask [H,W] in [0, 1] as an 8-bit grey picture."""
    return Image.fromarray((mask * 255).round().byte().numpy())


def _caption(one: ScoredClass) -> str:
    """Name and probability; an asterisk marks what the classifier recognises."""
    return caption_of(one.name + "*" * one.recognised, one.probability)


def _block(method: str, explanation: PhotographMaps, class_tiles: Sequence[Tile]) -> Block:
    """Photograph, target mask, class masks."""
    tiles = [Tile("photograph", shrunk(explanation.photograph))]
    if explanation.maps:
        target = explanation.target_mask()
        names = ", ".join(one.name for one in explanation.target_classes)
        tiles.append(Tile(f"target, area {float(target.mean()):.2f}: {names}", shrunk(grey_picture(target))))
    hidden = len(class_tiles) - MOST
    return Block(method + (f" (and {hidden} more classes)" if hidden > 0 else ""), [*tiles, *class_tiles[:MOST]])


def file_names(names: Sequence[str]) -> list[str]:
    """Names of anything as names of files, each another one: whatever a class is called, no path leads elsewhere.

    Names that differ in case only count as equal, as some file systems take them.
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w=,+-]+", "_", name)[:LONGEST_NAME].strip("_") or "_"
        other, number = plain, 1
        while other.casefold() in taken:
            number += 1
            other = f"{plain}_{number}"
        taken.add(other.casefold())
        found.append(other)
    return found
