"""evaluate.py --report and --runs: a page beside the tables, and one page of several runs."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_runs import TEST_IMAGES, other_explainer
from toy_pages import elements

import evaluate
from explainer.evaluation import maps
from explainer.report.page_compare import differing
from explainer.report.page_data import open_results
from explainer.report.page_gallery import read_gallery
from explainer.report.tables import read_table
from programs.evaluate_options import parse_evaluation

QUICK = ("--accelerator", "cpu", "--limit", "3", "--gallery.images", "2", "--top_classes.images", "2")
METHODS = ("Explainer", "Grad-CAM")
ADDED = 3
"""Images that differ most, of those that the gallery may get."""


@pytest.fixture(scope="module")
def output(small_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    arguments = ["--run", str(small_run), "--output", str(folder), "--methods", "explainer", "grad_cam", "--report"]
    return evaluate.main([*arguments, *QUICK])


def test_the_page_has_the_tables_the_gallery_and_the_largest_masks(output):
    html = (output / "report" / "index.html").read_text()
    stems = {found["attributes"]["data-stem"] for found in elements(html, "table")}
    assert {"segmentation", "segmentation_per_class", "gallery", "top_classes"} <= stems
    gallery = read_gallery(open_results([output]))
    assert len(gallery) == 2
    for picked in gallery:
        assert {"ground_truth", "explainer", "grad_cam"} == picked.maps.keys()
        assert all(picked.classes.keys() == maps.keys() for maps in picked.maps.values())
    ranks = {row["rank"] for row in read_table(output / "top_classes.csv")}
    assert ranks == {0, 1, 2, 3, 4, 5}


def test_the_exact_command_is_kept_with_each_table_and_shown(output):
    command = json.loads((output / "segmentation.json").read_text())["command"]
    assert command.startswith("python evaluate.py --run ")
    assert command.endswith("--top_classes.images 2")
    html = (output / "report" / "index.html").read_text()
    assert command in [found["text"] for found in elements(html, "code")]


@pytest.fixture(scope="module")
def two_runs(small_run, tmp_path_factory):
    """What compares two runs, with few images in the gallery: the command line, but for the folder of the output."""
    other = other_explainer(small_run, tmp_path_factory.mktemp("runs") / "other")
    options = ("--methods", "explainer", "grad_cam", "--gallery.images", "2", "--differing", str(ADDED))
    return ["--runs", str(small_run), str(other), *options, "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def computed():
    """How often each method was asked for each map: of a classifier that two runs share, once for each run."""
    return Counter()


@pytest.fixture(scope="module")
def both(two_runs, computed, tmp_path_factory):
    """The folders of both runs' tables, and the page."""

    def noted(method, images, wanted):
        asked = [(type(method).__name__, images.names[index], target) for index, target in wanted.nonzero().tolist()]
        computed.update(asked)
        return original(method, images, wanted)

    original, output = maps._checked, tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "_checked", noted)
        page = evaluate.main([*two_runs, "--output", str(output)]) / "index.html"
    folders = [output / Path(run).name for run in two_runs[1:3]]
    assert {*output.iterdir()} == {*folders, page.parent}
    return [*folders, page]


def shown(page, stem):
    """The rows of a table of the page, and the images in it that lead to the gallery."""
    (table,) = (found for found in elements(page.read_text(), "table") if found["attributes"]["data-stem"] == stem)
    lines = [line["inside"] for line in table["inside"] if line["tag"] == "tr"]
    names, *rows = [[cell["text"] for cell in line if cell["tag"] in ("th", "td")] for line in lines]
    links = {found["attributes"]["data-picks"] for found in table["inside"] if "data-picks" in found["attributes"]}
    return [dict(zip(names, row, strict=True)) for row in rows], links


def test_several_runs_make_one_page_that_compares_them(both):
    rows, _ = shown(both[-1], "comparison")
    verdicts = {method: {row["verdict"] for row in rows if row["method"] == method} for method in METHODS}
    assert verdicts["Grad-CAM"] == {"undecided"}, "Of the same classifier: there is no difference."
    assert verdicts["Explainer"] and verdicts["Explainer"] <= {"undecided", "better", "worse"}


