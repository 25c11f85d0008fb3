"""The report page: what it says is what the CSV files say, nobody's text becomes code, and old files do no harm."""

import json
import re
from html.parser import HTMLParser

import pytest
from toy_pages import EVIL_CLASS, EVIL_IMAGE, METHODS, NAMES, elements

from benchmarks.report import make_results
from explainer.report.__main__ import main
from explainer.report.names import method_names
from explainer.report.page import write_page
from explainer.report.page_compare import changes, most_different
from explainer.report.page_data import distinct_names, open_results
from explainer.report.page_gallery import data_uri, read_gallery
from explainer.report.page_sections import ABOUT, BETTER, sections_of
from explainer.report.page_tables import MOST_ROWS, shown_table, table_of_rows
from explainer.report.tables import read_table, write_csv, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Made-up results with an evil class and an evil file name."""
    return make_results(tmp_path_factory.mktemp("made") / "results", NAMES, side=24)


@pytest.fixture(scope="module")
def html(folder):
    return write_page([folder]).read_text()


def shown(results, stem):
    return shown_table(open_results([results]), stem)


def test_every_number_of_every_table_is_the_one_in_the_csv_file_and_is_shown_rounded(folder, html):
    tables = {found["attributes"]["data-stem"]: found for found in elements(html, "table")}
    called = method_names(METHODS)
    stems = [file.stem for file in folder.glob("*.csv") if not file.stem.endswith(("_per_image", "_tiles", "_curves"))]
    assert set(stems) <= tables.keys()
    for stem in stems:
        rows = read_table(folder / f"{stem}.csv")
        names = [name for name in rows[0] if not name.endswith(("_low", "_high"))]
        cells = [cell for cell in tables[stem]["inside"] if cell["tag"] == "td"]
        assert len(cells) == len(rows) * len(names)
        for cell, (row, name) in zip(cells, ((row, name) for row in rows for name in names), strict=True):
            expected = row[name]
            if isinstance(expected, str):
                assert cell["attributes"]["data-value"] == expected
                assert cell["text"] == (called.get(expected) if name in ("method", "other") else expected)
                continue
            assert float(cell["attributes"]["data-value"]) == expected
            bounds = [row[f"{name}{end}"] for end in ("_low", "_high")] if f"{name}_low" in row else []
            for text, exact in zip(re.findall(r"-?\d+\.?\d*", cell["text"]), [expected, *bounds], strict=True):
                unit = 10 ** -len(text.partition(".")[2])  # of the last digit shown
                assert float(text) == pytest.approx(exact, abs=0.501 * unit)


def test_the_best_is_bold_and_what_can_not_be_told_from_it_is_marked(tmp_path):
    values = {"first": 61.0, "second": 60.0, "third": 50.0, "random": 99.0}
    bounds = {"iou_low": 0.0, "iou_high": 100.0}
    rows = [{"method": method, "iou": value, **bounds, "mae": 100 - value} for method, value in values.items()]
    write_table(rows, tmp_path / "segmentation")
    pairs = [("first", "second", -1.0, 3.0), ("third", "first", -15.0, -8.0)]
    differences = [
        {"method": one, "other": other, "measure": "iou", "difference": 1.0}
        | {"difference_low": low, "difference_high": high, "images": 5}
        for one, other, low, high in pairs
    ]
    write_table(differences, tmp_path / "segmentation_differences")
    table = shown(tmp_path, "segmentation")
    iou, mae = (next(place for place, one in enumerate(table.columns) if one.name == name) for name in ("iou", "mae"))
    assert [row[iou].mark for row in table.rows] == ["best", "tied", "", ""]  # random only stands for comparison
    assert [row[mae].mark for row in table.rows] == ["best", "", "", ""]  # without a difference nobody is tied
    html = write_page([tmp_path]).read_text()
    assert "<strong>61</strong>" in html
    assert not any(cell.mark for row in shown(tmp_path, "segmentation_differences").rows for cell in row)


def test_classes_and_images_compete_each_for_themselves(tmp_path):
    rows = [
        {"method": method, "class": name, "iou": value}
        for method, name, value in [("a", "cat", 10.0), ("b", "cat", 20.0), ("a", "dog", 90.0), ("b", "dog", 80.0)]
    ]
    table = table_of_rows(rows, "segmentation_per_class")
    assert [row[2].mark for row in table.rows] == ["", "best", "best", ""]


def test_an_evil_class_or_file_name_stays_a_text(folder, html):
    assert EVIL_CLASS not in html
    assert EVIL_IMAGE not in html
    scripts = [found for found in elements(html, "script") if "src" not in found["attributes"]]
    data = [found["text"] for found in scripts if found["attributes"].get("type") == "application/json"]
    index = next(json.loads(text) for text in data if '"thumbnail"' in text)
    assert EVIL_IMAGE in [image["name"] for image in index["images"]]
    assert any(one["name"] == EVIL_CLASS for image in index["images"] for one in image["classes"])
    for text in (found["text"] for found in elements(html, "figcaption")):
        if "alert" in text:
            assert EVIL_CLASS in text or EVIL_IMAGE in text


def test_all_json_of_the_page_is_readable_even_with_infinite_numbers(tmp_path):
    (tmp_path / "segmentation.csv").write_text("method,iou,iou_low,iou_high\na,inf,0,inf\nb,1,,\n")
    texts = [
        found["text"]
        for found in elements(write_page([tmp_path]).read_text(), "script")
        if found["attributes"].get("type") == "application/json"
    ]
    assert texts
    for text in texts:
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_page_asks_for_nothing_from_the_network(html):
    class Addresses(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attributes):
            self.found += [value for name, value in attributes if name in ("src", "href")]

    parser = Addresses()
    parser.feed(re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL))
    assert parser.found
    assert not [address for address in parser.found if re.match(r"(https?:)?//", address)]


def test_a_small_gallery_is_part_of_the_page_and_a_large_one_lies_beside_it(tmp_path):
    folder = make_results(tmp_path / "results", NAMES, side=24)
    page = write_page([folder])
    assert [file.name for file in page.parent.iterdir()] == ["index.html"]
    large = write_page([folder], embedded=0).read_text()
    files = sorted(file.name for file in (page.parent / "gallery").iterdir())
    assert files == sorted(f"{number:06}.{kind}" for number in range(len(NAMES.images)) for kind in ("js", "webp"))
    first = (page.parent / "gallery" / "000000.js").read_text()
    assert first.startswith("explainerGallery.put(0, {")
    assert json.loads(first[len("explainerGallery.put(0, ") : first.rindex(");")])["maps"].keys() == {*METHODS}
    assert "gallery/000000.webp" in large
    (page.parent / "gallery" / "mine.txt").write_text("kept")
    write_page([folder])
    assert [file.name for file in (page.parent / "gallery").iterdir()] == ["mine.txt"]


def test_the_gallery_shows_the_scores_of_its_images_as_they_are_in_the_files(folder):
    gallery = read_gallery(open_results([folder]))
    rows = [row for row in read_table(folder / "segmentation_per_image.csv") if row["image"] == EVIL_IMAGE]
    picked = next(one for one in gallery if one.name == EVIL_IMAGE)
    for row in rows:
        assert float(picked.scores[row["method"]][""]["iou"]) == row["iou"]


def test_the_gallery_falls_back_on_the_examples(tmp_path):
    folder = make_results(tmp_path / "results", NAMES, side=24)
    rows = list(read_table(folder / "gallery_tiles.csv"))
    (folder / "gallery_tiles.csv").unlink()
    names = ("method", "image", "class", "probability", "tile")
    write_csv([{name: row[name] for name in names} for row in rows], folder / "examples_tiles")
    assert [picked.name for picked in read_gallery(open_results([folder]))] == list(NAMES.images)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="no PNG, WebP or JPEG in base64"):
        data_uri('iVBOR" onerror="alert(1)')
    with pytest.raises(ValueError, match="make the table with the pictures anew"):
        data_uri("PHN2Zz4=")


def test_the_largest_masks_show_cls_and_ama_of_the_csv_file(folder, html):
    rows = read_table(folder / "top_classes_tiles.csv")
    expected = [row[name] for row in rows if row["rank"] for name in ("cls", "ama")]
    section = html[html.index('id="top-classes"') : html.index('id="section-')]
    found = re.findall(r'(CLS|AMA) <span data-value="([\d.]+)">([\d.]+)</span>', section)
    kept = [(float(exact), float(text)) for name, exact, text in found]
    merged = [row["ama"] for row in rows if row["rank"] == 0 and row["ama"] is not None]
    assert sorted(exact for exact, _ in kept) == sorted([*expected, *merged])
    assert all(text == pytest.approx(exact, abs=0.00501) for exact, text in kept)


def test_a_long_table_is_cut_and_says_so(tmp_path):
    write_csv([{"method": f"m{place}", "iou": place} for place in range(MOST_ROWS + 5)], tmp_path / "segmentation")
    table = shown(tmp_path, "segmentation")
    assert (len(table.rows), table.total) == (MOST_ROWS, MOST_ROWS + 5)
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 5} rows" in write_page([tmp_path]).read_text()


def test_the_command_of_every_table_and_the_environment_are_on_the_page(html):
    commands = [found["text"] for found in elements(html, "code")]
    assert "python evaluate.py --tables segmentation" in commands
    assert "none (0 cores)" in html


def test_files_stand_with_the_table_that_they_belong_to():
    stems = ["masking_specificity", "masking", "segmentation_per_class", "my_table", "sanity_examples", "sanity"]
    assert sections_of(sorted(stems)) == {
        "segmentation": ["segmentation_per_class"],
        "masking": ["masking", "masking_specificity"],
        "sanity": ["sanity"],
        "sanity_examples": ["sanity_examples"],
        "my_table": ["my_table"],
    }
    assert all(about.title for about in ABOUT.values())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs; the second is better by .1 in IoU for the first method, and equal for the others."""
    folder = tmp_path_factory.mktemp("pair")
    first, second = (make_results(folder / name, NAMES, side=24) for name in ("one", "two"))
    file = second / "segmentation_per_image.csv"
    rows = read_table(file)
    for row in rows:
        row["iou"] += 0.1 if row["method"] == METHODS[0] else 0
    write_csv(rows, file.with_suffix(""))
    return first, second


