"""One small training run and all that it leaves; what stops one before or while it trains."""

import csv
import errno
import json
import logging
import os
import re
import shutil
import sys
import warnings
from functools import partial
from logging.handlers import BufferingHandler

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import save_image
from small_runs import EPOCHS, STEPS, VALIDATION_IMAGES, arguments, assert_same_weights, rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import train
from explainer import entry, losses, machine
from explainer.attribution import METHODS
from explainer.module import NonFiniteLossError
from explainer.objective import Explain
from explainer.progress import ProgressLines
from explainer.report.tables import read_table
from explainer.run_folder import RunFolder
from explainer.weights import read_metadata

TERMS = tuple(Explain().weights)


@pytest.fixture(scope="module")
def events(small_run):
    """What TensorBoard reads of the Explainer's training."""
    read = EventAccumulator(str(small_run / "tensorboard" / "explainer"), size_guidance={"images": 0})
    read.Reload()
    return read


def test_a_run_folder_holds_all_that_is_promised(small_run):
    found = {path.name for path in small_run.iterdir()}
    files = {"config.yaml", "environment.txt", "metrics.csv", "splits.json", "summary.json", "masks.png"}
    assert found == files | {"explanandum.safetensors", "explainer.safetensors", "checkpoints", "tensorboard"}
    assert sorted(os.listdir(small_run / "checkpoints")) == ["best.ckpt", "last.ckpt"]
    splits = json.loads((small_run / "splits.json").read_text())
    assert [len(splits[name]) for name in ("train", "val")] == [8 * STEPS, VALIDATION_IMAGES]
    environment = (small_run / "environment.txt").read_text()
    for name in ("python: 3", "torch: ", "commit: ", "processor: ", "gpu: "):
        assert name in environment
    panel = np.asarray(Image.open(small_run / "masks.png"))
    assert panel.shape[0] > 8 * 100 and panel.std() > 10


def test_metrics_csv_has_a_row_an_epoch_and_no_column_twice(small_run):
    with (small_run / "metrics.csv").open(newline="") as opened:
        header, *lines = list(csv.reader(opened))
    assert len(lines) == EPOCHS and all(len(line) == len(header) for line in lines)
    assert len(set(header)) == len(header)
    assert not [name for name in header if name.endswith(("_step", "_epoch"))]
    wanted = {"epoch", "step", "lr", "images/s", "train_loss", "val_loss", "f_score/val_masked", "f_score/val_unmasked"}
    wanted |= {f"{stage}/{term}" for stage in ("train", "val") for term in TERMS}
    assert wanted <= set(header)
    read = rows(small_run)
    assert [(row["epoch"], row["step"]) for row in read] == [(str(e), str(STEPS * (e + 1))) for e in range(EPOCHS)]
    for row in read:
        for stage in ("train", "val"):
            parts = sum(float(row[f"{stage}/{term}_weighted"]) for term in TERMS)
            assert parts == pytest.approx(float(row[f"{stage}_loss"]), abs=1e-4)


def test_the_exported_explainer_is_that_of_the_best_epoch(small_run):
    losses = [float(row["val_loss"]) for row in rows(small_run)]
    best = torch.load(small_run / "checkpoints" / "best.ckpt")
    assert best["epoch"] == int(np.argmin(losses))
    exported = RunFolder(small_run).load_explainer().state_dict()
    assert all(value.equal(best["state_dict"]["network." + name]) for name, value in exported.items())
    summary = json.loads((small_run / "summary.json").read_text())
    assert summary["best_val_loss"] == pytest.approx(min(losses), abs=1e-4)
    assert (summary["epochs"], summary["steps"], summary["stopped_early"]) == (EPOCHS, EPOCHS * STEPS, False)


def test_the_saved_config_alone_repeats_the_run_to_the_bit(small_run, tmp_path):
    torch.manual_seed(7)  # whatever went on in the process before
    again = train.main(["--config", str(small_run / "config.yaml"), "--output", str(tmp_path)])
    for file in ("explanandum.safetensors", "explainer.safetensors"):
        assert_same_weights(again.path / file, small_run / file)
    assert rows(again.path) == rows(small_run)


