"""Does a method tell the truth about what the classifier uses? On scenes with a planted shortcut that is known.

B images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import differences, mean_of, measured
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, SplitFacts, Table, columns
from explainer.explanandum import Explanandum
from explainer.metrics.shortcut import PARTS, mass_shares

MEASURES = tuple(mean_of(part, 100) for part in PARTS)
"""In percent."""
UNIFORM = "uniform"
WITHOUT_CUE = "without both the class that is given away and its cue"


@dataclass(frozen=True)
class ShortcutOptions:
    """Which shortcut.

    Args:
        shortcut_class: Class that the cue gives away.
    """

    shortcut_class: str


class ShortcutTable(Table):
    """Share of a map's mass on the objects of the class, on its cue, and elsewhere.

    Of a classifier trained with the cue an honest map shows the cue; of one trained without it, the object. Row
    `uniform` is a map that is the same everywhere: the shares of the image.

    Files: `shortcut`, `shortcut_differences`.
    """

    name = "shortcut"
    own_rows = (UNIFORM,)
    options: ShortcutOptions

    def __init__(self, explanandum: Explanandum, options: ShortcutOptions) -> None:
        super().__init__(explanandum, options)
        self.target = explanandum.card.classes.index(options.shortcut_class) if options.shortcut_class else -1

    def unsuited(self, split: SplitFacts) -> str:
        """It needs a cue."""
        return "" if split.has_cues and split.has_masks else "no shortcut is planted in the split"

    def asks(self, images: Images) -> Tensor:
        """The class that is given away, where it and the cue are."""
        assert images.batch.cue_mask is not None
        chosen = (
            images.labels
            & torch.nn.functional.one_hot(
                torch.tensor(self.target, device=images.image.device), images.labels.shape[1]
            ).bool()
        )
        return chosen & images.batch.cue_mask.flatten(1).any(dim=1)[:, None]

    def left_out(self, images: Images) -> list[str]:
        """Images without the class or without the cue."""
        return [WITHOUT_CUE if reason else "" for reason in super().left_out(images)]

    def score(self, images: Images, maps: ClassMaps, row: NamedMethod) -> list[list[Row]]:
        """One row an image; no values for a map that is zero everywhere."""
        return self._rows(images, maps.scaled)

    def score_own(self, name: str, images: Images) -> list[list[Row]]:
        """A map of ones."""
        return self._rows(images, torch.ones_like(images.image[:, 0]))

    def _rows(self, images: Images, maps: Tensor) -> list[list[Row]]:
        mask, cue = images.batch.mask, images.batch.cue_mask
        assert mask is not None and cue is not None
        shares = mass_shares(maps, mask == self.target + 1, cue)
        rows = columns(**shares)
        return [[{name: None if value != value else value for name, value in row.items()}] for row in rows]

    def summarise(self, scores: Sequence[MethodScores]) -> Files:
        """Mean shares for each classifier and method; differences between methods of the same classifier."""
        rows = [
            {"classifier": one.classifier, "method": one.method, **measured(one, MEASURES)}
            | {"images": len(one.rows), "failed": len(one.failed)}
            for one in scores
        ]
        found = []
        for classifier in dict.fromkeys(one.classifier for one in scores):
            same = [one for one in scores if one.classifier == classifier]
            found += [{"classifier": classifier, **row} for row in differences(same, MEASURES)]
        return {self.name: rows, "shortcut_differences": found}