def test_runs_are_compared_image_by_image(pair):
    found = {(one.table, one.measure, one.method): one for one in changes(*open_results(pair))}
    better = found["segmentation", "iou", METHODS[0]]
    assert better.verdict == "better"
    assert (better.low, better.high) == pytest.approx((10, 10), rel=1e-4)
    table = {row["method"]: row for row in read_table(pair[0] / "segmentation.csv")}
    for (name, measure, method), one in found.items():
        if name == "segmentation":
            assert one.before == pytest.approx(table[method][measure] / (100 if measure == "sal" else 1), rel=1e-4)
        if (name, measure, method) != ("segmentation", "iou", METHODS[0]):
            assert (one.difference, one.verdict) == (0, "undecided")
    assert {row["method"] for row in most_different(list(found.values()))} == {METHODS[0]}


def test_less_is_better_where_it_is(tmp_path):
    for name, shift in (("one", 0.0), ("two", -0.1)):
        rows = [{"method": "a", "image": f"i{place}", "deletion": 0.5 + place / 100 + shift} for place in range(9)]
        write_csv(rows, tmp_path / name / "insertion_deletion_per_image")
        write_csv([{"method": "a"}], tmp_path / name / "insertion_deletion")
    (change,) = changes(*open_results([tmp_path / "one", tmp_path / "two"]))
    assert change.difference == pytest.approx(-10)
    assert change.verdict == "better"


