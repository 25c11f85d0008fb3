"""What the sections of the report page consist of."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from explainer.report.names import names_in
from explainer.report.page_change_charts import change_charts
from explainer.report.page_charts import Chart, charts_of
from explainer.report.page_compare import Change, changes, most_different, warnings_of
from explainer.report.page_data import CURVES, Result, flattened
from explainer.report.page_gallery import Picked
from explainer.report.page_sections import ABOUT, About
from explainer.report.page_tables import ShownTable, shown_table, table_of_rows


@dataclass(frozen=True)
class Part:
    """A table with its charts.

    Args:
        table: None for points that only a chart shows.
        charts: of the same file.
        files: links to CSV files, by the run's name (empty for a single one).
        stem: of the CSV file.
    """

    table: ShownTable | None
    charts: list[Chart]
    files: dict[str, str]
    stem: str


@dataclass(frozen=True)
class Section:
    """What the page shows of a table of evaluate.py.

    Args:
        key: name of the table.
        about: words.
        parts: its files, the main one first.
        options: how it was made, by the run's name: pairs of option and value.
    """

    key: str
    about: About
    parts: list[Part]
    options: dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Comparison:
    """Two results against each other.

    Args:
        before: name of the first.
        after: name of the second.
        found: all scores that both have.
        names: what the methods are called.
        table: of them.
        images: those that changed most.
        different: their names.
        lacking: those of them that a gallery lacks, of one of the two or both.
        charts: of the differences.
        warnings: in what the two can't be compared.
        left_out: tables that both have, and that can't be compared image by image.
    """

    before: str
    after: str
    found: list[Change]
    names: dict[str, str]
    table: ShownTable
    images: ShownTable | None
    different: list[str]
    lacking: list[str]
    charts: list[Chart]
    warnings: list[str]
    left_out: list[str]

    def of(self, verdict: str) -> list[Change]:
        """The scores with that verdict."""
        return [change for change in self.found if change.verdict == verdict]


def section_of(results: Sequence[Result], key: str, stems: Sequence[str], output: Path) -> Section:
    """A section of the page, made of these CSV files.

    Args:
        results: of one or more evaluations.
        key: name of the table.
        stems: of its files, the main one first.
        output: folder of the page.
    """
    parts = [_part(results, stem, output) for stem in stems]
    options = {one.name: flattened(one.facts(key).get("options") or {}) for one in results}
    about = ABOUT.get(key, About(key.replace("_", " ")))
    kept = [part for part in parts if part.table is not None or part.charts]
    return Section(key, about, kept, {name: pairs for name, pairs in options.items() if pairs})


def _part(results: Sequence[Result], stem: str, output: Path) -> Part:
    files = {
        f"{one.name}: {name}" if len(results) > 1 else name: link
        for one in results
        for name, link in links(one, (stem,), output).items()
    }
    table = None if stem.endswith(CURVES) else shown_table(results, stem)
    return Part(table, charts_of(results, stem), files, stem)


def links(result: Result, stems: Sequence[str], output: Path, ending: str = "") -> dict[str, str]:
    """CSV files by their names, as seen from the page."""
    files = {stem: result.folder / f"{stem}.csv" for stem in stems if stem.endswith(ending)}
    return {stem: quote(os.path.relpath(file, output)) for stem, file in files.items() if file.is_file()}


def comparison_of(before: Result, after: Result, gallery: Sequence[Picked] = ()) -> Comparison:
    """Two results against each other, with what makes the comparison doubtful.

    Args:
        before: the first.
        after: the second.
        gallery: of the page.
    """
    found = changes(before, after)
    rows = [change.row for change in found]
    different = most_different(found)
    names = list(dict.fromkeys(row["image"] for row in different))
    shown = {picked.name for picked in gallery if {before.name, after.name} <= picked.runs}
    compared = list(dict.fromkeys(change.table for change in found))
    return Comparison(
        before.name,
        after.name,
        found,
        names_in(rows),
        table_of_rows(rows or [{"method": None}], "comparison"),
        table_of_rows(different, "most_different") if different else None,
        names,
        [name for name in names if name not in shown],
        change_charts(rows),
        warnings_of(before, after, compared),
        [stem for stem in before.shown if before.facts(stem) and stem in after.shown and stem not in compared],
    )
