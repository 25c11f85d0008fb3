"""The gallery of the report page and the largest masks: of several runs, with pictures missing, and how large it is."""

import json

import pytest
from toy_pages import elements

from benchmarks.report import Names, make_results
from explainer.report.page import write_page
from explainer.report.page_charts import charts_of
from explainer.report.page_data import open_results
from explainer.report.page_gallery import content_of, index_of, read_gallery, sizes_of
from explainer.report.tables import read_table, write_csv, write_table

NAMES = Names(["a.jpg", "b.jpg"], ("explainer", "grad_cam"), ("cat", "dog"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with other classifiers: other layers, other probabilities."""
    folder = tmp_path_factory.mktemp("runs")
    found = [make_results(folder / name, NAMES, side=16) for name in ("one", "two")]
    for run, probability, layers in zip(found, (0.95, 0.1), (("fc", "conv"), ("head", "block")), strict=True):
        rows = read_table(run / "gallery_tiles.csv")
        changed = [row | ({"probability": probability} if row["class"] else {}) for row in rows]
        write_csv(changed, run / "gallery_tiles")
        values = {f"{name}{end}": 0.5 for name in ("rank_correlation", "ssim") for end in ("", "_low", "_high")}
        sanity = [
            {"method": "grad_cam", "mode": "cascading", "depth": depth, "layer": layer, **values}
            for depth, layer in enumerate(layers, start=1)
        ]
        write_table(sanity, run / "sanity")
    return found


def changed(folder, stem, change):
    rows = read_table(folder / f"{stem}.csv")
    for row in rows:
        change(row)
    write_csv(rows, folder / stem)
    return folder


def test_each_run_has_its_own_probability(runs):
    picked, _ = read_gallery(open_results(runs))
    assert picked.classes["cat"]["probability"] == {"one": "0.95", "two": "0.1"}
    (alone, _) = read_gallery(open_results(runs[:1]))
    assert alone.classes["cat"]["probability"] == {"": "0.95"}


def test_classifiers_with_other_layers_have_charts_of_their_own(runs):
    charts = charts_of(open_results(runs), "sanity")
    shown = {(chart.title.rpartition("(")[2], *chart.figure["layout"]["xaxis"]["ticktext"]) for chart in charts}
    assert shown == {("one)", "fc", "conv"), ("two)", "head", "block")}
    assert len(charts_of(open_results(runs[:1]), "sanity")) == 2


def test_methods_are_called_as_in_figures(runs):
    names = dict(index_of(read_gallery(open_results(runs)), beside=False)["methods"])
    assert names["two · grad_cam"] == "two · Grad-CAM"
    cells = [found for found in elements(write_page(runs[:1]).read_text(), "td") if found["text"] == "Grad-CAM"]
    assert "grad_cam" in [cell["attributes"].get("title") for cell in cells]  # as on the command line


def test_an_image_without_a_photograph_keeps_its_maps(tmp_path):
    def remove(row):
        if row["method"] == "photograph" and row["image"] == "b.jpg":
            row["tile"] = None

    folder = changed(make_results(tmp_path / "results", NAMES, side=16), "gallery_tiles", remove)
    _, picked = read_gallery(open_results([folder]))
    assert (picked.name, picked.photograph) == ("b.jpg", "") and picked.maps.keys() == {"explainer", "grad_cam"}
    beside = write_page([folder], embedded=0).parent / "gallery"
    assert sorted(file.name for file in beside.iterdir()) == ["000000.js", "000000.webp", "000001.js"]


def test_where_a_mask_is_missing_the_page_says_so(tmp_path):
    def remove(row):
        row["tile"] = None if row["rank"] in (0, 1) else row["tile"]

    folder = changed(make_results(tmp_path / "results", NAMES, side=16), "top_classes_tiles", remove)
    html = write_page([folder]).read_text()
    section = html[html.index('id="top-classes"') : html.index('id="section-')]
    assert section.count("no photograph") == 2 and section.count("no map") == 4
    assert 'src=""' not in section


def test_the_size_of_the_gallery_is_what_it_takes_in_the_page(tmp_path):
    folder = make_results(tmp_path / "results", NAMES, side=16)
    gallery = read_gallery(open_results([folder]))
    texts = [found["text"] for found in elements(write_page([folder]).read_text(), "script")]
    (contents,) = [text for text in texts if text.startswith('[{"photograph"')]
    assert json.loads(contents) == [content_of(picked) for picked in gallery]
    assert sum(sizes_of(gallery)) == pytest.approx(len(contents), rel=0.05)
    photograph = gallery[0].photograph
    assert sum(text.count(photograph) for text in texts) == 1  # its small copy is itself


@pytest.mark.parametrize("without", [("one",), ("two",), ("one", "two")])
def test_images_that_differ_most_and_are_not_in_the_gallery_of_both_runs_are_counted(tmp_path, without):
    def remove(row):
        row["image"] = "a.jpg"

    runs = [make_results(tmp_path / name, NAMES, seed=seed, side=16) for seed, name in enumerate(("one", "two"))]
    assert "images are not in" not in said(runs)
    for name in without:
        changed(tmp_path / name, "gallery_tiles", remove)
    assert "shows an image in the gallery. 1 of these 2 images are not in the gallery of both: " in said(runs)
    assert "--differing 2 adds them" in said(runs)


def test_where_there_is_no_gallery_the_page_says_how_to_make_one(tmp_path):
    runs = [make_results(tmp_path / name, NAMES, seed=seed, side=16) for seed, name in enumerate(("one", "two"))]
    for run in runs:
        (run / "gallery_tiles.csv").unlink()
    assert "over all methods. 2 of these 2 images are not in a gallery: evaluate.py --runs" in said(runs)


def said(runs):
    """The paragraphs of the page."""
    return " ".join(found["text"] for found in elements(write_page(runs).read_text(), "p"))


def test_anchors_are_usable_whatever_a_file_is_called(tmp_path):
    write_table([{"method": "a", "iou": 1}, {"method": "b", "iou": 2}], tmp_path / "my table #1")
    html = write_page([tmp_path]).read_text()
    assert 'href="#section-my-table-1"' in html and 'id="section-my-table-1"' in html
