"""Two runs on the same images: what got better, what got worse, and where they differ most.

Numbers come from the scores of single images (`*_per_image.csv`), so that chance is judged by paired differences. An
image's score is the mean of its rows; a method's score is the mean over all rows of all images, as in the tables.
N images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from explainer.report.page_data import PER_IMAGE, Result
from explainer.report.page_sections import BETTER, REFERENCES
from explainer.report.tables import Row

PERCENT = frozenset(("acc", "iou", "mae", "insertion", "deletion", "over_all", "hit"))
"""In [0, 1] in the scores of single images, in percent in the tables and here."""
LEVEL = 0.95
DRAWS = 2000
MOST = 10
"""Images listed for each measure."""

Array = NDArray[np.float64]
Sums = dict[str, tuple[float, int]]
"""An image's sum of values, and their number."""


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
        values: of each image, before and after, by its name.
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


def changes(before: Result, after: Result) -> list[Change]:
    """Every method's score that both runs have, by table, measure and method."""
    found = []
    for table in _common_tables(before, after):
        first, second = (_scores(one.table(f"{table}{PER_IMAGE}")) for one in (before, after))
        keys = [key for key in first if key in second and key[0] not in REFERENCES]
        found += [
            change
            for key in sorted(keys, key=lambda key: list(BETTER).index(key[1]))
            if (change := _change(table, key, first[key], second[key])) is not None
        ]
    return found


def _common_tables(before: Result, after: Result) -> Iterator[str]:
    for stem in before.stems:
        if stem.endswith(PER_IMAGE) and stem in after.stems:
            yield stem.removesuffix(PER_IMAGE)


def _scores(rows: Sequence[Row]) -> dict[tuple[str, str], Sums]:
    """Sums by method and measure, then by image; where there are rows for the whole image, classes don't count."""
    whole = any("class" in row and row["class"] is None for row in rows)
    found: dict[tuple[str, str], Sums] = {}
    names = [name for name in (rows[0] if rows else ()) if name in BETTER]
    for row in rows:
        if (whole and row["class"] is not None) or row.get("classifier"):
            continue
        for name in names:
            if row[name] is not None:
                of_method = found.setdefault((str(row["method"]), name), {})
                total, count = of_method.get(str(row["image"]), (0.0, 0))
                of_method[str(row["image"])] = total + float(row[name]), count + 1
    return found


def _change(table: str, key: tuple[str, str], before: Sums, after: Sums) -> Change | None:
    """None where the runs have no image in common."""
    images = [image for image in before if image in after]
    if not images:
        return None
    method, measure = key
    scale = 100.0 if measure in PERCENT else 1.0
    sums = np.array([[*before[image], *after[image]] for image in images], dtype=np.float64)
    sums[:, (0, 2)] *= scale
    first, second = (float(sums[:, place].sum() / sums[:, place + 1].sum()) for place in (0, 2))
    low, high = _interval(sums)
    values = {image: (row[0] / row[1], row[2] / row[3]) for image, row in zip(images, sums.tolist(), strict=True)}
    return Change(table, method, measure, first, second, low, high, len(images), values)


def _interval(sums: Array) -> tuple[float | None, float | None]:
    """Expanded percentile interval of the second mean less the first, images drawn in pairs (Hesterberg, 2015).

    Args:
        sums: of each image the first sum and number, the second sum and number, [N,4].
    """
    from scipy.stats import bootstrap, t

    count = len(sums)
    if count < 2:
        return None, None
    tail = NormalDist().cdf(sqrt(count / (count - 1)) * float(t.ppf((1 - LEVEL) / 2, count - 1)))
    drawn = bootstrap(
        tuple(sums.T),
        _difference,
        n_resamples=DRAWS,
        batch=max(1, 2_000_000 // count),
        vectorized=True,
        paired=True,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def _difference(first: Array, first_count: Array, second: Array, second_count: Array, axis: int = -1) -> Array:
    return second.sum(axis=axis) / second_count.sum(axis=axis) - first.sum(axis=axis) / first_count.sum(axis=axis)


def most_different(found: Sequence[Change]) -> list[Row]:
    """For each table and measure the images that changed most, over all methods."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for change in found:
        for image, (before, after) in change.values.items():
            row: Row = {"table": change.table, "measure": change.measure, "method": change.method, "image": image}
            row |= {"before": before, "after": after, "difference": after - before}
            groups.setdefault((change.table, change.measure), []).append(row)
    ordered = (sorted(rows, key=lambda row: -abs(row["difference"]))[:MOST] for rows in groups.values())
    return [row for rows in ordered for row in rows if row["difference"]]
