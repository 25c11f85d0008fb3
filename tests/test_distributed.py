"""Two processes on a CPU (gloo) do what one does."""

import json
import subprocess
import sys

import pytest
from small_runs import EPOCHS, ROOT, STEPS, TEST_IMAGES, VALIDATION_IMAGES, arguments, rows, start
from validate_run import validate

import evaluate

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


def test_two_processes_make_the_table_of_one(small_run, tmp_path):
    assert TEST_IMAGES % 2, "An even number would not show a padded duplicate."
    of_two, of_one = tmp_path / "two", tmp_path / "one"
    answer = start("evaluate.py", "--run", small_run, "--output", of_two, *TWO)
    assert answer.returncode == 0, answer.stderr[-3000:]
    evaluate.main(["--run", str(small_run), "--output", str(of_one), "--accelerator", "cpu"])
    tables = [json.loads((folder / "segmentation.json").read_text()) for folder in (of_two, of_one)]
    for row, expected in zip(*tables, strict=True):
        assert row.pop("method") == expected.pop("method")
        assert row == pytest.approx(expected, rel=1e-6)
        assert row["images"] == TEST_IMAGES


def test_torchrun_shares_one_folder_too(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = arguments(tmp_path, *TWO, "--finetune.freeze", "false", "--epochs", "1")
    answer = subprocess.run([*launch, str(ROOT / "train.py"), *options], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explananda", "run"]
    assert (tmp_path / "run" / "summary.json").is_file()
