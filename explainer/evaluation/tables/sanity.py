"""Does a map change when the classifier forgets what it learned? (Group-CAM, Sec. 4.5; Adebayo et al., 2018).

N maps, one an image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from explainer.attribution import AttributionMethod
from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import Measure, differences, mean_of, measured, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, SplitFacts, Table, at_least
from explainer.explanandum import Explanandum
from explainer.metrics.similarity import rank_correlation, structural_similarity
from explainer.randomisation import Initialisation, cascading, independent

Mode = Literal["cascading", "independent"]
MODES: dict[str, Callable[..., Iterator[tuple[str, Explanandum]]]] = {
    "cascading": cascading,
    "independent": independent,
}
SIMILARITIES = ("rank_correlation", "ssim")
MEASURES = tuple(mean_of(name) for name in SIMILARITIES)
SMALLEST_IMAGE = 11
"""Pixels; SSIM's window."""
Rebuild = Callable[[str, Explanandum], AttributionMethod]


@dataclass(frozen=True)
class SanityOptions:
    """How the classifier is randomised.

    Args:
        images: So many, evenly spaced over the split. Each costs a map per layer, mode and method; the fewer, the wider
            the intervals.
        modes: Layer after layer from the output on, or one layer at a time.
        linear: Also linear layers; false: convolutions only (as Group-CAM's authors).
        initialisation: he keeps the signal's size; pytorch draws as a fresh layer does (Group-CAM's authors).
        seed: Of the fresh weights.
    """

    images: int = 8
    modes: tuple[Mode, ...] = ("cascading", "independent")
    linear: bool = True
    initialisation: Initialisation = "he"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a table without images or layers."""
        at_least("sanity.images", self.images, 1)
        unknown = [mode for mode in self.modes if mode not in MODES]
        if unknown or not self.modes:
            raise ValueError(f"sanity.modes are {list(self.modes)}; choose some of: {', '.join(MODES)}.")


class SanityTable(Table):
    """Similarity of each map with the one for the classifier as it was, layer by layer.

    The map is that of the class which the untouched classifier predicts. A trained Explainer can't be checked this way:
    it does not ask the classifier any more, so its rows are 1 throughout and say nothing.

    Where the map for a changed classifier is not finite, there is nothing to compare: the layer has no similarity, and
    the image is counted as `not_finite`.

    Files: `sanity`; `sanity_summary`, means over the layers of each mode; `sanity_differences`, between methods, of
    these means.

    Args:
        explanandum: the classifier.
        options: how it is randomised.
        rebuild: makes the method of a name anew for another classifier.
    """

    name = "sanity"
    version = 2
    calls_methods = True
    options: SanityOptions

    def __init__(self, explanandum: Explanandum, options: SanityOptions, rebuild: Rebuild) -> None:
        super().__init__(explanandum, options)
        self.rebuild = rebuild

    @property
    def limit(self) -> int | None:
        """A few are enough."""
        return self.options.images

    def unsuited(self, split: SplitFacts) -> str:
        """SSIM has a smallest size."""
        size = self.explanandum.card.image_size
        return "" if size >= SMALLEST_IMAGE else f"images of {size} pixels are smaller than SSIM's window"

    def refuses(self, *, is_trained: bool) -> str:
        """A trained Explainer does not change when the classifier is randomised."""
        return "it is trained, and asks the classifier no more" if is_trained else ""

    def asks(self, images: Images) -> Tensor:
        """The predicted class."""
        return images.one_hot(images.predicted)

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """A row for each mode and layer."""
        found: list[list[Row]] = [[] for _ in range(len(images))]
        for mode in self.options.modes:
            for depth, layer, changed in self.changed_maps(mode, images, maps, named):
                values = zip(*similarities(maps.maps, changed), strict=True)
                for rows, pair in zip(found, values, strict=True):
                    rows.append(
                        {"mode": mode, "depth": depth, "layer": layer} | dict(zip(SIMILARITIES, pair, strict=True))
                    )
        return found

    def changed_maps(
        self, mode: str, images: Images, maps: ClassMaps, named: NamedMethod
    ) -> Iterator[tuple[int, str, Tensor]]:
        """The maps of the same classes after each step."""
        options = self.options
        copies = MODES[mode](
            self.explanandum, linear=options.linear, initialisation=options.initialisation, seed=options.seed
        )
        for depth, (layer, copy) in enumerate(copies, start=1):
            yield depth, layer, self.rebuild(named.name, copy)(images.image, maps.target).detach().float()

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """A row for each method, mode and layer; for each method and mode; and how methods differ."""
        modes = self.options.modes
        return {
            self.name: [row for one in scores if one.rows for row in self._curve(one)],
            "sanity_summary": [of_mode(one, mode) for one in scores for mode in modes],
            "sanity_differences": differences(scores, [mean for mode in modes for mean in means_of(mode)]),
        }

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """Means over all modes and layers."""
        rows = summary(scores, MEASURES)
        return [row | {"not_finite": not_finite(one)} for row, one in zip(rows, scores, strict=True)]

    def _curve(self, scores: MethodScores) -> list[Row]:
        first = next(iter(scores.rows.values()))
        found = []
        for step in range(len(first)):
            part = replace(scores, rows={image: [rows[step]] for image, rows in scores.rows.items()})
            names = {name: first[step][name] for name in ("mode", "depth", "layer")}
            found.append({"method": scores.method, **names, **measured(part, MEASURES), **counts_of(part)})
        return found


def similarities(maps: Tensor, changed: Tensor) -> tuple[list[float | None], list[float | None]]:
    """Rank correlation and SSIM of each pair of maps [N,H,W]; None where the changed one is not finite."""
    finite = changed.isfinite().flatten(1).all(dim=1)
    usable = changed.where(finite[:, None, None], 0.0)
    pairs = (function(maps, usable).tolist() for function in (rank_correlation, structural_similarity))
    first, second = (
        [value if known else None for value, known in zip(values, finite.tolist(), strict=True)] for values in pairs
    )
    return first, second


def means_of(mode: str) -> list[Measure]:
    """Both similarities, over the layers of a mode."""
    return [mean_of(name, of=lambda row: bool(row["mode"] == mode), name=f"{mode}_{name}") for name in SIMILARITIES]


def of_mode(scores: MethodScores, mode: str) -> Row:
    """Means over the layers of a mode."""
    part = replace(
        scores, rows={image: [row for row in rows if row["mode"] == mode] for image, rows in scores.rows.items()}
    )
    return {"method": scores.method, "mode": mode, **measured(part, MEASURES), **counts_of(part)}


def counts_of(scores: MethodScores) -> Row:
    """Images with rows, those that failed, and those with a map that is not finite."""
    return {"images": len(scores.rows), "failed": len(scores.failed), "not_finite": not_finite(scores)}


def not_finite(scores: MethodScores) -> int:
    """Images of which at least one map is not finite."""
    return sum(any(row[SIMILARITIES[0]] is None for row in rows) for rows in scores.rows.values())
