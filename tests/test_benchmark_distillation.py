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
