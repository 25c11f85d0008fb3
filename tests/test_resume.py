"""A run can be stopped at any moment and goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time

import killed_runs
import pytest
import torch
from small_runs import EPOCHS, ROOT, STEPS, arguments, assert_same_weights, command, rows, start

import evaluate
import train
from explainer.checkpoints import WholeFileCheckpoints, read_checkpoint


def test_a_run_killed_at_ten_moments_ends_with_the_weights_of_an_unbroken_one(small_run, tmp_path):
    # What is promised is the end of an epoch: of an epoch that was cut off, nothing is left, and it is run again.
    answer = start("tests/killed_runs.py", tmp_path, "plain")
    assert "HIT" + json.dumps(list(killed_runs.MOMENTS)) in answer.stdout, answer.stderr[-3000:]
    run = train.main(["--resume", str(tmp_path / "run")])
    for file in ("explanandum.safetensors", "explainer.safetensors"):
        assert_same_weights(run.path / file, small_run / file)
    last, unbroken = (torch.load(path / "checkpoints" / "last.ckpt") for path in (run.path, small_run))
    assert last["global_step"] == unbroken["global_step"] == EPOCHS * STEPS
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(last[part], unbroken[part], rtol=0, atol=0)
    assert rows(run.path) == rows(small_run)
    assert not list(tmp_path.rglob("*.training"))


def test_a_finished_run_says_that_it_is_finished(small_run, capsys):
    before = (small_run / "explainer.safetensors").stat().st_mtime_ns
    train.main(["--resume", str(small_run)])
    assert "is finished; choose more --epochs" in capsys.readouterr().out
    assert (small_run / "explainer.safetensors").stat().st_mtime_ns == before


def test_a_run_whose_last_checkpoint_is_missing_starts_again(small_run, tmp_path):
    run = train.main(arguments(tmp_path, "--epochs", 1))
    run.last.unlink()
    run.summary.unlink()
    train.main(["--resume", str(run.path)])
    assert rows(run.path) == rows(small_run)[:1]


def test_early_stopping_remembers_the_epochs_it_has_waited(tmp_path, capsys):
    # A run that can't get better: its first epoch is the best, and patience counts on over the interruption.
    waiting = ["--lr", 1e-9, "--patience", 3]
    run = train.main(arguments(tmp_path, *waiting, "--epochs", 2))
    train.main(["--resume", str(run.path), "--epochs", "10"])
    assert len(rows(run.path)) == 4
    summary = json.loads(run.summary.read_text())
    assert summary["stopped_early"]

    run.summary.unlink()  # as if killed after the decision
    train.main(["--resume", str(run.path)])
    assert len(rows(run.path)) == 4
    assert json.loads(run.summary.read_text())["steps"] == summary["steps"]
    capsys.readouterr()
    train.main(["--resume", str(run.path)])
    assert "it stopped early; choose more --patience" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_classifier_when_the_cache_is_gone(tmp_path):
    run = train.main(arguments(tmp_path, "--stage", "explanandum"))
    for file in (tmp_path / "explananda").iterdir():
        file.unlink()
    train.main(["--resume", str(run.path), "--stage", "all", "--epochs", "1"])
    assert run.explainer.is_file()
    assert not list((tmp_path / "explananda").iterdir())


def test_resuming_what_is_no_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not the folder of a run"):
        train.main(["--resume", str(tmp_path / "nowhere")])
    assert not (tmp_path / "nowhere").exists()


HEED_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Starts a program that heeds Ctrl-C: tests in the background have SIGINT ignored, and their children inherit that."""


def test_ctrl_c_leaves_a_usable_run_folder_and_says_how_to_go_on(tmp_path):
    run, endless = tmp_path / "run", ("--epochs", 1000, "--patience", 1000)
    process = subprocess.Popen(
        [sys.executable, "-c", HEED_CTRL_C, *command("train.py", *arguments(tmp_path, *endless))],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,  # nobody reads along: a full pipe would stop the run
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        give_up = time.monotonic() + 300
        while not (run / "metrics.csv").is_file() and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[1]
        assert (run / "metrics.csv").is_file(), "no epoch within 5 minutes"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert f"python train.py --resume {run}" in said
    assert "Traceback" not in said
    output = evaluate.main(
        ["--run", str(run), "--methods", "grad_cam", "explainer", "--limit", "4", "--accelerator", "cpu"]
    )
    assert (output / "segmentation.csv").is_file()
    assert not (run / "summary.json").exists()


def test_ctrl_c_in_the_first_epoch_leaves_an_unfinished_explainer_rather_than_none(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(train.ExplainerModule, "validation_step", interrupt)
    try:
        with pytest.raises(SystemExit) as stop:
            train.main(arguments(tmp_path))
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning switches it off
    assert stop.value.code == 130
    assert (tmp_path / "run" / "explainer.safetensors").is_file()
    assert "--resume" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    file = tmp_path / "last.ckpt"
    WholeFileCheckpoints().save_checkpoint({"step": 1}, file)

    def full(_checkpoint, path):
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="Cannot write the checkpoint .*last.ckpt.* the one before it is kept"):
        WholeFileCheckpoints().save_checkpoint({"step": 2}, file)
    assert torch.load(file) == {"step": 1}
    assert os.listdir(tmp_path) == ["last.ckpt"]


class Malicious:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_a_checkpoint_that_could_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "callbacks": Malicious(tmp_path / "ran")}, tmp_path / "last.ckpt")
    for read in (read_checkpoint, WholeFileCheckpoints().load_checkpoint):
        with pytest.raises(ValueError, match=r"last\.ckpt is no checkpoint of ours"):
            read(tmp_path / "last.ckpt")
    assert not (tmp_path / "ran").exists()