def test_one_class_an_image_makes_a_single_label_classifier_and_trains_an_explainer_of_it(tmp_path):
    for split, count in (("train", 12), ("val", 2)):
        for number, wnid in enumerate(("n01440764", "n02012849")):
            for index in range(count):
                save_image(tmp_path / "data" / split / wnid / f"{index}.JPEG", (200 * number, 20 * index, 50))
    (tmp_path / "data" / "classes.txt").write_text("n01440764 tench\nn02012849 crane\n")
    options = ("--dataset", "imagenet", "--data_root", tmp_path / "data", "--epochs", 1, "--finetune.epochs", 1)
    run = train.main(arguments(tmp_path, *options))
    assert run.load_explanandum().card.output == "single_label"
    scores = json.loads(read_metadata(run.explanandum)["metrics"])
    assert scores.keys() == {
        f"{s}/{n}" for s in ("val", "test") for n in ("accuracy", "f_score", "precision", "recall")
    }
    assert all(0 <= float(rows(run.path)[0][f"f_score/{name}"]) <= 1 for name in ("val_masked", "val_unmasked"))


def test_several_classes_an_image_make_a_multi_label_classifier(small_run):
    assert RunFolder(small_run).load_explanandum().card.output == "multi_label"


def test_a_taken_name_gets_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train_explainer", lambda *_: None)
    first = train.main(arguments(tmp_path, "--stage", "explanandum"))
    second = train.main(["--config", str(first.config)])
    assert (first.path.name, second.path.name) == ("run", "run-2")


def test_tensorboard_has_every_promised_scalar(events):
    epochs = {
        "train_loss",
        "val_loss",
        "images/s",
        "f_score/train_masked",
        "f_score/val_masked",
        "f_score/val_unmasked",
    }
    epochs |= {
        f"{stage}/{term}{suffix}" for stage in ("train", "val") for term in TERMS for suffix in ("", "_weighted")
    }
    scalars = set(events.Tags()["scalars"])
    assert epochs | {"loss", "lr-Adam", "hp/best_val_loss"} <= scalars
    for name in epochs:
        assert [event.step for event in events.Scalars(name)] == [STEPS * (e + 1) - 1 for e in range(EPOCHS)], name
        assert all(np.isfinite(event.value) for event in events.Scalars(name))
    assert events.Scalars("lr-Adam")[0].value == pytest.approx(1e-3)
    assert all(0 < event.value < 1 for event in events.Scalars("val/area_target"))


def test_tensorboard_has_the_same_eight_images_each_epoch(events):
    names = events.Tags()["images"]
    assert len(names) == 8
    for name in names:
        assert [image.step for image in events.Images(name)] == list(range(EPOCHS))


def test_tensorboard_has_the_config_and_hparams_with_the_best_loss(events, small_run):
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "explanandum: timm:test_resnet" in text
    best = min(float(row["val_loss"]) for row in rows(small_run))
    assert events.Scalars("hp/best_val_loss")[-1].value == pytest.approx(best, abs=1e-4)
    assert "_hparams_/session_start_info" in events.summary_metadata
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"loss.tv" in content and b"encoder" in content


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    original = losses.bound_loss
    calls = []

    def breaks_later(*values):
        calls.append(1)
        return original(*values) * (float("nan") if len(calls) > STEPS + 4 else 1)  # in the second epoch

    monkeypatch.setattr(losses, "bound_loss", breaks_later)
    with pytest.raises(NonFiniteLossError, match=r"train loss at epoch 1, step \d: bound = nan\."):
        train.main(arguments(tmp_path))
    run = RunFolder(tmp_path / "run")
    assert torch.load(run.last)["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in run.load_explainer().state_dict().values())
    assert len(rows(run.path)) == 1
    monkeypatch.undo()
    train.main(["--resume", str(run.path), "--epochs", "2"])
    assert len(rows(run.path)) == 2


def test_an_output_that_is_no_folder_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="Cannot write to .*file/runs.* pass another --output"):
        train.main(arguments(tmp_path / "file" / "runs"))


def test_a_full_disk_is_an_error_before_training(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 << 20))
    with pytest.raises(OSError, match="2 MiB free, the run needs about .* pass another --output") as full:
        train.main(arguments(tmp_path))
    assert full.value.errno == errno.ENOSPC
    assert not (tmp_path / "explananda").exists()


def test_an_unknown_encoder_is_an_error_before_the_classifier_is_trained(tmp_path):
    with pytest.raises(ValueError, match="Unknown encoder 'resnet51'; choose"):
        train.main(arguments(tmp_path, "--encoder", "resnet51"))
    assert not (tmp_path / "explananda").exists()


