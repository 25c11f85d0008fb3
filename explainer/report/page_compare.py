"""Two runs on the same images: what got better, what got worse, and where they differ most.

Numbers come from the scores of single images (`*_per_image.csv`), so that chance is judged by paired differences; only
what both runs scored counts: the same classes of the same images. A method's score is computed as in the tables.
N images, G groups.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, zip_longest
from math import isnan

import numpy as np

from explainer.bootstrap import interval_of
from explainer.report.page_data import PER_IMAGE, Result, flattened
from explainer.report.page_scores import Parts, scores_of
from explainer.report.page_sections import BETTER
from explainer.report.tables import Row
from explainer.resampling import Array, mean_ratio, resampled_alike

PERCENT = frozenset(
    ("acc", "iou", "mae", "insertion", "deletion", "over_all", "hit_rate", "over_maps", "on_target", "specificity")
    + ("precision", "recall", "f_score")
)
"""In [0, 1] in the scores of single images, in percent in the tables and here."""
MOST = 10
"""Images listed for each measure."""
Bounds = tuple[float | None, float | None]
OWN_FACTS = frozenset(("command", "images", "options.images"))
"""In which runs may differ: what is compared is what both have."""


@dataclass(frozen=True)
class Change:
    """A method's score in two runs, on the images that both have.

    Args:
        table: that scored.
        method: that was scored.
        measure: column of the scores.
        before: the first run's score; percentages as such.
        after: the second run's.
        low: lower bound of after − before; None for fewer than two images.
        high: upper bound.
        images: N.
        values: of each image, before and after, by its name; none of a mean over classes.
    """

    table: str
    method: str
    measure: str
    before: float
    after: float
    low: float | None
    high: float | None
    images: int
    values: dict[str, tuple[float, float]]

    @property
    def difference(self) -> float:
        """After − before."""
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the interval excludes 0; else `undecided`."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "undecided"
        return "better" if (self.low > 0) == (BETTER[self.measure] > 0) else "worse"

    @property
    def row(self) -> Row:
        """As a row of the table on the page."""
        return {
            **{"table": self.table, "method": self.method, "measure": self.measure},
            **{"before": self.before, "after": self.after},
            **{"difference": self.difference, "difference_low": self.low, "difference_high": self.high},
            **{"verdict": self.verdict, "images": self.images},
        }


@dataclass(frozen=True)
class Pair:
    """What two runs have of a method and measure.

    Args:
        table: that scored.
        method: that was scored.
        measure: column of the scores.
        sums: of each image what is above and below the line, before and after, [N,4,G].
        images: their names.
    """

    table: str
    method: str
    measure: str
    sums: Array
    images: list[str]

    @property
    def values(self) -> dict[str, tuple[float, float]]:
        """Of each image, before and after, by its name; none of a mean over classes."""
        of_images = np.stack(means(self.sums), axis=1).tolist() if self.sums.shape[2] == 1 else []
        return {
            image: (first, second)
            for image, (first, second) in zip(self.images, of_images, strict=False)
            if not (isnan(first) or isnan(second))
        }


def changes(before: Result, after: Result) -> list[Change]:
    """Every method's score that both runs have, by table, measure and method."""
    pairs = pairs_of(before, after)
    bounds = intervals([pair.sums for pair in pairs])
    return [_change(pair, *of_pair) for pair, of_pair in zip(pairs, bounds, strict=True)]


def pairs_of(before: Result, after: Result) -> list[Pair]:
    """The same, without the verdict, which takes most of the time."""
    pairs = []
    for table in common_tables(before, after):
        first, second = (scores_of(one.table(f"{table}{PER_IMAGE}")) for one in (before, after))
        for method, measure in sorted(first.keys() & second.keys(), key=lambda key: _place(key, first)):
            key = method, measure
            pair = _pair(table, key, first[key], second[key])
            pairs += [pair] if pair.images and not np.isnan(means(pair.sums.sum(axis=0))).any() else []
    return pairs


def means(sums: Array) -> tuple[Array, Array]:
    """The means over groups of the first ratios, and of the second.

    Args:
        sums: above and below the line of the first, then of the second, [...,4,G]; a group with nothing below the line
            does not count.
    """
    halves = sums.reshape(*sums.shape[:-2], 2, -1)
    first, second = (mean_ratio(np.atleast_2d(halves[..., place, :])) for place in (0, 1))
    return first.reshape(sums.shape[:-2]), second.reshape(sums.shape[:-2])