def test_the_interval_of_a_comparison_is_that_of_the_tables(tmp_path):
    """The expanded percentiles of explainer/bootstrap.py, from other draws."""
    import numpy as np

    from explainer.bootstrap import bootstrap_mean

    values = np.random.default_rng(3).normal(0.05, 0.2, (2, 30))
    for name, of_run in zip(("one", "two"), values.tolist(), strict=True):
        rows = [{"method": "a", "image": f"i{place}", "iou": value} for place, value in enumerate(of_run)]
        write_csv(rows, tmp_path / name / "segmentation_per_image")
        write_csv([{"method": "a"}], tmp_path / name / "segmentation")
    (change,) = changes(*open_results([tmp_path / "one", tmp_path / "two"]))
    expected = bootstrap_mean(100 * (values[1] - values[0]), [*range(30)])
    width = float(expected.high - expected.low)
    assert change.difference == pytest.approx(float(expected.value), rel=1e-4)
    assert (change.low, change.high) == pytest.approx((float(expected.low), float(expected.high)), abs=0.08 * width)


def test_several_runs_stand_side_by_side_on_one_page(pair, tmp_path):
    page = write_page(pair, tmp_path / "page")
    html = page.read_text()
    assert {"What got better", "What got worse"} <= {found["text"] for found in elements(html, "h3")}
    tables = {found["attributes"]["data-stem"]: found for found in elements(html, "table")}
    runs = [cell["text"] for cell in tables["segmentation"]["inside"] if cell["tag"] == "td"][:: 2 + 4 + 2]
    assert runs == ["one"] * len(METHODS) + ["two"] * len(METHODS)
    assert f"one · {METHODS[0]}" in html.replace("\\u00b7", "·")


def test_names_are_the_shortest_that_differ(tmp_path):
    assert distinct_names([tmp_path / "a" / "evaluation", tmp_path / "b" / "evaluation"]) == ["a", "b"]
    assert distinct_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]


def test_the_command_takes_a_run_and_says_what_is_wrong(tmp_path, capsys):
    run = tmp_path / "run"
    make_results(run / "evaluation", NAMES, side=24)
    (run / "config.yaml").write_text("")
    (run / "metrics.csv").write_text("epoch\n1\n")
    assert main([str(run)]) == (run / "evaluation" / "report" / "index.html").resolve()
    assert "Written to" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="holds no table.*name a folder that evaluate.py wrote"):
        main([str(tmp_path)])
    with pytest.raises(ValueError, match="name each folder once"):
        main([str(run), str(run / "evaluation")])
    (run / "evaluation" / "segmentation.json").write_text("{")
    with pytest.raises(ValueError, match="segmentation.json is no valid JSON"):
        main([str(run)])


def test_every_measure_has_one_direction():
    assert set(BETTER.values()) == {1, -1}