@pytest.mark.parametrize("option", [("--accelerator", "gpus"), ("--strategy", "dpp"), ("--precision", "31")])
def test_a_machine_that_is_not_there_is_an_error_that_names_the_options(option):
    with pytest.raises(ValueError, match=f"{option[0]} {option[1]}.* does not work here"):
        machine.make_trainer(machine.MachineOptions(**{option[0][2:]: option[1]}))


class TestErrorsOnACommandLine:
    """One clean line, exit status 1; a fault of the program keeps its traceback."""

    def test_a_mistake_of_the_user_is_one_line(self, small_run, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--run", str(small_run), "--methods", "gradcam"])
        with pytest.raises(SystemExit) as stop:
            entry.run_command(evaluate.main)
        assert stop.value.code == 1
        assert capsys.readouterr().err == f"error: Unknown method 'gradcam'; choose one of: {', '.join(METHODS)}.\n"

    def test_a_disk_error_has_no_number(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "file").touch()
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments(tmp_path / "file")])
        with pytest.raises(SystemExit) as stop:
            entry.run_command(train.main)
        assert stop.value.code == 1
        assert re.fullmatch(r"error: Cannot write to .*; pass another --output\n", capsys.readouterr().err)

    def test_a_traceback_can_be_asked_for(self, small_run, monkeypatch):
        monkeypatch.setenv("EXPLAINER_TRACEBACK", "1")
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--run", str(small_run), "--methods", "gradcam"])
        with pytest.raises(ValueError, match="gradcam"):
            entry.run_command(evaluate.main)

    def test_a_fault_of_the_program_is_not_hidden(self):
        with pytest.raises(ValueError, match="Expecting value"):  # raised within a library, not by our own check
            entry.run_command(lambda: json.loads("zip"))


class TestConsole:
    """Nothing moves in a log file, and nothing is said that is not for users."""

    def test_a_log_file_gets_lines(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(train, "progress", partial(ProgressLines, seconds=0, epoch_seconds=0))
        train.main(arguments(tmp_path, "--epochs", 1, "--finetune.epochs", 1, "--distill.teachers", "grad_cam"))
        said = capsys.readouterr().out
        assert "\r" not in said
        line = r"epoch 1 of 1, step 2 of 4, \d+:\d\d left, loss [\d.]+, images/s [\d.]+"
        assert re.search(line, said)
        assert re.search(r"epoch 1 of 1, done, .*val_loss", said)
        assert re.search(r"teacher maps, step 3 of 4, \d+:\d\d left", said)

    def test_by_default_lines_come_every_half_minute(self, monkeypatch):
        clock = [100.0]
        monkeypatch.setattr("explainer.progress.time.monotonic", lambda: clock[0])
        lines = ProgressLines()
        assert not lines._is_due(lines.seconds)
        clock[0] += 30
        assert lines._is_due(lines.seconds)

    def test_only_known_messages_are_silenced(self, monkeypatch):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            machine.silence()
            warnings.warn("Found 3 module(s) in eval mode at the start of training. This …", stacklevel=1)
            warnings.warn("The loss is odd", stacklevel=1)
        assert [str(warning.message) for warning in seen] == ["The loss is odd"]
        log = logging.getLogger("pytorch_lightning.utilities.rank_zero")
        said = BufferingHandler(capacity=10)
        monkeypatch.setattr(log, "handlers", [said])
        monkeypatch.setattr(log, "level", logging.INFO)
        log.info("GPU available: False, used: False")
        log.info("`Trainer.fit` stopped")
        assert [record.getMessage() for record in said.buffer] == ["`Trainer.fit` stopped"]


def test_segmentation_in_training_is_that_of_the_table(small_run, tmp_path):
    best = min(rows(small_run), key=lambda row: float(row["val_loss"]))
    options = ("--run", small_run, "--split", "val", "--methods", "explainer", "--tables", "segmentation")
    evaluate.main([*map(str, options), "--output", str(tmp_path), "--accelerator", "cpu"])
    (row,) = [row for row in read_table(tmp_path / "segmentation.csv") if row["method"] == "explainer"]
    assert float(best["segmentation/acc"]) == pytest.approx(row["acc"], rel=1e-3)
    assert float(best["segmentation/iou"]) == pytest.approx(row["iou"], rel=1e-3)
