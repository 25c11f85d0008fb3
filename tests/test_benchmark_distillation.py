"""benchmarks/distillation.py compares what it says, and reads the steps off rightly."""

import importlib
import sys
from pathlib import Path

import pytest
from small_runs import TINY

import train
from explainer.run_folder import RunFolder

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def program():
    """The module as Python runs it: its own folder is the first to be looked in."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("distillation")
    sys.path.remove(str(FOLDER))


def test_there_is_a_run_without_teachers_one_for_each_one_for_all_and_their_imitations(program):
    variants = program.variants(["group_cam", "pami"], ["--distill.decay", "0.5"])
    assert list(variants) == [
        "no teacher", "group_cam", "pami", "group_cam + pami",
        "imitation of group_cam", "imitation of pami", "imitation of group_cam + pami",
    ]  # fmt: skip
    assert variants["no teacher"] == []
    assert variants["imitation of pami"] == [
        *("--distill.teachers", "pami", "--distill.decay", "0.5", "--objective", "distill")
    ]
    assert list(program.variants(["pami"], [])) == ["no teacher", "pami", "imitation of pami"]
    only = program.variants(["group_cam", "pami"], [], "all")
    assert list(only) == ["no teacher", "group_cam", "pami", "group_cam + pami", "imitation of group_cam + pami"]


def test_the_first_step_that_is_good_enough_counts(program, tmp_path):
    run = RunFolder(tmp_path)
    run.metrics.write_text("epoch,step,segmentation/iou\n0,10,20.5\n1,20,41\n2,30,39\n3,40,60\n")
    assert program.steps_to(run, [20, 40, 50, 70]) == {
        "steps to 20": "10",
        "steps to 40": "20",
        "steps to 50": "40",
        "steps to 70": "",
    }


def test_a_run_that_is_there_is_not_trained_again(program, tmp_path, monkeypatch):
    first = program.trained(RunFolder(tmp_path / "one"), [*TINY, "--epochs", "1"])
    monkeypatch.setattr(train, "train_explainer", None)
    assert program.trained(RunFolder(tmp_path / "one"), [*TINY, "--epochs", "1"]).path == first.path


def test_means_and_spreads_are_over_the_seeds_of_a_row(program):
    rows = [{"seed": seed, "row": "pami", "iou": iou} for seed, iou in enumerate((40, 42, 44))]
    table = program.summary(
        [*rows, {"seed": 0, "row": "teacher pami", "iou": "38.5", "seconds": 0.25, "forward": None}]
    )
    assert table.splitlines()[0] == "|  | iou | seconds | forward | seeds |"
    assert table.splitlines()[2:] == ["| pami | 42 ± 2 |  |  | 3 |", "| teacher pami | 38.5 | 0.25 |  | 1 |"]


def test_a_run_is_looked_at_in_between_and_that_only_once(program, tmp_path, monkeypatch):
    row = program.ious_after(RunFolder(tmp_path / "run"), TINY, [1, 2], ["--limit", "3"])
    assert list(row) == ["iou after 1 epochs", "iou after 2 epochs"]
    assert all(0 <= float(iou) <= 100 for iou in row.values())
    assert len(RunFolder(tmp_path / "run").metrics.read_text().splitlines()) == 1 + 2
    longer = program.trained(RunFolder(tmp_path / "run"), [*TINY, "--epochs", "3"])
    assert len(longer.metrics.read_text().splitlines()) == 1 + 3, "the recipe's own end"
    with pytest.raises(ValueError, match="keeps its"):
        program.trained(RunFolder(tmp_path / "run"), [*TINY, "--lr", "0.5"])
    monkeypatch.setattr(train, "main", None)
    assert program.ious_after(RunFolder(tmp_path / "run"), TINY, [1, 2], ["--limit", "3"]) == row
