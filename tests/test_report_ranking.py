"""What the report page calls the best: only within a run, and never surer than what was tested."""

import pytest
from toy_pages import elements

from explainer.report.page import write_page
from explainer.report.page_data import open_results
from explainer.report.page_tables import leaders, shown_table
from explainer.report.tables import write_table

DOUBTS = "not told apart from"


def scores(folder, values, pairs=(), stem="segmentation"):
    """A table of IoUs by method, and the intervals of some differences."""
    write_table([{"method": method, "iou": value} for method, value in values.items()], folder / stem)
    if pairs:
        rows = [
            {"method": one, "other": other, "measure": "iou", "difference": (low + high) / 2}
            | {"difference_low": low, "difference_high": high, "images": 9}
            for one, other, low, high in pairs
        ]
        write_table(rows, folder / f"{stem}_differences")
    return folder


def marks(folders, stem, name="iou"):
    table = shown_table(open_results(folders), stem)
    place = [column.name for column in table.columns].index(name)
    return [row[place].mark for row in table.rows]


@pytest.fixture
def runs(tmp_path):
    """Two runs; within each one the methods can't be told apart."""
    first = scores(tmp_path / "one", {"a": 50.0, "b": 49.0}, [("a", "b", -1, 3)])
    return [first, scores(tmp_path / "two", {"a": 60.0, "b": 61.0}, [("a", "b", -3, 1)])]


def test_runs_are_not_ranked_against_each_other(runs):
    assert marks(runs, "segmentation") == ["best", "tied", "tied", "best"]
    found = leaders(open_results(runs), "segmentation")
    assert [(row["run"], row["best"], row[DOUBTS]) for row in found] == [("one", "a", "b"), ("two", "b", "a")]
    page = write_page(runs).read_text()
    assert "the best of its run" in page and "best method of each run" in page


def test_what_nobody_tested_is_called_so(tmp_path):
    scores(tmp_path, {"a": 50.0, "b": 49.0}, stem="gallery")
    scores(tmp_path, {"a": 50.0, "b": 49.0, "c": 1.0}, [("a", "b", -1, 3)])
    scores(tmp_path, {"a": 50.0, "b": 49.0}, [("a", "b", 1, 3)], stem="pointing")
    results = open_results([tmp_path])
    doubts = {stem: leaders(results, stem)[0][DOUBTS] for stem in ("gallery", "segmentation", "pointing")}
    assert doubts == {"gallery": "not tested", "segmentation": "b; not tested: c", "pointing": "–"}
    said = " ".join(found["text"] for found in elements(write_page([tmp_path]).read_text(), "p"))
    assert said.count("There are no paired differences here") == 1  # of the gallery


def test_the_values_of_an_option_are_told_apart_by_the_ablation_s_own_differences(tmp_path):
    rows = [{"method": "rise", "option": "masks", "value": value, "iou": 40.0 + value} for value in (1, 2, 3)]
    write_table(rows, tmp_path / "ablation")
    differences = [
        {"method": "rise", "option": "masks", "value": value, "other": 3, "table": "segmentation", "measure": "iou"}
        | {"difference": -1.0, "difference_low": -2.0, "difference_high": high, "images": 9}
        for value, high in ((1, -0.5), (2, 0.5))
    ]
    write_table(differences, tmp_path / "ablation_differences")
    assert marks([tmp_path], "ablation") == ["", "tied", "best"]
