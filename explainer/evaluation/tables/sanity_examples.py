"""Maps of a classifier that forgets what it learned, to look at (Group-CAM, Fig. 6; Adebayo et al., 2018).

N maps, one an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import mean_of, summary
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, SplitFacts, Table, at_least
from explainer.evaluation.tables.sanity import SIMILARITIES, Rebuild, SanityOptions, SanityTable, similarities
from explainer.evaluation.tiles import PHOTOGRAPH, photographs, tile
from explainer.explanandum import Explanandum
from explainer.keys import digest


@dataclass(frozen=True)
class SanityExamplesOptions:
    """How much is shown.

    Args:
        images: A strip for each of so many, evenly spaced over the split. Each costs a map per layer, mode and method.
    """

    images: int = 1

    def __post_init__(self) -> None:
        """Refuse a picture without images."""
        at_least("sanity_examples.images", self.images, 1)


class SanityExamplesTable(Table):
    """The maps that the table `sanity` compares, of a few images, layer by layer.

    Depth 0 is the classifier as it is; the classes and all else are as in `sanity`, whose options count here too. Where
    a map is not finite, there is no picture of it.

    Files: `sanity_examples` (how alike the maps are), `sanity_examples_tiles` (the same with the pictures, and the
    photographs).

    Args:
        explanandum: the classifier.
        options: how much is shown.
        sanity: how the classifier is randomised.
        rebuild: makes the method of a name anew for another classifier.
    """

    name = "sanity_examples"
    own_rows = (PHOTOGRAPH,)
    calls_methods = True
    options: SanityExamplesOptions

    def __init__(
        self, explanandum: Explanandum, options: SanityExamplesOptions, sanity: SanityOptions, rebuild: Rebuild
    ) -> None:
        super().__init__(explanandum, options)
        self.sanity = SanityTable(explanandum, replace(sanity, images=options.images), rebuild)

    @property
    def key(self) -> str:
        """Of the randomisation."""
        return digest(super().key, self.sanity.key)

    @property
    def limit(self) -> int | None:
        """As many as fit on a page."""
        return self.options.images

    def unsuited(self, split: SplitFacts) -> str:
        """SSIM has a smallest size."""
        return self.sanity.unsuited(split)

    def refuses(self, *, is_trained: bool) -> str:
        """As in `sanity`."""
        return self.sanity.refuses(is_trained=is_trained)

    def asks(self, images: Images) -> Tensor:
        """As in `sanity`."""
        return self.sanity.asks(images)

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
        """A row for each mode and layer, the untouched classifier's map first."""
        found: list[list[Row]] = [[] for _ in range(len(images))]
        for mode in self.sanity.options.modes:
            steps = ((0, None, maps.maps), *self.sanity.changed_maps(mode, images, maps, named))
            for depth, layer, changed in steps:
                pictures = replace(maps, maps=changed).scaled.clamp(0, 1)[:, None]
                values = zip(*similarities(maps.maps, changed), pictures, strict=True)
                for rows, (correlation, ssim, picture) in zip(found, values, strict=True):
                    alike = dict(zip(SIMILARITIES, (correlation, ssim), strict=True))
                    shown = None if correlation is None else tile(picture)
                    rows.append(_row(mode, depth, layer, shown, alike))
        return found

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """The photographs."""
        return [[_row(None, None, None, tile(picture))] for picture in photographs(images)]

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """A row for each method, image, mode and layer, without and with the pictures."""
        tiles = [{"method": one.method, **row} for one in scores for row in one.flat]
        shown = [row for row in tiles if row["method"] not in self.own_rows]
        return {
            self.name: [{name: value for name, value in row.items() if name != "tile"} for row in shown],
            f"{self.name}_tiles": tiles,
        }

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """Means over all modes and layers, the untouched classifier left out."""
        return summary(scores, [mean_of(name, of=lambda row: bool(row["depth"])) for name in SIMILARITIES])


def _row(mode: str | None, depth: int | None, layer: str | None, picture: str | None, alike: Row | None = None) -> Row:
    facts = {"mode": mode, "depth": depth, "layer": layer}
    return {**facts, **(alike or dict.fromkeys(SIMILARITIES)), "tile": picture}
