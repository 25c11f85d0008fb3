"""What the page does, without the page: a photograph is opened, explained and packed.

C classes, S×S pixels of an image as the classifier sees it.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from explainer.attribution import AttributionMethod
from explainer.explaining import (
    PhotographMaps,
    class_probabilities_of,
    classes_to_explain,
    explain_prepared,
    prepare,
    read_photograph,
    scored,
)
from explainer.explanandum import Explanandum
from explainer.explanation_files import ExplanationFiles, Kind
from explainer.passes import Stopped, stoppable
from explainer.report.sheet import MOST, shrunk

SHOWN = 480
"""Longer side of a picture in the page, in pixels."""
MOST_CLASSES = MOST
"""Explained at once: as many as a contact sheet shows."""
MOST_VALUES = 100_000_000
"""Of all float masks in a download: 400 MB."""

STOPPED = "stopped"
"""Why there is no map, where the visitor did not want to wait for it."""

Tell = Callable[[int, int, str], None]
"""Is told how many methods are done, of how many, and which one is next."""
Stop = Callable[[], bool]
"""Says whether the visitor wants no more of it."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A visitor's photograph: all that is kept of it between two clicks.

    Args:
        file: that was sent; it is read again for a download.
        size: of the photograph, (W, H).
        shown: the photograph as small as the page shows it.
        prepared: as the classifier wants it, [3,S,S].
        probabilities: what the classifier says, [C].
        explanations: of what the page shows now, by method.
    """

    file: Path
    size: tuple[int, int]
    shown: Image.Image
    prepared: Tensor
    probabilities: Tensor
    explanations: Mapping[str, PhotographMaps] = field(default_factory=dict)


class Studio:
    """A classifier and methods that explain it, for several visitors, of whom one at a time is served.

    Args:
        explanandum: the classifier.
        methods: by the texts that name them.
        about: facts for the summary of a download.
        most_pixels: of a photograph.
    """

    def __init__(
        self,
        explanandum: Explanandum,
        methods: Mapping[str, AttributionMethod],
        about: Mapping[str, Any],
        most_pixels: int,
    ) -> None:
        self.explanandum = explanandum
        self.methods = dict(methods)
        self.about = dict(about)
        self.most_pixels = most_pixels
        self._at_work = Lock()  # methods hook into the classifier, and memory is for one large photograph

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the classifier's outputs."""
        return self.explanandum.card.classes

    def open(self, file: Path) -> Opened:
        """Read a photograph, and ask the classifier.

        Raises:
            ValueError: for what is no image, or too large.
        """
        with self._working():
            photograph = read_photograph(file, self.most_pixels)
            prepared = prepare(photograph, self.explanandum.card)
            device = next(self.explanandum.parameters()).device
            probabilities = class_probabilities_of(prepared[None].to(device), self.explanandum)[0].cpu()
            return Opened(file, photograph.size, shrunk(photograph, SHOWN), prepared, probabilities)

    def usual_classes(self, opened: Opened, top: int) -> list[int]:
        """The most probable classes and the recognised ones, the most probable first, but not too many."""
        card = self.explanandum.card
        wanted = classes_to_explain(opened.probabilities[None], card.output, top)[0]
        return [one.index for one in scored(opened.probabilities, wanted, card)][:MOST_CLASSES]

    def explain(
        self,
        opened: Opened,
        classes: Sequence[int],
        methods: Sequence[str],
        tell: Tell = lambda *_: None,
        stop: Stop = lambda: False,
    ) -> Opened:
        """Ask methods for classes; what they said before of the same photograph they are not asked again.

        Stopped, it comes back with what is finished by then; for the rest the reason is `STOPPED`.

        Raises:
            ValueError: for too many classes, or a class or method that there is not.
        """
        self._refuse(classes, methods)
        said: dict[str, PhotographMaps] = {}
        with self._working():
            for place, name in enumerate(methods):
                tell(place, len(methods), name)
                said[name] = self._explained(opened, classes, name, stop)
        return replace(opened, explanations=said)

    def pack(self, opened: Opened, kinds: Sequence[Kind], folder: Path) -> Path:
        """Write what the page shows as explain.py would, at the photograph's own size, into one zip file.

        Args:
            opened: with explanations.
            kinds: of files.
            folder: the file gets one of its own in there.

        Raises:
            ValueError: if there is nothing to write, or too much.
            FileNotFoundError: if the photograph was kept for too long.
        """
        self._refuse_packing(opened, kinds)
        if not opened.file.is_file():
            raise FileNotFoundError("The photograph is not kept any longer; drop it once more.")
        name = opened.file.name
        with self._working(), TemporaryDirectory(dir=folder) as written:
            photograph = read_photograph(opened.file, self.most_pixels)
            files = ExplanationFiles(Path(written), self.classes, kinds, self.about)
            whole = {text: replace(one, photograph=photograph) for text, one in opened.explanations.items()}
            files.add(name, Path(name), whole)
            files.finish()
            return _zipped(Path(written), folder / f"{Path(name).stem}_explained.zip")

    def _explained(self, opened: Opened, classes: Sequence[int], name: str, stop: Stop) -> PhotographMaps:
        before = opened.explanations.get(name)
        known = {} if before is None else {index: before.maps[index] for index in classes if index in before.maps}
        missing = [index for index in classes if index not in known]
        try:
            with stoppable(self.methods[name].explanandum.model, stop):
                new = self._asked(opened, missing, name)
            maps, failures = new.maps, new.failures
        except Stopped:
            maps, failures = {}, dict.fromkeys(missing, STOPPED)
        everything = scored(opened.probabilities, self._flags(classes), self.explanandum.card)
        return PhotographMaps(opened.shown, everything, known | maps, failures)

    def _asked(self, opened: Opened, classes: Sequence[int], name: str) -> PhotographMaps:
        device = next(self.explanandum.parameters()).device
        return explain_prepared(
            *([opened.shown], opened.prepared[None].to(device), opened.probabilities[None].to(device)),
            *(self._flags(classes)[None].to(device), self.methods[name]),
        )[0]

    def _flags(self, classes: Sequence[int]) -> Tensor:
        """Which classes these are, bool [C]."""
        flags = torch.zeros(len(self.classes), dtype=torch.bool)
        flags[list(classes)] = True
        return flags

    def _refuse(self, classes: Sequence[int], methods: Sequence[str]) -> None:
        """What a page would not send, but anyone can."""
        if len(classes) > MOST_CLASSES:
            raise ValueError(f"{len(classes)} classes were chosen; choose {MOST_CLASSES} at most.")
        unknown = [*(text for text in methods if text not in self.methods)]
        unknown += [str(index) for index in classes if not 0 <= index < len(self.classes)]
        if unknown:
            raise ValueError(f"There is no class or method '{unknown[0]}' here; load the page again.")

    def _refuse_packing(self, opened: Opened, kinds: Sequence[Kind]) -> None:
        maps = sum(len(one.maps) for one in opened.explanations.values())
        if not maps:
            raise ValueError("There is no mask to download; choose a class and a method first.")
        if not kinds:
            raise ValueError("Tick what the download shall hold.")
        values = maps * opened.size[0] * opened.size[1]
        if "arrays" in kinds and values > MOST_VALUES:
            raise ValueError(
                f"The float masks would have {values:,} values, more than {MOST_VALUES:,}; untick `arrays`, or choose "
                "fewer classes and methods."
            )

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._at_work:
            try:
                yield
            except MemoryError as error:
                raise ValueError("The image does not fit into the memory; make it smaller.") from error


def _zipped(folder: Path, file: Path) -> Path:
    """All files below a folder in one, as they are: they are compressed already, or hardly can be."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                packed.write(one, one.relative_to(folder))
    return file
