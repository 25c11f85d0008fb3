"""Commands of the guides, run with a tiny run and few images in the place of the reader's.

Not run: what needs data sets or published weights (`NEEDS`), never ends, or is of a page of results and takes hours.
`test_documented_commands.py` parses those, and these too.
"""

import shutil

import pytest
from documented import ROOT, SHELL, blocks, command_lines
from small_runs import TINY, skip_if_nothing_can_be_exported

import evaluate
import explain
import train
from datamodules.shapes import ShapesOptions, ShapesSource
from explainer.export.__main__ import main as export
from explainer.report.__main__ import main as write_page
from explainer.report.figures.__main__ import main as draw_figures

ON_CPU = ("--workers", "0", "--accelerator", "cpu")
FEW = ("--limit", "3", "--batch_size", "3", "--insertion_deletion.step", "0.25", *ON_CPU)
PROGRAMS = {
    "train.py": (train.main, (*TINY, "--epochs", "1", "--finetune.epochs", "1", "--limit_train", "8")),
    "evaluate.py": (evaluate.main, FEW),
    "explain.py": (explain.main, ON_CPU),
    "explainer.export": (export, ()),
    "explainer.report": (write_page, ()),
    "explainer.report.figures": (draw_figures, ()),
}
"""What each runs, and flags that make it fast: the last one of a name counts."""
SMALLER = {
    **{"cat": "disc", "dog": "star", "rise:masks=500": "rise:masks=8", "rise:masks=500,seed=1": "rise:masks=8,seed=1"},
    "aop:base=group_cam,optimiser=(mask:iterations=100,noise=0.1)": "aop:base=group_cam,optimiser=(mask:iterations=2)",
    "pami_window:radius=[10,17],step=3": "pami_window:radius=[5,8],step=8",
    "group_cam:kernel_size=21,sigma=21": "group_cam:groups=4",
}
NEEDS = {
    "voc",
    "coco",
    "imagenet",
    "resnet50",
    "folder",
    "timm:test_vit",
    "runs/vit/figures",
    "configs/voc_vgg16_small.yaml",
}
"""Words of commands that are not run."""
PROMISED = {
    "attribution": ("runs/demo/evaluation/segmentation.csv",),
    "evaluation": ("DIR/insertion_deletion.csv", "comparison/index.html", "runs/cue/evaluation/shortcut.csv"),
    "explaining": ("compared/1.jpg/sheet.jpg", "explanations/a.png/sheet.jpg"),
    "python": ("runs/demo/explainer.onnx", "runs/demo/explainer.pt2"),
}
"""Files that are there after the commands of a guide."""
GUIDES = ("attribution", "evaluation", "explaining", "figures", "python", "training")
RUNS = ("runs/demo", "runs/before", "runs/after", "runs/rtis", "runs/voc_vgg16", "RUN")


def followed(guide):
    """The commands of a guide that are run: (module or program, arguments)."""
    page = ROOT / "docs" / f"{guide}.md"
    lines = [words for block in blocks(page) if block.language in SHELL for words in command_lines(block.content)]
    lines = [[word for word in words if word != "-m"] for words in lines if words[0] == "python"]
    return [(words[1], words[2:]) for words in lines if words[1] in PROGRAMS and not NEEDS & set(words)]


@pytest.fixture(scope="module")
def folder(small_run, tmp_path_factory):
    """A working directory with runs and photographs of the names that the guides use."""
    made = tmp_path_factory.mktemp("reader")
    for name in RUNS:
        shutil.copytree(small_run, made / name)
    methods = ("--methods", "explainer", "grad_cam", "--tables", "insertion_deletion", "examples")
    evaluate.main(["--run", str(made / "runs/demo"), *methods, *FEW])
    scenes = ShapesSource("test", 64, ShapesOptions(test_size=3))
    for index, name in enumerate(("photos/a.png", "photos/b.png", "more/1.jpg")):
        (made / name).parent.mkdir(exist_ok=True)
        scenes[index].image.save(made / name)
    return made


@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_work(guide, folder, monkeypatch):
    monkeypatch.chdir(folder)
    commands = followed(guide)
    assert commands
    if any(program == "explainer.export" for program, _ in commands):
        skip_if_nothing_can_be_exported()
    for program, arguments in commands:
        main, faster = PROGRAMS[program]
        if "--print_config" in arguments:
            with pytest.raises(SystemExit) as ended:
                main(arguments)
            assert not ended.value.code
        else:
            main([*(SMALLER.get(word, word) for word in arguments), *faster])
    for file in PROMISED.get(guide, ()):
        assert (folder / file).is_file(), file
