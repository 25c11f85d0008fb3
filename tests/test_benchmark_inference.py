"""benchmarks/inference.py times every form against the encoder; benchmarks/classes.py weighs both ways of masks."""

import csv
import importlib
import sys
from pathlib import Path

import pytest
import torch
from small_runs import skip_if_nothing_can_be_exported

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def programs():
    """The modules as Python runs them: their own folder is the first to be looked in."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("inference"), importlib.import_module("classes")
    sys.path.remove(str(FOLDER))


def read(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_every_form_has_a_row_with_its_ratio_to_the_encoder(programs, tmp_path):
    skip_if_nothing_can_be_exported()
    file, threads = tmp_path / "inference.csv", torch.get_num_threads()
    tiny = ["--encoders", "tu-test_resnet", "--size", "32", "--classes", "3", "--seconds", "0", "--rounds", "2"]
    programs[0].main([*tiny, "--engines", "pytorch", "export", "--batches", "1", "2", "--output", str(file)])
    rows = read(file)
    assert [(row["engine"], row["batch"]) for row in rows] == [
        (engine, batch) for batch in "12" for engine in ("encoder alone", "pytorch", "export")
    ]
    assert {row["times_the_encoder"] for row in rows if row["engine"] == "encoder alone"} == {"1.0"}
    for row in rows:
        assert 0 < float(row["lowest"]) <= float(row["images_per_s"]) <= float(row["highest"])
    assert "onnxruntime: " in file.with_suffix(".txt").read_text()
    assert torch.get_num_threads() == threads


def test_all_forms_give_the_same_masks(programs):
    skip_if_nothing_can_be_exported()
    inference, _ = programs
    options = inference.parse(["--engines", "pytorch", "export", "--size", "32", "--classes", "3"])
    model, card = inference.build("tu-test_resnet", options)
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = {form.engine: form.run(image) for form in inference.forms(model, card, 1, options)}
        for engine in ("pytorch", "export"):
            torch.testing.assert_close(found[engine], model(image), atol=1e-4, rtol=0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the memory is read from Linux's /proc")
def test_the_peak_is_what_a_call_takes_at_most(programs):
    _, classes = programs
    taken = classes.peak(lambda: torch.ones(64 * classes.MIB // 4).sum(), "cpu")
    assert 60 * classes.MIB < taken < 80 * classes.MIB


def test_many_classes_take_less_memory_in_parts(programs):
    _, classes = programs
    tiny = ["--architecture", "timm:test_resnet", "--encoder", "tu-test_resnet", "--size", "96", "--batch", "2"]
    options = classes.parse(tiny)
    module, batch = classes.build(400, options)
    peaks = {}
    for few in (400, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("explainer.network.FEW_CLASSES", few)
            with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
                classes.explain(module, batch)
        peaks[few] = highest(seen)
    assert peaks[0] < peaks[400] / 3


def highest(seen):
    """Bytes in use at most, by the profiler's record of every allocation."""
    now, most = 0, 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most
