"""evaluate.py on a finished run: the table, the sanity rows, and what it refuses."""

import csv
import json
import shutil

import pytest
from small_data import save_image
from small_runs import TEST_IMAGES, start

import evaluate
from explainer.attribution import METHODS
from explainer.run_folder import RunFolder


def table(run, output, *more):
    """The rows of segmentation.csv."""
    arguments = ["--run", run, "--output", output, "--accelerator", "cpu", *more]
    folder = evaluate.main([str(argument) for argument in arguments])
    with (folder / "segmentation.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def rows(small_run, tmp_path_factory):
    """The default table."""
    return table(small_run, tmp_path_factory.mktemp("default"), "--methods", "explainer", "grad_cam")


def test_the_table_has_the_columns_and_rows_of_the_paper(rows):
    assert list(rows[0]) == ["method", "acc", "iou", "sal", "mae", "images"]
    assert [row["method"] for row in rows] == ["explainer", "grad_cam", "zero", "half", "one", "ground_truth"]
    assert {row["images"] for row in rows} == {str(TEST_IMAGES)}


def test_the_sanity_rows_are_what_they_must_be(rows):
    zero, half, one, truth = ({key: float(row[key]) for key in ("acc", "iou", "mae")} for row in rows[2:])
    assert truth == {"acc": 100, "iou": 100, "mae": 0}
    assert half["acc"] == half["mae"] == 50
    assert zero["iou"] == 0
    # The objects' mean share of the image, seen from four sides.
    assert zero["mae"] == one["acc"] == one["iou"] == pytest.approx(100 - zero["acc"], abs=1e-3)
    assert zero["acc"] == one["mae"]


def test_the_same_numbers_as_csv_json_and_markdown(small_run, tmp_path):
    rows = table(small_run, tmp_path, "--methods", "grad_cam")
    exact = json.loads((tmp_path / "segmentation.json").read_text())
    for row, values in zip(rows, exact, strict=True):
        assert row == {
            name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in values.items()
        }
    lines = (tmp_path / "segmentation.md").read_text().splitlines()
    assert lines[0] == "| method | acc | iou | sal | mae | images |"
    assert len(lines) == 2 + len(rows)


def test_the_batch_size_does_not_change_the_table(small_run, tmp_path):
    one, four = tmp_path / "one", tmp_path / "four"
    for folder, size in ((one, 1), (four, 4)):
        table(small_run, folder, "--batch_size", size)
    tables = [json.loads((folder / "segmentation.json").read_text()) for folder in (one, four)]
    for row, other in zip(*tables, strict=True):
        assert row.pop("method") == other.pop("method")
        assert row == pytest.approx(other, rel=1e-5)


def test_the_tables_go_into_the_run_folder_unless_told_otherwise(small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    assert evaluate.main(["--run", str(run), "--limit", "3", "--accelerator", "cpu"]) == run / "evaluation"
    assert json.loads((run / "evaluation" / "segmentation.json").read_text())[0]["images"] == 3


def test_an_unknown_method_is_an_error_that_lists_the_known_ones(small_run, tmp_path):
    with pytest.raises(ValueError, match="Unknown method 'gradcam'; choose one of: explainer, grad_cam"):
        table(small_run, tmp_path, "--methods", "gradcam")


def test_an_unknown_table_is_an_error_that_lists_the_known_ones(small_run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        table(small_run, tmp_path, "--tables", "segmentations")
    assert "segmentation" in capsys.readouterr().err.split("choose from")[1]


def own_images(run, folder, classes):
    """A copy of the run that reads a folder of images without masks, all its classes named."""
    copy = folder / "run"
    shutil.copytree(run, copy)
    data = folder / "images"
    save_image(data / "a.png")
    (data / "classes.txt").write_text("\n".join(classes))
    (data / "labels.csv").write_text(f"image,split,labels\na.png,test,{classes[0]}\n")
    config = copy / "config.yaml"
    text = config.read_text().replace("dataset: shapes", "dataset: folder")
    config.write_text(text.replace("data_root: data", f"data_root: {data}"))
    return copy


def test_a_data_set_of_another_class_count_is_an_error(small_run, tmp_path):
    with pytest.raises(ValueError, match=r"explanandum has \d+ classes, .* has 2, or other names"):
        table(own_images(small_run, tmp_path, ["cat", "dog"]), tmp_path / "out")


def test_a_split_without_masks_is_an_error(small_run, tmp_path):
    classes = RunFolder(small_run).load_explanandum().card.classes
    with pytest.raises(ValueError, match="no segmentation masks"):
        table(own_images(small_run, tmp_path, classes), tmp_path / "out")


def test_what_is_no_run_folder_is_one_clean_line_on_a_command_line(tmp_path):
    answer = start("evaluate.py", "--run", tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.strip() == f"error: {tmp_path} is not the folder of a run: it has no config.yaml."
    assert not list(tmp_path.iterdir())


def test_the_list_of_methods_needs_no_run(capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--list_methods"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in METHODS:
        assert f"\n{name}\n" in f"\n{text}"
    assert "masks=4000" in text


def test_any_method_makes_a_row_with_its_options(small_run, tmp_path):
    texts = ["pami:second_run=false", "rise:masks=9,seed=3", "group_cam:groups=2", "aop:optimiser=mask:iterations=2"]
    found = table(small_run, tmp_path, "--methods", *texts, "random", "center", "--limit", 2)
    assert [row["method"] for row in found][: len(texts) + 2] == [*texts, "random", "center"]
    scores = [tuple(row.values())[1:] for row in found]
    assert len(set(scores)) == len(scores)  # each is another map


def test_bf16_makes_nearly_the_same_table(small_run, tmp_path, rows):
    found = table(small_run, tmp_path, "--methods", "explainer", "grad_cam", "--precision", "bf16-mixed")
    for row, exact in zip(found, rows, strict=True):
        assert float(row["mae"]) == pytest.approx(float(exact["mae"]), abs=3)
    assert found[:2] != rows[:2]
