"""Does a method tell the truth about what the classifier uses? On scenes with a planted shortcut that is known.

B images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.measures import differences, mean_of, summary
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

    Files: `shortcut`, `shortcut_differences`, and, the table's very question, `shortcut_classifiers`: for each two
    classifiers and method the first one's shares minus the other's, on the same images. Of a classifier with the cue
    minus one without, a method that shows what they use has a positive difference in `cue`.

    Args:
        explanandum: the classifier.
        options: which shortcut.

    Raises:
        ValueError: for a class that the classifier does not have.
    """

    name = "shortcut"
    own_rows = (UNIFORM,)
    options: ShortcutOptions

    def __init__(self, explanandum: Explanandum, options: ShortcutOptions) -> None:
        super().__init__(explanandum, options)
        known = explanandum.card.classes
        if options.shortcut_class not in known:
            raise ValueError(
                f"The classifier has no class '{options.shortcut_class}' that a cue could give away; "
                f"choose one of: {', '.join(known)}."
            )
        self.target = known.index(options.shortcut_class)

    def unsuited(self, split: SplitFacts) -> str:
        """It needs a cue."""
        return "" if split.has_cues and split.has_masks else "no shortcut is planted in the split"

    def asks(self, images: Images) -> Tensor:
        """The class that is given away, where it and the cue are."""
        assert images.batch.cue_mask is not None  # or the split would be unsuited
        asked = torch.zeros_like(images.labels)
        asked[:, self.target] = images.labels[:, self.target] & images.batch.cue_mask.flatten(1).any(dim=1)
        return asked

    def left_out(self, images: Images) -> list[str]:
        """Images without the class or without the cue."""
        return [WITHOUT_CUE if reason else "" for reason in super().left_out(images)]

    def score(self, images: Images, maps: ClassMaps, named: NamedMethod) -> list[list[Row]]:
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
        """Mean shares for each classifier and method; differences of methods, and of classifiers."""
        return {
            self.name: self.main_rows(scores),
            "shortcut_differences": method_differences(scores),
            "shortcut_classifiers": classifier_differences(scores),
        }

    def main_rows(self, scores: Sequence[MethodScores]) -> list[Row]:
        """Mean shares for each classifier and method, and how many maps were empty, so that they have none."""
        rows = summary(scores, MEASURES)
        return [
            {"classifier": one.classifier, **row, "empty": sum(values["cue"] is None for values in one.flat)}
            for row, one in zip(rows, scores, strict=True)
        ]


def method_differences(scores: Sequence[MethodScores]) -> list[Row]:
    """Between methods of the same classifier."""
    found = []
    for classifier in dict.fromkeys(one.classifier for one in scores):
        same = [one for one in scores if one.classifier == classifier]
        found += [{"classifier": classifier, **row} for row in differences(same, MEASURES)]
    return found


def classifier_differences(scores: Sequence[MethodScores]) -> list[Row]:
    """Between classifiers, for the same method."""
    found = []
    for method in dict.fromkeys(one.method for one in scores):
        same = [replace(one, method=one.classifier) for one in scores if one.method == method]
        for row in differences(same, MEASURES):  # whose `method` is a classifier, as `other` is
            found.append({"method": method, "classifier": row["method"]} | row | {"method": method})
    return found
