"""TensorBoard shows what the result files hold: read back from its event files."""

import io

import numpy as np
import pytest
import toy_results as toy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from explainer.evaluation.tiles import thumbnail
from explainer.report.evaluation import write_files, write_plots
from explainer.report.gallery import GAP, TILE, to_tile
from explainer.report.tensorboard import log_evaluation

EVERYTHING = {"images": 0, "scalars": 0, "tensors": 0}
"""Keep all events of a run, not a sample."""


def read(folder):
    events = EventAccumulator(str(folder), EVERYTHING)
    events.Reload()
    return events


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The results, and the run in TensorBoard, logged twice."""
    results = tmp_path_factory.mktemp("evaluation")
    toy.write_results(results)
    write_plots(results)
    logs = tmp_path_factory.mktemp("tensorboard")
    run = log_evaluation(results, logs)
    assert log_evaluation(results, logs) == run == logs / results.name
    return results, run


def picture_of(events, tag):
    (event,) = events.Images(tag)
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


def test_tables_are_text(logged):
    results, run = logged
    events = read(run)
    for name in ("ablation", "sanity"):
        (event,) = events.Tensors(f"tables/{name}/text_summary")
        assert make_ndarray(event.tensor_proto)[0].decode() == (results / f"{name}.md").read_text()
    assert "tables/insertion_deletion_curves/text_summary" not in events.Tags()["tensors"]


def test_curves_are_scalars_of_one_run_a_method_and_logging_again_adds_nothing(logged):
    _, run = logged
    for method in toy.METHODS:
        events = read(run / method)
        for name in ("insertion", "deletion"):
            points = events.Scalars(f"curves/{name}")
            assert [point.step for point in points] == [0, 250, 500, 1000]
            assert [point.value for point in points] == pytest.approx(
                [row[name] for row in toy.curves(method)], rel=1e-5
            )
    points = read(run / "grad_cam").Scalars("sanity/cascading/rank_correlation")
    assert [(point.step, point.value) for point in points] == [(1, 0.75), (2, 0.5), (3, 0.25)]


def test_figures_and_strips_are_pictures(logged):
    results, run = logged
    events = read(run)
    for file in results.glob("*.png"):
        with Image.open(file) as expected:
            assert (picture_of(events, f"figures/{file.stem}") == np.asarray(expected.convert("RGB"))).all()
    for name in ("insertion_deletion_curves", "ablation", "top_classes", "curve_strip", "sanity_strip"):
        assert np.ptp(picture_of(events, f"figures/{name}")) > 200


def test_the_gallery_has_each_image_with_all_its_maps(logged):
    _, run = logged
    events = read(run)
    tags = [tag for tag in events.Tags()["images"] if tag.startswith("gallery/")]
    assert tags == ["gallery/0_cat 0.91", "gallery/1_dog 0.42"]
    for tag, image in zip(tags, toy.IMAGES, strict=True):
        shown = picture_of(events, tag)
        left = shown.shape[1] - TILE - GAP
        photograph = to_tile(toy.photograph(image))
        assert (shown[18 : 18 + TILE, left : left + TILE] == photograph).all()


def test_the_gallery_of_the_report_page_is_shown_with_all_classes_of_an_image(tmp_path):
    rows = [row | {"present": 1} for row in toy.examples() if row["method"] != "photograph"]
    more = [row | {"class": "hen", "probability": None} for row in rows if row["image"] == "a"]
    photograph = {"method": "photograph", "image": "a", **dict.fromkeys(("class", "present", "probability"))}
    photograph["tile"] = toy.tile(toy.picture("photograph", "a", channels=3))
    for row in rows:
        row["tile"] = row["tile"] and thumbnail(
            toy.picture(row["method"], row["image"])
        )  # WebP, as the gallery has them
    rows = [{name: row[name] for name in photograph} for row in (photograph, *rows, *more)]
    write_files({"gallery_tiles": rows, "gallery": [{"method": "explainer"}]}, tmp_path)
    events = read(log_evaluation(tmp_path, tmp_path / "logs"))
    tags = [tag for tag in events.Tags()["images"] if tag.startswith("gallery/")]
    assert tags == ["gallery/a", "gallery/b"]  # which has no photograph
    first, second = (picture_of(events, tag) for tag in tags)
    assert first.shape[1] - second.shape[1] == TILE + GAP
    left = first.shape[1] - 2 * (TILE + GAP)
    assert (first[18 : 18 + TILE, left : left + TILE] == to_tile(toy.photograph("a"))).all()


def test_a_training_run_beside_it_stays_as_it_is_and_an_empty_folder_is_an_error(tmp_path):
    results = toy.write_results(tmp_path / "evaluation")
    training = tmp_path / "logs" / "explainer" / "events.out.tfevents.1.training.0"
    training.parent.mkdir(parents=True)
    training.write_bytes(b"of the training")
    within = tmp_path / "logs" / "evaluation" / "events.out.tfevents.1.someone.0"
    within.parent.mkdir()
    within.write_bytes(b"of someone else")
    log_evaluation(results, tmp_path / "logs")
    assert training.read_bytes() == b"of the training" and within.read_bytes() == b"of someone else"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no tables; evaluate with --output"):
        log_evaluation(tmp_path / "empty", tmp_path / "logs")
