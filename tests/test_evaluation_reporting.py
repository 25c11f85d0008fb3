"""Pictures of further images: written beside those that a table has, with what failed on them, and its numbers left."""

import pytest
from test_evaluation_module import BATCH, NAMES, evaluate, first, make_batches, row
from toy_models import SmallNet, freeze

from explainer.evaluation import Job
from explainer.evaluation.reporting import Plan, report, report_pictures
from explainer.evaluation.tables import GalleryOptions, GalleryTable
from explainer.report.tables import read_table, write_csv

EVENLY, ADDED, HARD = ["image0", "image4"], ["image5", "image6"], 6
"""The gallery's own images, those added, and the one among these on which a method fails."""


@pytest.fixture(scope="module")
def explanandum():
    return freeze(SmallNet())


@pytest.fixture(scope="module")
def jobs(explanandum):
    hard = make_batches()[1].image[HARD - BATCH]
    table = GalleryTable(explanandum, GalleryOptions(images=len(EVENLY)))
    methods = [
        row(explanandum, "easy"),
        row(explanandum, "picky", fails=lambda image, target: image.equal(hard)),
    ]
    return [*(Job(table, one) for one in methods), *(Job(table, own_row=name) for name in table.own_rows)]


@pytest.fixture
def folder(explanandum, jobs, tmp_path):
    """Of the gallery's own images, evaluated and reported."""
    table = jobs[0].table
    report(evaluate(explanandum, jobs, tmp_path), Plan({table: jobs}, [], {"split": "test"}), tmp_path)
    return tmp_path


def add(explanandum, jobs, folder):
    batch = make_batches()[1]
    evaluation = evaluate(explanandum, jobs, folder, [batch._replace(**first(batch, BATCH))], further=ADDED)
    report_pictures(evaluation, folder)


def images(folder, method):
    return [tile["image"] for tile in read_table(folder / "gallery_tiles.csv") if tile["method"] == method]


def test_pictures_are_added_and_numbers_left(explanandum, jobs, folder):
    texts = {file: file.read_text() for file in folder.glob("gallery*.*") if "tiles" not in file.stem}
    assert {*images(folder, "easy")} == {*EVENLY}
    add(explanandum, jobs, folder)
    assert sorted({*images(folder, "easy")}) == sorted([*EVENLY, *ADDED])
    assert images(folder, "photograph") == sorted([*EVENLY, *ADDED], key=NAMES.index)
    assert len(texts) > 3 and texts == {file: file.read_text() for file in texts}


def test_a_method_that_fails_on_an_added_image_is_named_beside_what_failed_before(explanandum, jobs, folder, capsys):
    earlier = {"table": "pointing", "method": "easy", "image": "image1", "reason": "too, dark"}
    write_csv([earlier], folder / "failures")
    for _ in range(2):  # what failed is tried again, and told once
        add(explanandum, jobs, folder)
        hard = {"table": "gallery", "method": "picky", "image": f"image{HARD}", "reason": "RuntimeError: too hard"}
        assert read_table(folder / "failures.csv") == [earlier, hard]
        assert hard["image"] not in images(folder, "picky") and hard["image"] in images(folder, "easy")
    assert f"picky failed on image{HARD}" in capsys.readouterr().out


def test_a_table_of_failures_goes_when_none_is_left(explanandum, jobs, folder):
    add(explanandum, jobs, folder)
    assert (folder / "failures.csv").is_file()
    add(explanandum, [job for job in jobs if job.name != "picky"], folder)
    assert not (folder / "failures.csv").exists()
