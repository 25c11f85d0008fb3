"""docs/quick_start.md, followed to the letter, with smaller numbers."""

import json
import runpy

import pytest
from documented import ROOT, SHELL, blocks, command_lines, files
from small_runs import TINY

import evaluate
import explain
import train

PAGE = ROOT / "docs" / "quick_start.md"
PROGRAMS = {"train.py": train.main, "evaluate.py": evaluate.main, "explain.py": explain.main}
FASTER = {
    # The last flag counts: one epoch of each network, of few small images.
    "train.py": [*TINY, "--epochs", "1", "--finetune.epochs", "1", "--limit_train", "16"],
    "evaluate.py": ["--workers", "0", "--accelerator", "cpu"],
    "explain.py": ["--workers", "0", "--accelerator", "cpu"],
}
INSTALLS = ("venv", ".venv/bin/activate", "pip")


def followed():
    """The commands of the page, in order, without those that install or watch."""
    lines = [words for block in blocks(PAGE) if block.language in SHELL for words in command_lines(block.content)]
    return [words for words in lines if words[0] == "python" and not set(INSTALLS) & set(words)]


def follow(words):
    """Run a command of the page in this process."""
    _, program, *arguments = words
    if program in PROGRAMS:
        PROGRAMS[program](arguments if "--resume" in arguments else [*arguments, *FASTER[program]])
    else:
        runpy.run_path(program, run_name="__main__")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, with the files that the page has its reader write."""
    monkeypatch.chdir(tmp_path)
    for name, content in files(PAGE).items():
        (tmp_path / name).write_text(content)
    return tmp_path


def test_the_page_can_be_followed_from_its_beginning_to_its_end(folder, capsys):
    for words in followed():
        follow(words)
    printed = capsys.readouterr().out
    assert "f_score" in printed  # the classifier's, before the Explainer is trained
    assert "runs/demo is finished" in printed  # it goes on, but there is nothing left to do
    run = folder / "runs" / "demo"
    for name in ("masks.png", "metrics.csv", "evaluation/segmentation.csv", "evaluation/report/index.html"):
        assert (run / name).is_file(), name
    summary = json.loads((folder / "explanations" / "explanations.json").read_text())
    assert [image["methods"].keys() for image in summary["images"]] == [{"explainer", "grad_cam"}] * 4
    assert (folder / "explanations" / "0.png" / "sheet.jpg").is_file()


def test_the_page_installs_what_it_says(folder):
    lines = [words for block in blocks(PAGE) for words in command_lines(block.content) if "install" in words]
    assert lines == [["python", "-m", "pip", "install", "--constraint", "constraints.txt", "--editable", ".[test]"]]