def test_images_that_differ_most_lead_to_maps_of_both_runs(both):
    *folders, page = both
    rows, links = shown(page, "most_different")
    names = {row["image"] for row in rows}
    results = open_results(folders)
    wanted = differing(results, ADDED)
    assert len(wanted) == ADDED and {*wanted} <= links < names
    evenly = {row["image"] for row in read_table(folders[0] / "gallery_per_image.csv")}
    assert len(evenly) == 2 and {*wanted} - evenly
    gallery = read_gallery(results)
    assert {picked.name for picked in gallery} == evenly | {*wanted}
    for picked in gallery:
        methods = {f"{folder.name} · {method}" for folder in folders for method in ("explainer", "grad_cam")}
        assert picked.maps.keys() == {"ground_truth", *methods}
        assert all(maps.keys() == picked.classes.keys() for maps in picked.maps.values())
        assert picked.photograph
    outside = f"{len(names - links)} of these {len(names)} images are not in the gallery of both"
    said = [found["text"] for found in elements(page.read_text(), "p")]
    assert any(outside in text and f"--differing {len(names)} adds them" in text for text in said)


def test_the_gallery_s_numbers_know_nothing_of_images_that_were_added_because_they_differ(both, two_runs, tmp_path):
    without = [*two_runs, "--output", str(tmp_path), "--differing", "0"]
    evaluate.main(without)
    for folder in both[:2]:
        for name in ("gallery.csv", "gallery_per_image.csv"):
            assert (folder / name).read_text() == (tmp_path / folder.name / name).read_text()
        assert {row["images"] for row in read_table(folder / "gallery.csv")} == {2}


def test_each_map_is_computed_once_also_for_an_image_that_is_added_later(computed):
    assert len({image for _, image, _ in computed}) == TEST_IMAGES
    assert {*computed.values()} == {2}  # once for each run


def test_the_same_command_again_computes_nothing_and_makes_the_same_page(both, two_runs, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a map was asked for twice")

    def state():
        files = [file for folder in both[:2] for name in ("maps", "scores") for file in (folder / name).rglob("*.*")]
        return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in files}

    before, page = state(), both[-1].read_text()
    monkeypatch.setattr(maps, "_checked", refuse)
    evaluate.main([*two_runs, "--output", str(both[0].parent)])
    assert state() == before and len(before) > 2
    assert both[-1].read_text() == page


def test_tensorboard_gets_the_added_images_too(both, two_runs, tmp_path, monkeypatch):
    logged = {}

    def log(folder, place):
        logged[place.name] = {row["image"] for row in read_table(folder / "gallery_tiles.csv")}
        return place

    monkeypatch.setattr(evaluate, "log_evaluation", log)
    evaluate.main([*two_runs, "--output", str(both[0].parent), "--tensorboard", str(tmp_path)])
    added = {row["image"] for row in read_table(both[0] / "gallery_tiles.csv")}
    own = {row["image"] for row in read_table(both[0] / "gallery_per_image.csv")}
    assert added > own
    assert logged == {folder.name: added for folder in both[:2]}


@pytest.mark.parametrize(("images", "processes"), [(7, 2), (3, 3), (2, 5)])
def test_processes_share_added_images_and_none_is_left_without_one(images, processes):
    names = [f"image{place}" for place in range(images)]
    data = SimpleNamespace(dataset=lambda split: None, part=lambda split, share: list(share))
    shares = []
    for rank in range(processes):
        split = evaluate.OneSplit(data, "test", names)
        split.trainer = SimpleNamespace(global_rank=rank, world_size=processes)
        shares.append(split.test_dataloader())
    assert all(shares), "A process without images would not wait for the others."
    assert {*sum(shares, [])} == {*names}
    assert len(sum(shares, [])) == max(images, processes)


def test_one_run_or_several_but_not_both(capsys):
    with pytest.raises(SystemExit):
        parse_evaluation(["--run", "a", "--runs", "a", "b"])
    assert "Give either --run RUN (or --runs RUN RUN)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_evaluation(["--runs", "a", "b", "--differing", "-1"])
    assert "--differing must be 0 or more, got -1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_evaluation(["--runs", "a", "./a"])
    assert "--runs names a run twice: a, a" in capsys.readouterr().err


def test_the_page_and_tensorboard_ask_for_their_pictures_and_only_a_trained_method_for_its_masks():
    assert parse_evaluation(["--run", "a", "--report"])[1].tables == ["segmentation", "gallery", "top_classes"]
    assert parse_evaluation(["--run", "a", "--report", "--methods", "rise"])[1].tables == ["segmentation", "gallery"]
    assert parse_evaluation(["--run", "a"])[1].tables == ["segmentation"]
    logged = parse_evaluation(["--run", "a", "--tensorboard", "b"])[1].tables
    assert logged == ["segmentation", "gallery", "top_classes"]
    assert parse_evaluation(["--run", "a", "--report", "--tables", "all"])[1].tables == ["all"]
