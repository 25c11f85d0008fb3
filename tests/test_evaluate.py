"""evaluate.py on a finished run: its tables, going on after a kill, and what it refuses."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from small_data import save_image
from small_runs import ROOT, TEST_IMAGES, assert_same_rows, start

import evaluate
from explainer.attribution import METHODS
from explainer.report.tables import latex, markdown, read_table
from explainer.run_folder import RunFolder


def table(run, output, *more, name="segmentation"):
    """The rows of a table's CSV file."""
    arguments = ["--run", run, "--output", output, "--accelerator", "cpu", *more]
    return read_table(evaluate.main([str(argument) for argument in arguments]) / f"{name}.csv")


@pytest.fixture(scope="module")
def rows(small_run, tmp_path_factory):
    """The default table."""
    return table(small_run, tmp_path_factory.mktemp("default"), "--methods", "explainer", "grad_cam")


def test_the_table_has_the_columns_and_rows_of_the_paper_with_intervals(rows):
    measures = [f"{name}{end}" for name in ("acc", "iou", "sal", "mae") for end in ("", "_low", "_high")]
    assert list(rows[0]) == ["method", *measures, "images", "failed"]
    assert [row["method"] for row in rows] == ["explainer", "grad_cam", "zero", "half", "one", "ground_truth"]
    assert {row["images"] for row in rows} == {TEST_IMAGES}
    assert {row["failed"] for row in rows} == {0}
    for row in rows:
        for name in ("acc", "iou", "sal", "mae"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_the_sanity_rows_are_what_they_must_be(rows):
    zero, half, one, truth = ({key: row[key] for key in ("acc", "iou", "mae")} for row in rows[2:])
    assert truth == {"acc": 100, "iou": 100, "mae": 0}
    assert half["acc"] == half["mae"] == 50
    assert zero["iou"] == 0
    # The objects' mean share of the image, seen from four sides.
    assert zero["mae"] == one["acc"] == one["iou"] == pytest.approx(100 - zero["acc"], abs=1e-3)
    assert zero["acc"] == one["mae"]


def test_the_same_numbers_as_csv_markdown_and_latex(small_run, tmp_path):
    rows = table(small_run, tmp_path, "--methods", "grad_cam")
    assert (tmp_path / "segmentation.md").read_text() == markdown(rows)
    assert (tmp_path / "segmentation.tex").read_text() == latex(rows)


def test_the_batch_size_does_not_change_the_table(small_run, tmp_path):
    one = table(small_run, tmp_path / "one", "--batch_size", 1)
    four = table(small_run, tmp_path / "four", "--batch_size", 4)
    assert_same_rows(one, four, rel=1e-4)


def test_the_tables_go_into_the_run_folder_unless_told_otherwise(small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    assert evaluate.main(["--run", str(run), "--limit", "3", "--accelerator", "cpu"]) == run / "evaluation"
    assert read_table(run / "evaluation" / "segmentation.csv")[0]["images"] == 3


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
    with pytest.raises(ValueError, match="'segmentation' can't be made: no image of the split has a segmentation mask"):
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
        assert row["mae"] == pytest.approx(exact["mae"], abs=3)
    assert found[:2] != rows[:2]


QUICK = ("--insertion_deletion.step", "0.2", "--sanity.images", "2", "--timing.images", "2")


@pytest.fixture(scope="module")
def everything(small_run, tmp_path_factory):
    """The folder and console output of `--tables all`."""
    output = tmp_path_factory.mktemp("everything")
    answer = start(
        "evaluate.py", "--run", small_run, "--methods", "explainer", "grad_cam", "--tables", "all", *QUICK,
        "--ablate", "group_cam:groups=1,2", "--accelerator", "cpu", "--output", output,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    return output, answer.stdout


def test_all_makes_every_table_that_the_data_set_allows(everything):
    output, said = everything
    tables = ["segmentation", "masking", "insertion_deletion", "pointing", "recognition", "timing", "sanity"]
    pictures = ["examples", "top_classes", "curve_examples", "sanity_examples"]
    for name in [*tables, *pictures, "ablation"]:
        assert {file.suffix for file in output.glob(f"{name}.*")} >= {".csv", ".md", ".tex"}, name
    for name in tables:
        rows = read_table(output / f"{name}_per_image.csv")
        assert {"method", "image"} <= rows[0].keys()
    assert "Skipped: The table 'shortcut' can't be made: no shortcut is planted in the split." in said
    for name in ("segmentation", "insertion_deletion", "pointing", "masking", "recognition"):
        assert read_table(output / f"{name}_differences.csv")[0].keys() >= {"method", "other", "measure", "difference"}
    for name in ("insertion_deletion_curves", "masking", "sanity", "ablation"):
        assert (output / f"{name}.png").stat().st_size > 5000


def test_the_explainer_is_not_in_the_sanity_table_and_the_pointing_table_has_its_controls(everything):
    output, said = everything
    assert {row["method"] for row in read_table(output / "sanity.csv")} == {"grad_cam"}
    assert "Skipped: explainer in the table 'sanity'" in said
    assert "Skipped: grad_cam in the table 'top_classes'" in said
    assert {row["method"] for row in read_table(output / "top_classes.csv")} == {"explainer"}
    assert [row["method"] for row in read_table(output / "pointing.csv")] == [
        "explainer",
        "grad_cam",
        "random",
        "center",
    ]


def test_the_ablation_has_a_row_for_each_value(everything):
    output, _ = everything
    rows = read_table(output / "ablation.csv")
    assert [(row["method"], row["option"], row["value"]) for row in rows] == [
        ("group_cam", "groups", 1), ("group_cam", "groups", 2),
    ]  # fmt: skip
    assert rows[0]["insertion"] != rows[1]["insertion"]


def test_figures_and_tensorboard_are_made_if_asked_for(small_run, tmp_path):
    tables = ("--tables", "examples", "top_classes", "--examples.images", 2, "--top_classes.images", 2)
    output, logs = tmp_path / "out", tmp_path / "logs"
    table(small_run, output, *tables, "--figures", "--tensorboard", logs, name="examples")
    assert {file.name for file in (output / "figures").iterdir()} == {
        "methods.pdf", "methods.png", "top_classes.pdf", "top_classes.png",
    }  # fmt: skip
    assert len(list((logs / "out").glob("events.out.tfevents.*.evaluation"))) == 1


def test_a_table_without_a_row_for_the_methods_is_an_error_that_says_why(small_run, tmp_path):
    with pytest.raises(ValueError, match="'top_classes' has no row for grad_cam: only masks of a trained"):
        table(small_run, tmp_path, "--methods", "grad_cam", "--tables", "top_classes")


def test_an_ablation_without_an_option_under_test_is_an_error(small_run, tmp_path):
    with pytest.raises(ValueError, match="needs an option under test, e.g. --ablate"):
        table(small_run, tmp_path, "--tables", "ablation")


def test_a_second_evaluation_computes_nothing_again(small_run, tmp_path, monkeypatch):
    first = table(small_run, tmp_path, "--methods", "grad_cam")
    lines = (tmp_path / "scores" / "rank0.jsonl").read_text()

    def never(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(METHODS["grad_cam"], "__call__", never)
    monkeypatch.setattr(METHODS["grad_cam"], "present_class_maps", never)
    assert table(small_run, tmp_path, "--methods", "grad_cam") == first
    assert (tmp_path / "scores" / "rank0.jsonl").read_text() == lines
    # Another table takes the maps that are kept.
    rows = table(small_run, tmp_path, "--methods", "grad_cam", "--tables", "recognition", name="recognition")
    assert rows[0]["failed"] == 0


def test_an_evaluation_that_was_killed_goes_on_where_it_was(small_run, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = ("--batch_size", 2, "--methods", "explainer", "grad_cam")
    expected = table(small_run, whole, *options)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "killed_evaluation.py"), "--run", str(small_run), "--output", str(broken),
         *map(str, options), "--accelerator", "cpu"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )  # fmt: skip
    assert process.wait(timeout=120) == -signal.SIGKILL
    written = (broken / "scores" / "rank0.jsonl").read_text()
    assert 0 < written.count("\n") < (whole / "scores" / "rank0.jsonl").read_text().count("\n")
    assert not written.endswith("\n")  # it was killed within a line
    assert table(small_run, broken, *options) == expected
    again = (broken / "scores" / "rank0.jsonl").read_text()
    assert again.startswith(written)


def test_a_method_that_fails_on_an_image_is_counted_and_named(small_run, tmp_path, monkeypatch, capsys):
    original = METHODS["center"].__call__

    def picky(self, image, target):
        maps = original(self, image, target)
        brightness = image.mean(dim=(1, 2, 3))
        maps[brightness > brightness.median()] = torch.nan
        return maps

    monkeypatch.setattr(METHODS["center"], "__call__", picky)
    rows = table(small_run, tmp_path, "--methods", "center", "grad_cam")
    failed = rows[0]["failed"]
    assert 0 < failed < TEST_IMAGES
    assert rows[0]["images"] == TEST_IMAGES - failed
    assert rows[1]["images"] == TEST_IMAGES
    reasons = read_table(tmp_path / "failures.csv")
    assert len(reasons) == failed
    assert all("NaN" in row["reason"] for row in reasons)
    assert f"{failed} score(s) are missing because a method failed" in capsys.readouterr().out
    difference = read_table(tmp_path / "segmentation_differences.csv")[0]
    assert (difference["method"], difference["other"], difference["images"]) == (
        "center",
        "grad_cam",
        TEST_IMAGES - failed,
    )


def test_a_classifier_without_a_run(small_run, tmp_path):
    options = ("--dataset", "shapes", "--explanandum", "timm:test_resnet", "--limit", "3", "--accelerator", "cpu")
    weights = ("--explanandum_weights", str(small_run / "explanandum.safetensors"))
    output = evaluate.main([*options, *weights, "--methods", "grad_cam", "--output", str(tmp_path / "out")])
    found = read_table(output / "segmentation.csv")
    of_run = table(small_run, tmp_path / "run", "--methods", "grad_cam", "--limit", "3")
    # The file says how the classifier wants its images; the run's own test split is limited to fewer scenes.
    assert found[0].keys() == of_run[0].keys()
    with pytest.raises(ValueError, match="'explainer' is trained; name a run"):
        evaluate.main([*options, *weights, "--methods", "explainer", "--output", str(tmp_path / "out")])


def test_a_run_and_a_classifier_exclude_each_other(small_run, tmp_path, capsys):
    for arguments in (["--run", str(small_run), "--dataset", "voc"], ["--dataset", "voc"], []):
        with pytest.raises((ValueError, SystemExit)):
            evaluate.main([*arguments, "--output", str(tmp_path)])


def test_the_shortcut_table_compares_two_runs(small_run, tmp_path, capsys):
    options = ("--shortcut_class", "star", "--tables", "shortcut", "--methods", "random")
    other = tmp_path / "other"
    shutil.copytree(small_run, other)
    data = ("--split", "train", "--limit", 32)
    rows = table(small_run, tmp_path / "out", *options, *data, "--other_run", other, name="shortcut")
    assert [(row["classifier"], row["method"]) for row in rows] == [
        ("run", "random"), (None, "uniform"), ("other", "random"),
    ]  # fmt: skip
    assert rows[0]["cue"] == rows[2]["cue"]  # the same classifier under another name
    for row in rows:
        assert row["object"] + row["cue"] + row["rest"] == pytest.approx(100, abs=1e-3)
    with pytest.raises(ValueError, match="--other_run is for the table 'shortcut'"):
        table(small_run, tmp_path / "out", "--other_run", other)
