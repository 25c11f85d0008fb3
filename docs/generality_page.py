"""Write `generality.md`: which attribution methods explain which backbones (PAMI, Fig. 3), and why the others can't.

`python docs/generality_page.py`

What was found lies in `generality.csv` (a row for each backbone and method) and `generality_layers.csv` (the target
layers); the page is made from them. `--backbones` looks at some again and leaves the rest as it was.

B images, C classes, K channels of the target layer of h×w cells, H×W pixels.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the programs and their parts lie

from datamodules import DataOptions, ShapesOptions, build_datamodule
from explainer.attribution import METHODS, CannotExplain
from explainer.attribution.spec import MethodSpec
from explainer.capture import captured_activation
from explainer.classifiers import build_classifier, normalisation
from explainer.entry import run_command
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.network import Explainer
from explainer.report.tables import Row, markdown, read_table, write_csv
from explainer.run_folder import require_writable
from programs.parser import HelpFormatter, Parser, to_dataclass

QUICK: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "xrai": {"segments": "slic", "steps": 2},
    "pami_window": {"radius": 16, "step": 16},
    "pami": {"second_run": False},
    "i_gos": {"iterations": 2, "steps": 2, "l1": 0.01, "tv": 0.02},
    "igos_pp": {"iterations": 2, "steps": 2, "l1": 0.01, "tv": 0.02},
    "mask": {"iterations": 3},
    "sigcam": {"iterations": 2, "l1": 0.01, "tv": 0.02},
    "aop": {"optimiser": "mask:iterations=3"},
    "extremal": {"areas": 0.2, "iterations": 5},
    "rise": {"masks": 16},
    "occlusion": {"window": 16, "step": 16},
}
"""Options with which a method is quick and still does all that it does; the others are quick by default."""

CLASSES = ("cat", "dog", "hen", "fox", "owl")
SCENES = 8
"""Images that the random weights are settled on."""
SPREAD = 0.2
"""How far what starts as a constant is moved from it."""

INTRODUCTION = """\
PAMI is shown on nine kinds of backbones (Fig. 3 of its paper), on two of which other methods may not work, it says. \
Here every method is asked for maps of all nine (RegNet and ViT smaller than there): a tick stands for maps that are \
finite, of the images' size and not flat; elsewhere the note has the method's own words (`CannotExplain`). Weights are \
random, images small and options quick (`QUICK` in `docs/generality_page.py`): this says what can be asked, not how \
good the answer is. [`methods.md`](methods.md) shows maps, [`results/`](../results/README.md) measures them."""

LAYERS = """\
The CAM methods read the last layer whose output is a picture of the image and reaches the logits. It is found by \
itself, and `target_layer` names another. A picture is a map [B,K,h,w] of a convolution, a map [B,h,w,K] with the \
channels last, or a row of tokens [B,T,K], of which the class token and registers are dropped and the rest is laid out \
line by line. A transformer that reads its class token has none behind its last attention: what is left there of the \
other tokens is thrown away, so the layer is the normalisation before it."""

ABILITIES = """\
Beside the layer of the CAM methods, guided backpropagation wants a ReLU, FullGrad a classifier that is linear piece \
by piece, LRP a rule for every step. What the others need, any of the nine gives; `python evaluate.py --list_methods` \
says what that is, and what each method costs."""


@dataclass(frozen=True)
class Backbone:
    """A row of the first table, a column of the second.

    Args:
        architecture: as `--explanandum` takes it.
        size: pixels a side of the images that it is meant for.
        small: of those that are explained here; the target layer must have some cells left.
    """

    architecture: str
    size: int = 224
    small: int = 64


BACKBONES = {
    "VGG-16": Backbone("vgg16"),
    "ResNet-50": Backbone("resnet50"),
    "SE-ResNet-50": Backbone("timm:seresnet50"),
    "Inception-v3": Backbone("inception_v3", size=299, small=112),
    "DenseNet-121": Backbone("densenet121"),
    "RegNet-X": Backbone("regnet_x_400mf"),
    "ConvNeXt-T": Backbone("convnext_tiny"),
    "ViT-B/16": Backbone("vit_b_16"),
    "Swin-T": Backbone("swin_t"),
}


@dataclass
class PageOptions:
    """What is looked at.

    Args:
        backbones: Those that are looked at, by the names on the page.
        methods: Those that are asked.
        output: Folder of the page and its data.
    """

    backbones: list[str]
    methods: list[str]
    output: Path = Path(__file__).parent


def main(arguments: list[str] | None = None) -> Path:
    """Write the page; returns its file."""
    parser = Parser(
        prog="generality_page.py",
        usage="python docs/generality_page.py [--backbones NAME ...] [--methods NAME ...] [--output DIR]",
        description="Find out which attribution methods explain which backbones.",
        formatter_class=HelpFormatter,
    )
    parser.add_class_arguments(PageOptions, None, skip={"backbones", "methods"})
    for name, known in (("backbones", list(BACKBONES)), ("methods", list(METHODS))):
        parser.add_argument(f"--{name}", nargs="+", choices=known, default=known, help="All, if not given.")
    options = to_dataclass(PageOptions, parser.parse_args(sys.argv[1:] if arguments is None else arguments))
    require_writable(options.output)
    for name in options.backbones:
        update([layer_row(name)], options.output / "generality_layers")
        update(ability_rows(name, options.methods), options.output / "generality")
    page = options.output / "generality.md"
    page.write_text(page_text(options.output))
    return page


def update(rows: list[Row], file: Path) -> None:
    """Put rows in the place of those in `file`.csv about the same backbone and method; others stay."""
    places = [(backbone, method) for backbone in BACKBONES for method in (None, *METHODS)]
    csv = file.with_suffix(".csv")
    known = {(row["backbone"], row.get("method")): row for row in [*(read_table(csv) if csv.exists() else []), *rows]}
    write_csv([known[place] for place in places if place in known], file)


def layer_row(name: str) -> Row:
    """The target layer of a backbone and its output, of an image of the size that it is meant for."""
    backbone = BACKBONES[name]
    explanandum = random_explanandum(backbone.architecture, backbone.size)
    return {"backbone": name, "architecture": backbone.architecture, "pixels": backbone.size} | layer_of(explanandum)


def layer_of(explanandum: Explanandum) -> dict[str, Any]:
    """Name, output and grid of the layer that the CAM methods read."""
    size = explanandum.card.image_size
    image = torch.zeros(1, 3, size, size)
    with torch.no_grad(), captured_activation(explanandum.model, explanandum.target_layer) as captured:
        explanandum(image)
    maps = captured.as_maps(captured.value, image)
    return {
        "target layer": explanandum.target_layer,
        "output": " × ".join(map(str, captured.value.shape[1:])),
        "cells": " × ".join(map(str, maps.shape[2:])),
    }


def ability_rows(name: str, methods: list[str]) -> list[Row]:
    """What methods say of a backbone: nothing if they explain it, else the reason."""
    backbone = BACKBONES[name]
    explanandum = random_explanandum(backbone.architecture, backbone.small)
    images = settle(explanandum).split(1)
    rows = []
    for method in methods:
        reason = reason_against(method, explanandum, images)
        rows.append({"backbone": name, "method": method, "reason": reason})
        print(f"{name}: {method} {'cannot' if reason else 'does'}", flush=True)
    return rows


def random_explanandum(architecture: str, size: int) -> Explanandum:
    """A classifier of `CLASSES` with weights as they are before training, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, _ = build_classifier(architecture, len(CLASSES), "none", image_size=size)
    return Explanandum(model, ClassifierCard(architecture, CLASSES, size, *normalisation(architecture)))


