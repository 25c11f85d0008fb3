"""docs/own_classifier.md, followed to the letter, with smaller numbers."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from own_code import no_own_code
from PIL import Image

import evaluate
import explain
import train
from explainer import Explainer, own_classifier

__all__ = ["no_own_code"]
PAGE = (Path(__file__).parents[1] / "docs" / "own_classifier.md").read_text()
SMALLER = {
    '"train": 240, "val": 60, "test": 60': '"train": 12, "val": 4, "test": 3',
    "split, 160,": "split, 48,",
    "EPOCHS = 20": "EPOCHS = 2",
    "(96, 96)": "(32, 32)",
    "--image_size 96": "--image_size 32",
    "image_size: 96": "image_size: 32",
    "warmup_steps: 30\nepochs: 20": "warmup_steps: 1\nepochs: 1\nbatch_size: 4\nworkers: 0\naccelerator: cpu",
}
"""Numbers that make the page good for something, and those that make it fast."""
PROGRAMS = {"explainer-train": train.main, "explainer-evaluate": evaluate.main, "explainer-explain": explain.main}
FASTER = {
    "explainer-train": [],
    "explainer-evaluate": ["--workers", "0", "--accelerator", "cpu"],
    "explainer-explain": ["--workers", "0", "--accelerator", "cpu"],
}


def blocks():
    """(title of a file or "", content) of the fenced blocks, in order, installing left out."""
    text = PAGE
    for number, smaller in SMALLER.items():
        assert number in text, number
        text = text.replace(number, smaller)
    found = re.findall(r'^```\w+(?: title="([^"]+)")?\n(.*?)^```', text, flags=re.MULTILINE | re.DOTALL)
    return [(title, content) for title, content in found if "pip install" not in content]


def commands(content):
    """The command lines of a block, continued lines joined."""
    return [shlex.split(line) for line in content.replace("\\\n", " ").splitlines()]


def follow(words):
    """Run a command of the page in this process: each of its own would import torch again."""
    program, *arguments = words
    if program == "python":
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        PROGRAMS[program]([*arguments, *FASTER[program]])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, from which Python imports, as where scripts lie."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("classifier", None)


@pytest.mark.usefixtures("no_own_code")
def test_the_page_can_be_followed_from_its_beginning_to_its_end(folder, capsys):
    for title, content in blocks():
        if title:
            (folder / title).write_text(content)
        else:
            for words in commands(content):
                follow(words)
    assert "accuracy" in capsys.readouterr().out  # of the classifier, before the Explainer is trained
    for place, images, methods in (
        ("grad_cam", 3, ["grad_cam"]),
        ("explanations", 3, ["explainer"]),
        ("compared", len(list(folder.glob("pictures/test/star/*"))), ["explainer", "grad_cam"]),
    ):
        summary = json.loads((folder / place / "explanations.json").read_text())
        assert len(summary["images"]) == images and not summary["failed"]
        for image in summary["images"]:
            assert list(image["methods"]) == methods
            assert (folder / place / image["sheet"]).is_file()
    named = re.findall(r"^\| `(?:\w+/)?([\w.]+)` \|", PAGE, flags=re.MULTILINE)
    assert len(named) == 4
    for name in named:
        assert list((folder / "compared").glob(f"**/{name}")), name
    assert (folder / "runs" / "own" / "evaluation" / "insertion_deletion.csv").is_file()
    own_classifier._IN_USE.clear()  # another process would know nothing of the code
    with pytest.raises(ValueError, match="runs only if you name it"):
        Explainer.from_run("runs/own")
    loaded = Explainer.from_run("runs/own", code="classifier.py:make_model")
    assert loaded.explain(Image.new("RGB", (9, 5))).scores is not None


def test_whoever_follows_the_page_but_forgets_to_name_the_code_is_told_so(folder):
    (folder / "config.yaml").write_text("explanandum: classifier.py:make_model\n")
    (folder / "classifier.py").write_text("open('ran', 'w')")
    with pytest.raises(ValueError, match="runs only if you name it"):
        train.main(["--config", "config.yaml"])
    assert not (folder / "ran").exists()
