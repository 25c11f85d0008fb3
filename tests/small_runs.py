"""What the tests of training and evaluation share: the smallest command lines that do everything."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[1]
EPOCHS, STEPS, VALIDATION_IMAGES, TEST_IMAGES = 3, 4, 11, 7
"""Of the smallest run; odd numbers of images, so that two processes share them unevenly."""

TINY = (
    *("--dataset", "shapes", "--explanandum", "timm:test_resnet", "--explanandum_weights", "none"),
    *("--encoder", "tu-test_resnet", "--image_size", "32", "--batch_size", "8", "--workers", "0"),
    *("--limit_train", str(8 * STEPS), "--limit_val", str(VALIDATION_IMAGES), "--limit_test", str(TEST_IMAGES)),
    *("--epochs", str(EPOCHS), "--lr", "1e-3", "--precision", "32", "--accelerator", "cpu"),
    *("--finetune.epochs", "2", "--finetune.lr", "1e-3", "--finetune.freeze", "true", "--finetune.batch_size", "16"),
    # A recipe may say otherwise.
    *("--schedule", "constant", "--warmup_steps", "0", "--patience", "5", "--augment", "false"),
    *("--finetune.schedule", "constant", "--finetune.warmup_steps", "0", "--finetune.patience", "5"),
)

TEACHERS = ("--distill.teachers", "grad_cam", "group_cam:groups=4", "--distill.decay", "1")


def arguments(output, *more):
    """The command line of the smallest run, with a folder of its own for everything."""
    return [*TINY, "--output", str(output), "--name", "run", *map(str, more)]


def command(program, *arguments):
    """A program of ours as a user starts it."""
    return [sys.executable, str(ROOT / program), *map(str, arguments)]


def start(program, *arguments, **environment):
    """Run a program to its end in a process of its own."""
    return subprocess.run(
        command(program, *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def rows(run):
    """metrics.csv without what depends on the clock."""
    with (run / "metrics.csv").open(newline="") as opened:
        return [{name: text for name, text in row.items() if name != "images/s"} for row in csv.DictReader(opened)]


def other_explainer(run, copy):
    """A copy of a run, whose Explainer has other weights; returns it."""
    shutil.copytree(run, copy)
    file = copy / "explainer.safetensors"
    with safe_open(file, framework="pt") as opened:
        notes = opened.metadata()
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in load_file(file).items()
    }
    save_file(weights, file, notes)
    return copy


def assert_same_weights(file, other):
    """Both files hold the same tensors, bit for bit."""
    weights, others = load_file(file), load_file(other)
    assert weights.keys() == others.keys()
    different = [name for name, value in weights.items() if not value.equal(others[name])]
    assert not different


def assert_same_rows(rows, others, rel):
    """Both tables have the same cells, numbers up to a relative error (or that of 10: differences of percentages)."""
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            expected = other[name]
            if isinstance(value, int | float) and isinstance(expected, int | float):
                assert abs(value - expected) <= rel * max(abs(value), abs(expected), 10), (name, row, other)
            else:
                assert value == expected, (name, row, other)


def skip_if_nothing_can_be_exported():
    """PyTorch may be old enough for everything else, but not for that."""
    from explainer.export.formats import require_recent_torch

    try:
        require_recent_torch()
    except ImportError as error:
        pytest.skip(str(error), allow_module_level=True)