def intervals(every: Sequence[Array]) -> list[Bounds]:
    """Of the second mean less the first, images drawn in pairs; None for fewer than two images, and what is infinite.

    Args:
        every: of each measure what each image contributes, [N,4,G]; N and G may differ.
    """
    found: list[Bounds] = [(None, None)] * len(every)
    for count in {len(sums) for sums in every} - {0, 1}:
        places = [place for place, sums in enumerate(every) if len(sums) == count and np.isfinite(sums).all()]
        drawn = resampled_alike(_difference, [every[place].reshape(count, -1) for place in places])
        for place, of_place in zip(places, drawn, strict=True):
            _, low, high, *_ = interval_of(of_place, np.array(count))
            found[place] = (None, None) if np.isnan(low) else (float(low), float(high))
    return found


def _difference(totals: Array) -> Array:
    """Of totals over images, [D,4G] -> [D]."""
    first, second = means(totals.reshape(len(totals), 4, -1))
    return second - first


def common_tables(before: Result, after: Result) -> Iterator[str]:
    """Those of which both have the scores of single images."""
    for stem in before.stems:
        if stem.endswith(PER_IMAGE) and stem in after.stems:
            yield stem.removesuffix(PER_IMAGE)


def _place(key: tuple[str, str], known: dict[tuple[str, str], Parts]) -> tuple[int, int]:
    """By measure, then in the order of the file."""
    return list(BETTER).index(key[1]), list(known).index(key)


def _pair(table: str, key: tuple[str, str], before: Parts, after: Parts) -> Pair:
    """Of the images and classes that both have."""
    common = [one for one in before if one in after]
    images = list(dict.fromkeys(image for image, _ in common))
    groups = list(dict.fromkeys(before[one].group for one in common))
    rows = {image: place for place, image in enumerate(images)}
    columns = {group: place for place, group in enumerate(groups)}
    sums = np.zeros((len(images), 4, len(groups)))
    for one in common:
        first, second = before[one], after[one]
        sums[rows[one[0]], :, columns[first.group]] += (first.above, first.below, second.above, second.below)
    sums[:, (0, 2)] *= 100 if key[1] in PERCENT else 1
    return Pair(table, *key, sums, images)


def _change(pair: Pair, low: float | None, high: float | None) -> Change:
    before, after = map(float, means(pair.sums.sum(axis=0)))
    return Change(pair.table, pair.method, pair.measure, before, after, low, high, len(pair.images), pair.values)


def warnings_of(before: Result, after: Result, tables: Sequence[str]) -> list[str]:
    """In what these tables were made differently: fact by fact, with the tables that it concerns."""
    found: dict[str, list[str]] = {}
    for table in tables:
        first, second = (dict(flattened(one.facts(table))) for one in (before, after))
        if bool(first) != bool(second):
            found.setdefault("of one run nobody wrote down how it was made", []).append(table)
            continue
        for name in dict.fromkeys((*first, *second)):
            one, other = (facts.get(name, "not known") for facts in (first, second))
            if name not in OWN_FACTS and one != other:
                found.setdefault(f"{name.removeprefix('options.')}: {one} and {other}", []).append(table)
    return [f"{text} ({', '.join(names)})" for text, names in found.items()]


def most_different(found: Sequence[Change | Pair]) -> list[Row]:
    """For each table and measure the images that changed most, over all methods."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for change in found:
        for image, (before, after) in change.values.items():
            row: Row = {"table": change.table, "measure": change.measure, "method": change.method, "image": image}
            row |= {"before": before, "after": after, "difference": after - before}
            groups.setdefault((change.table, change.measure), []).append(row)
    ordered = (sorted(rows, key=lambda row: -abs(row["difference"]))[:MOST] for rows in groups.values())
    return [row for rows in ordered for row in rows if row["difference"]]


def differing(results: Sequence[Result], most: int) -> list[str]:
    """The images in which results differ most, as the page lists them.

    Each list gives its first image, then each its second one, and so on, so that no measure goes short.

    Args:
        results: each is compared with the one before.
        most: images of each comparison.
    """
    names: dict[str, None] = {}
    for before, after in pairwise(results):
        lists: dict[tuple[str, str], list[str]] = {}
        for row in most_different(pairs_of(before, after)):
            lists.setdefault((row["table"], row["measure"]), []).append(row["image"])
        in_turn = dict.fromkeys(name for rank in zip_longest(*lists.values()) for name in rank if name is not None)
        names |= dict.fromkeys(islice(in_turn, most))
    return list(names)
