"""Two processes on a CPU (gloo) do what one does."""

import json
import subprocess
import sys

import pytest
from small_runs import (
    EPOCHS,
    ROOT,
    STEPS,
    TEST_IMAGES,
    VALIDATION_IMAGES,
    arguments,
    assert_same_rows,
    other_explainer,
    rows,
    start,
)  # fmt: skip
from validate_run import validate

import evaluate
from explainer.report.tables import read_table

TWO = ("--accelerator", "cpu", "--devices", "2", "--strategy", "ddp")


def test_two_processes_train_into_one_run_folder(tmp_path):
    answer = start("train.py", *arguments(tmp_path, *TWO, "--finetune.freeze", "false"))
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explananda", "run"]
    run = tmp_path / "run"
    found = {path.name for path in run.iterdir()}
    assert found >= {"explainer.safetensors", "explanandum.safetensors", "masks.png", "summary.json"}
    assert [int(row["step"]) for row in rows(run)] == [STEPS // 2 * (epoch + 1) for epoch in range(EPOCHS)]
    assert answer.stdout.count("Explanandum timm:test_resnet:") == 1, "Only the first process speaks."


def test_two_processes_get_the_validation_metrics_of_one(small_run, tmp_path):
    assert VALIDATION_IMAGES % 2, "An even number would not show a padded duplicate."
    answer = start("tests/validate_run.py", small_run, "2", tmp_path / "metrics.json")
    assert answer.returncode == 0, answer.stderr[-3000:]
    of_two = json.loads((tmp_path / "metrics.json").read_text())
    of_one, _ = validate(small_run, 1)
    assert {"val_loss", "f_score/val_masked", "f_score/val_unmasked", "val/area_target", "val/tv"} <= of_one.keys()
    assert of_two == pytest.approx(of_one, rel=1e-4)


TABLES = ("segmentation", "masking", "insertion_deletion", "pointing", "recognition", "sanity")


def test_two_processes_make_the_tables_of_one(small_run, tmp_path):
    assert TEST_IMAGES % 2, "An even number would not show a padded duplicate."
    of_two, of_one = tmp_path / "two", tmp_path / "one"
    options = ("--run", small_run, "--tables", *TABLES, "--insertion_deletion.step", "0.2", "--sanity.images", "3")
    answer = start("evaluate.py", *options, "--output", of_two, *TWO)
    assert answer.returncode == 0, answer.stderr[-3000:]
    evaluate.main([*map(str, options), "--output", str(of_one), "--accelerator", "cpu"])
    assert {file.name for file in (of_two / "scores").iterdir()} == {"rank0.jsonl", "rank1.jsonl"}
    for name in TABLES:
        rows = read_table(of_two / f"{name}.csv")
        assert_same_rows(rows, read_table(of_one / f"{name}.csv"), rel=1e-4)
        if name != "masking":
            assert {row["images"] for row in rows} == {3 if name == "sanity" else TEST_IMAGES}
        assert (of_two / f"{name}_per_image.csv").read_text().count("\n") == (
            of_one / f"{name}_per_image.csv"
        ).read_text().count("\n")


def test_two_processes_add_images_that_differ_most_even_fewer_than_there_are_processes(small_run, tmp_path):
    other = other_explainer(small_run, tmp_path / "other")
    lacking = 1
    few = ("--gallery.images", str(TEST_IMAGES - lacking), "--methods", "explainer")
    answer = start("evaluate.py", "--runs", small_run, other, *few, "--output", tmp_path / "both", *TWO)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert answer.stdout.count(f"{lacking} image(s) in which the runs differ most") == 1, (
        "Only the first process speaks."
    )
    for folder in (tmp_path / "both" / small_run.name, tmp_path / "both" / "other"):
        tiles = read_table(folder / "gallery_tiles.csv")
        assert len({row["image"] for row in tiles if row["method"] == "explainer"}) == TEST_IMAGES
        places = [(row["method"], row["image"], row["class"]) for row in tiles]
        assert len(places) == len({*places}), "An image that both took stands there once."


def test_torchrun_shares_one_folder_too(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = arguments(tmp_path, *TWO, "--finetune.freeze", "false", "--epochs", "1")
    answer = subprocess.run([*launch, str(ROOT / "train.py"), *options], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explananda", "run"]
    assert (tmp_path / "run" / "summary.json").is_file()
