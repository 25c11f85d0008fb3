"""`--on_bad_image skip` carries a run through broken files, from training to the table, and says which they are."""

import sys

import numpy as np
import pytest
from PIL import Image
from small_data import options as data_options
from small_runs import arguments, rows, start

import evaluate
import train
from datamodules import build_datamodule
from explainer import entry
from explainer.callbacks import MaskPanels
from explainer.left_out import UnreadableImages, describe
from explainer.report.panels import CAPTION, GAP, TILE
from explainer.report.tables import read_table

COUNTS = {"train": 8, "val": 5, "test": 6}
BROKEN = ("train/1.png", "val/0.png", "test/0.png")


@pytest.fixture
def photographs(tmp_path):
    """Some of the images broken, the first of val among them; of test one without a class and one without a mask."""
    root, random = tmp_path / "photographs", np.random.default_rng(0)
    lines = ["image,split,labels"]
    for split, count in COUNTS.items():
        (root / "masks" / split).mkdir(parents=True)
        (root / split).mkdir()
        for number in range(count):
            name = f"{split}/{number}.png"
            Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(root / name)
            mask = np.zeros((32, 32), np.uint8)
            mask[8:20, 8:20] = 1 + number % 2
            if name != "test/2.png":
                Image.fromarray(mask).save(root / "masks" / name)
            lines.append(f"{name},{split},{'' if name == 'test/1.png' else ('cat', 'dog')[number % 2]}")
    for name in BROKEN:
        (root / name).write_bytes(b"broken")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def skipping(root, output, *more):
    """The smallest run on these photographs."""
    where = ["--dataset", "folder", "--data_root", root, "--on_bad_image", "skip", "--batch_size", 4, "--epochs", 2]
    return arguments(output, *where, *more)


def test_a_run_and_its_table_go_on_without_broken_images(photographs, tmp_path, capsys, monkeypatch):
    run = train.main(skipping(photographs, tmp_path))
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "left out" in line] == [
        "2 unreadable images left out: train/1.png, val/0.png",  # the classifier's training
        "3 unreadable images left out: test/0.png, train/1.png, val/0.png",  # its scores
        "3 unreadable images left out: test/0.png, train/1.png, val/0.png",  # the Explainer's training
    ]
    assert [row["step"] for row in rows(run.path)] == ["2", "4"]
    with Image.open(run.path / "masks.png") as panels:
        assert panels.height == (COUNTS["val"] - 1) * (CAPTION + TILE + GAP)

    output = evaluate.main(["--run", str(run.path), "--methods", "grad_cam", "--accelerator", "cpu"])
    line = "Not in the table: 1 unreadable, 1 without a class, 1 without a mask."
    assert line in capsys.readouterr().out.splitlines()
    assert {row["images"] for row in read_table(output / "segmentation.csv")} == {3}


def test_without_leave_to_skip_a_broken_image_is_one_clean_line(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["train.py", *arguments(tmp_path, "--dataset", "folder", "--data_root", photographs)]
    )
    with pytest.raises(SystemExit) as stop:
        entry.run_command(train.main)
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: Cannot read image {photographs / 'train/1.png'}: it is not an image")
    assert said.count("\n") == 1


def test_two_processes_skip_together_and_tell_of_all_images(photographs, tmp_path):
    two = ("--devices", "2", "--strategy", "ddp", "--finetune.freeze", "false", "--finetune.epochs", "1")
    answer = start("train.py", *skipping(photographs, tmp_path, *two, "--batch_size", "2"))
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert [row["step"] for row in rows(tmp_path / "run")] == ["2", "4"]
    lines = [line for line in answer.stdout.splitlines() if "left out" in line]
    assert lines[-1] == "3 unreadable images left out: test/0.png, train/1.png, val/0.png"
    assert len(lines) == 3, "Only the first process speaks."


def test_without_a_readable_validation_image_there_is_no_panel(photographs):
    for number in range(COUNTS["val"]):
        (photographs / f"val/{number}.png").write_bytes(b"broken")
    datamodule = build_datamodule("folder", data_options(photographs, on_bad_image="skip"))

    class Idle:
        val_dataloaders = datamodule.val_dataloader()

    assert MaskPanels(("cat", "dog"), (0, 0, 0), (1, 1, 1)).draw(Idle(), None) == []


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a.jpg"], "1 unreadable image left out: a.jpg"),
        (["a.jpg", "b.jpg"], "2 unreadable images left out: a.jpg, b.jpg"),
        (
            [f"{n}.jpg" for n in range(12)],
            "12 unreadable images left out: " + "".join(f"{n}.jpg, " for n in range(10)) + "…",
        ),
    ],
)
def test_the_line_names_some_images_and_counts_all(names, line):
    assert describe(names) == line


def test_the_line_comes_again_only_when_there_are_more(capsys):
    class Data:
        names = []

        def unreadable(self):
            return list(self.names)

    class Trainer:
        datamodule, is_global_zero = Data(), True

    callback, said = UnreadableImages(), []
    for names in ([], ["a"], ["a"], ["a", "b"], ["a", "b"]):
        Trainer.datamodule.names = names
        callback.on_validation_end(Trainer(), None)
        said.append(capsys.readouterr().out)
    assert [bool(line) for line in said] == [False, True, False, True, False]
    Trainer.datamodule = None  # a fit on bare loaders
    callback.on_validation_end(Trainer(), None)