def settle(explanandum: Explanandum) -> Tensor:
    """Give random weights what training gives: no constants, BatchNorm's statistics, logits that differ.

    Else a branch that starts at zero, as LayerScale's and many residual ones do, would hide what can't be done with it,
    and the maps of logits that are the same for all images would be flat.

    Returns:
        The two of its normalised images with the largest logits, [2,3,H,W].
    """
    model, image = explanandum.model, scenes(explanandum.card)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(torch.empty_like(tensor).uniform_(-SPREAD, SPREAD))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.train().momentum = None  # the mean over all batches, of which there is one
        model(image)
        model.eval()
        logits = explanandum(image)
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        head.weight.div_(logits.std(dim=0)[:, None])
        head.bias.sub_(logits.mean(dim=0)).div_(logits.std(dim=0))
        surest = explanandum(image).amax(dim=1).topk(2).indices
    return image[surest]


def scenes(card: ClassifierCard) -> Tensor:
    """Normalised images [B,3,H,W] of the embedded data set, which are no noise: superpixels follow what they show."""
    options = DataOptions(image_size=card.image_size, workers=0, mean=card.mean, std=card.std)
    loader = build_datamodule("shapes", options, ShapesOptions(test_size=SCENES)).dataloader("test")
    return loader.preview(SCENES).image  # type: ignore[attr-defined]


