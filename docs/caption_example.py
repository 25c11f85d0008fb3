"""Train a small captioning model on drawn scenes, and draw where it sees the words of its captions: PAMI and RISE.

`python docs/caption_example.py` writes `caption_words.webp`, in about a minute on two cores.

N images of a batch, T words of a caption that are explained, H×W pixels.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from caption_model import MEAN, RELATIONS, STD, Captioner, Scenes, encode, read_scenes, train
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the programs and their parts lie

from datamodules.shapes_scene import CLASSES
from explainer.attribution import METHODS
from explainer.entry import run_command
from explainer.metrics import to_unit_range
from explainer.report.gallery import Column, Row, caption_of, draw_gallery, save_gallery, truth_shades
from explainer.run_folder import require_writable
from explainer.score_explanandum import ScoreExplanandum
from programs.parser import HelpFormatter, Parser, to_dataclass

Settings = dict[str, Any]


@dataclass
class CaptionOptions:
    """How the model is trained, what is explained, and where the picture goes.

    Args:
        scenes: To train on.
        epochs: Of the training.
        tested: Test scenes that get a caption.
        asked: Of those, whose captions' names are explained and counted.
        drawn: Captions that are drawn.
        image_size: Side of the scenes in pixels.
        masks: Of RISE.
        seed: Of the model and RISE.
        output: Folder of the picture.
    """

    scenes: int = 4000
    epochs: int = 6
    tested: int = 400
    asked: int = 16
    drawn: int = 3
    image_size: int = 64
    masks: int = 1000
    seed: int = 0
    output: Path = Path(__file__).parent


def main(arguments: list[str] | None = None) -> Path:
    """Train, explain, draw; returns the picture's file."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    require_writable(options.output)
    start = time.perf_counter()
    model = train(read_scenes("train", options.scenes, options.image_size), options.epochs, options.seed)
    print(f"trained on {options.scenes} scenes in {time.perf_counter() - start:.0f} s")
    test = read_scenes("test", options.tested, options.image_size)
    captions = model.write(test.image)
    print(verdict(captions, test.captions))
    methods = {"pami": {}, "rise": {"masks": options.masks, "seed": options.seed}}
    for name, settings in methods.items():
        print(pointing(name, settings, model, test, captions, options.asked))
    picture = draw(methods, model, test, captions, choose(captions, options.drawn))
    file = options.output / "caption_words.webp"
    save_gallery(picture, file)
    return file


def parse_options(arguments: list[str]) -> CaptionOptions:
    """Command line -> options."""
    parser = Parser(prog="caption_example.py", description=__doc__.split("\n")[0], formatter_class=HelpFormatter)
    parser.add_class_arguments(CaptionOptions, None)
    return to_dataclass(CaptionOptions, parser.parse_args(arguments))


def verdict(captions: list[list[str]], truth: list[list[str]]) -> str:
    """How good the captions are."""
    pairs = [(names_in(ours), names_in(theirs)) for ours, theirs in zip(captions, truth, strict=True)]
    right = sum(len(ours & theirs) for ours, theirs in pairs)
    named, there = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    whole = sum(ours == theirs for ours, theirs in zip(captions, truth, strict=True)) / len(truth)
    return (
        f"{len(truth)} test scenes: {right / max(1, named):.3f} of the names are right, {right / there:.3f} of the "
        f"classes are named, {whole:.3f} of the captions are right as a whole"
    )


def names_in(caption: list[str]) -> set[str]:
    """The classes that a caption names."""
    return set(caption) & set(CLASSES)


def caption_score(model: Captioner, caption: list[str], positions: list[int]) -> ScoreExplanandum:
    """The probabilities of some words of a caption, those before them being given: what is explained of an image."""
    number = encode([caption])

    def score(image: Tensor) -> Tensor:
        probability = model(image, number.expand(len(image), -1)).softmax(dim=2)
        return probability[:, positions, number[0, positions]]

    return ScoreExplanandum(score, [caption[position] for position in positions], MEAN, STD)


def word_maps(method: str, settings: Settings, explanandum: ScoreExplanandum, image: Tensor) -> Tensor:
    """Maps [T,H,W] of all words of a score in one image [1,3,H,W], from the same passes where the method can."""
    labels = torch.ones(1, explanandum.num_classes)
    return METHODS[method](explanandum, **settings).present_class_maps(image, labels)[0]


def pointing(
    method: str, settings: Settings, model: Captioner, scenes: Scenes, captions: list[list[str]], count: int
) -> str:
    """How often the map of a name that is right has its maximum on an object of that name."""
    hits, area = [], []
    for image, mask, ours, theirs in zip(scenes.image[:count], scenes.mask, captions, scenes.captions, strict=False):
        positions = [position for position, word in enumerate(ours) if word in names_in(theirs)]
        if positions:
            maps = word_maps(method, settings, caption_score(model, ours, positions), image[None])
            for single, position in zip(maps, positions, strict=True):
                truth = mask == CLASSES.index(ours[position]) + 1
                hits.append(truth.flat[int(single.argmax())])
                area.append(truth.mean())
    return f"{method}: {sum(hits)} of {len(hits)} names point at their object ({sum(area):.1f} would by chance)"


def choose(captions: list[list[str]], count: int) -> list[int]:
    """The first caption that says how a disc and a square lie, the first others that say how two lie, other captions.

    Raises:
        ValueError: if no caption names a class.
    """
    order = {
        index: (not set(RELATIONS) & set(caption), names_in(caption) != {"disc", "square"})
        for index, caption in enumerate(captions)
        if names_in(caption)
    }
    if not order:
        raise ValueError("The model names nothing in any scene; train it longer (--scenes, --epochs).")
    return sorted(order, key=order.__getitem__)[:count]


def draw(
    methods: dict[str, Settings], model: Captioner, scenes: Scenes, captions: list[list[str]], chosen: list[int]
) -> NDArray[np.uint8]:
    """A column for each word that names a class or says how two lie, of the captions that the model wrote."""
    columns, rows = [], [Row(name, [], []) for name in methods]
    for index in chosen:
        caption, image = captions[index], scenes.image[index, None]
        print(f"scene {index}: {' '.join(caption)} (in truth: {' '.join(scenes.captions[index])})")
        positions = [position for position, word in enumerate(caption) if word in CLASSES or word in RELATIONS]
        explanandum = caption_score(model, caption, positions)
        with torch.no_grad():
            probability = explanandum(image)[0].tolist()
        photograph = (image[0] * STD[0] + MEAN[0]).permute(1, 2, 0).numpy()
        for position, value in zip(positions, probability, strict=True):
            word = caption[position]
            columns.append(Column(photograph, caption_of(word, value), truth_of(word, scenes.mask[index])))
        for row, settings in zip(rows, methods.values(), strict=True):
            row.maps.extend(to_unit_range(word_maps(row.name, settings, explanandum, image)).numpy())
    return draw_gallery(columns, rows)


def truth_of(word: str, mask: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Where the objects of that name are; of another word all objects, which is what it is about."""
    target = mask == CLASSES.index(word) + 1 if word in CLASSES else mask > 0
    return truth_shades(target, (mask > 0) & ~target)


if __name__ == "__main__":
    run_command(main)
