"""benchmarks/curves.py times both curves against exactly the classifier's passes that they make."""

import csv
import importlib
import sys
from pathlib import Path

import pytest
from toy_models import SmallNet, freeze

from explainer.passes import recorded, totals

FOLDER = Path(__file__).parents[1] / "benchmarks"
TINY = ["--architectures", "timm:test_resnet", "--size", "64", "--batch", "2", "--rounds", "2", "--seconds", "0"]


@pytest.fixture(scope="module")
def program():
    """The module as Python runs it: its own folder is the first to be looked in."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("curves")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def table(program, tmp_path_factory):
    """The rows of a small run, by step, and the notes beside them."""
    file = tmp_path_factory.mktemp("benchmark") / "curves.csv"
    program.main([*TINY, "--steps", "0.2", "2048", "--output", str(file)])
    with file.open(newline="") as opened:
        return {float(row["step"]): row for row in csv.DictReader(opened)}, file.with_suffix(".txt").read_text()


def test_an_image_costs_a_pass_at_each_point_of_both_curves_and_none_back(table):
    rows, _ = table
    assert {step: float(row["forward_per_image"]) for step, row in rows.items()} == {0.2: 2 * 6, 2048: 2 * 3}
    assert {float(row["backward_per_image"]) for row in rows.values()} == {0}


def test_the_ratio_lies_within_its_rounds(table):
    for row in table[0].values():
        values = {key: float(value) for key, value in row.items() if key.endswith(("image", "ratio"))}
        assert 0 < values["lowest_ratio"] <= values["ratio"] <= values["highest_ratio"]
        assert values["s_per_image"] > 0 < values["bare_s_per_image"]
        assert (row["architecture"], row["precision"]) == ("timm:test_resnet", "fp32")


def test_the_machine_is_described_but_no_library_that_takes_no_part(table):
    notes = {line.split(":")[0] for line in table[1].splitlines()}
    assert {"torch", "gpu", "threads"} <= notes
    assert "torchcam" not in notes


def test_what_is_timed_are_the_curves_and_as_many_passes_in_the_same_batches(program, monkeypatch):
    explanandum, timed = freeze(SmallNet()), {}

    def note(calls, *_):
        for name, call in calls.items():
            with recorded(explanandum.model) as passes:
                call()
            timed[name] = passes
        return dict.fromkeys(calls, [1.0])

    monkeypatch.setattr(program, "alternate", note)
    options = program.parse(["--batch", "5", "--steps", "0.1"])
    program.measure(explanandum, 0.1, options, bf16=False)
    assert timed["curves"] == timed["floor"]
    assert totals(timed["curves"]) == (5 * 2 * 11, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--steps", "1.5"], "give a share of the pixels below 1 or a whole number"),
        (["--baseline", "grey"], "choose one of: blur, zero, black"),
        (["--architectures", "vgg15"], " one of: "),
    ],
)
def test_what_is_wrong_is_an_error_before_anything_is_measured(program, wrong, message, capsys):
    with pytest.raises(SystemExit):
        program.main(wrong)
    assert message in capsys.readouterr().err
