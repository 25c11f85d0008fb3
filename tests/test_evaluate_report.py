"""evaluate.py --report and --runs: a page beside the tables, and one page of several runs."""

import json
import shutil

import pytest
from toy_pages import elements

import evaluate
from explainer.report.page_data import open_results
from explainer.report.page_gallery import read_gallery
from explainer.report.tables import read_table
from programs.evaluate_options import parse_evaluation

QUICK = ("--accelerator", "cpu", "--limit", "3", "--gallery.images", "2", "--top_classes.images", "2")


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


def test_several_runs_make_one_page_that_compares_them(small_run, output, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(small_run, other)
    page = evaluate.main(
        [
            *("--runs", str(small_run), str(other)),
            *("--output", str(tmp_path / "both")),
            *("--methods", "grad_cam"),
            *QUICK,
        ]
    )
    assert page == tmp_path / "both" / "report"
    html = (page / "index.html").read_text()
    tables = {found["attributes"]["data-stem"]: found for found in elements(html, "table")}
    verdicts = {cell["text"] for cell in tables["comparison"]["inside"] if cell["tag"] == "td"}
    assert "undecided" in verdicts  # the same run twice
    assert not {"better", "worse"} & verdicts
    runs = {small_run.name, "other"}
    assert {folder.name for folder in (tmp_path / "both").iterdir()} == {*runs, "report"}


def test_one_run_or_several_but_not_both(capsys):
    with pytest.raises(SystemExit):
        parse_evaluation(["--run", "a", "--runs", "a", "b"])
    assert "Give either --run RUN (or --runs RUN RUN)" in capsys.readouterr().err


def test_the_page_and_tensorboard_ask_for_their_pictures_and_only_a_trained_method_for_its_masks():
    assert parse_evaluation(["--run", "a", "--report"])[1].tables == ["segmentation", "gallery", "top_classes"]
    assert parse_evaluation(["--run", "a", "--report", "--methods", "rise"])[1].tables == ["segmentation", "gallery"]
    assert parse_evaluation(["--run", "a"])[1].tables == ["segmentation"]
    logged = parse_evaluation(["--run", "a", "--tensorboard", "b"])[1].tables
    assert logged == ["segmentation", "gallery", "top_classes"]
    assert parse_evaluation(["--run", "a", "--report", "--tables", "all"])[1].tables == ["all"]