def reason_against(name: str, explanandum: Explanandum, batches: Sequence[Tensor]) -> str | None:
    """Why a method can't explain a classifier; None if it gives proper maps.

    Of a class that nothing speaks for, an activation map is zero by right. So flat maps are no fault before all classes
    of all images are asked for, the likeliest first.

    Args:
        name: of the method.
        explanandum: the classifier.
        batches: images [B,3,H,W] that are explained together.

    Raises:
        ValueError: for maps that are none, or flat throughout.
    """
    method = MethodSpec(name, QUICK.get(name, {}))
    for rank, image in product(range(len(CLASSES)), batches):
        with torch.no_grad():
            target = explanandum(image).argsort(dim=1, descending=True)[:, rank]
        try:
            maps = method.build(explanandum, network=random_network(explanandum))(image, target)
        except CannotExplain as error:
            return str(error)
        if maps.shape != (len(image), *image.shape[-2:]) or not maps.isfinite().all():
            raise ValueError(f"'{name}' gives {list(maps.shape)} for images {list(image.shape)}, or values like NaN.")
        if bool((maps.flatten(1).amax(dim=1) > maps.flatten(1).amin(dim=1)).any()):
            return None
    raise ValueError(f"'{name}' says nothing: its maps of all classes are flat.")


def random_network(explanandum: Explanandum) -> Explainer:
    """A small Explainer that has learned nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Explainer(explanandum.num_classes, "tu-test_resnet", output_stride=16, decoder_channels=16)


def page_text(folder: Path) -> str:
    """The page in Markdown, from the data in its folder."""
    layers = read_table(folder / "generality_layers.csv")
    rows = read_table(folder / "generality.csv")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    as_read = sorted(rows, key=lambda row: methods.index(row["method"]))
    reasons = dict.fromkeys(row["reason"] for row in as_read if row["reason"])
    notes = {reason: number for number, reason in enumerate(reasons, start=1)}
    parts = [
        "# Which method explains which classifier",
        "```sh\npython docs/generality_page.py\n```\n\nwrites this page.",
        INTRODUCTION,
        "## Target layers",
        LAYERS,
        markdown([row | {name: f"`{row[name]}`" for name in ("architecture", "target layer")} for row in layers]),
        "## Methods",
        ABILITIES,
        markdown(table_of(rows, notes)),
        "\n".join(f"[^{number}]: {reason}" for reason, number in notes.items()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def table_of(rows: list[Row], notes: dict[str, int]) -> list[Row]:
    """A row for each method, a column for each backbone: a tick, the number of a note, or nothing where none looked."""
    table: dict[str, Row] = {}
    backbones = [row["backbone"] for row in rows]
    for row in rows:
        cells = table.setdefault(row["method"], {"method": f"`{row['method']}`", **dict.fromkeys(backbones)})
        cells[row["backbone"]] = f"no [^{notes[row['reason']]}]" if row["reason"] else "✓"
    return list(table.values())


if __name__ == "__main__":
    run_command(main)
