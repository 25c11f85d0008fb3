"""Write `methods.md` and its pictures: the maps of all attribution methods for a few images of a trained run.

`python docs/methods_page.py --run runs/demo`

M columns of a picture, each an image and one of its classes as the target; C classes, H×W pixels.
"""

import math
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the programs and their parts lie

from datamodules import VOID, Batch
from explainer.attribution import METHODS, CannotExplain
from explainer.attribution.spec import MethodSpec, options_of, parse_method
from explainer.capture import captured_activation
from explainer.entry import run_command
from explainer.explanandum import Explanandum
from explainer.metrics import to_unit_range
from explainer.report.gallery import Column, Row, caption_of, draw_gallery, save_gallery, truth_shades
from explainer.report.tables import markdown
from explainer.run_folder import RunFolder, require_writable
from programs.evaluate_options import EvaluateOptions
from programs.evaluate_subject import run_data
from programs.parser import HelpFormatter, Parser, to_dataclass

CANDIDATES = 4
"""Images that are loaded for each that is shown."""

MOST_ROWS = 12
"""Methods in one picture, so that it fits a screen."""

PAPERS_SIZE = 224
"""Side in pixels of the images that the papers' lengths are meant for."""

LENGTHS: dict[str, tuple[str, ...]] = {
    "pami_window": ("radius", "step"),
    "group_cam": ("kernel_size", "sigma"),
    "group_cam_head": ("kernel_size", "sigma"),
    "occlusion": ("window", "step"),
}
"""Options that are lengths in pixels; on smaller images they shrink in proportion."""

READING = """\
Each column asks: where does the classifier see this class in this image? Above the photograph stand the class and the \
classifier's probability for it; one image stands there twice, with two of its classes, for which a method that looks \
at the class gives two maps. In the ground truth the target is white, and what belongs to other classes is grey. Each \
row is a method's answer over the grey photograph, light where it matters for the class and dark where it does not. \
Every map is stretched to the range from 0 to 1 by itself (`explainer/metrics/scaling.py`): it shows where, not how \
much, and a search that found next to nothing has bright spots too. Masks that lie in that range by design are drawn \
as they are ({unit_range}). The images are evenly spaced over the split, not chosen for their looks."""

DEFAULTS = "All options are the defaults."

SHRUNK = """\
All options are the defaults, except for lengths in pixels that the papers choose for images of 224 × 224; here they \
shrink with the image. The passes in the table are those of the defaults."""

GIVEN = "Options that are not the defaults; the passes in the table are those of the defaults."


@dataclass
class PageOptions:
    """What is shown.

    Args:
        run: Folder that train.py made.
        methods: Attribution methods, each as NAME or NAME:option=value,option=value.
        images: How many are shown, evenly spaced over the split, one of them with two targets.
        split: Split of the run's data set.
        seed: Of the choice of images and targets.
        output: Folder of the page.
        data_root: Folder of the data set, if it has moved since the run.
    """

    run: Path
    methods: list[str] = field(default_factory=list)
    images: int = 5
    split: Literal["train", "val", "test"] = "test"
    seed: int = 0
    output: Path = Path(__file__).parent
    data_root: Path | None = None


@dataclass
class Questions:
    """The columns: which classes are asked for in which images.

    Args:
        image: [M,3,H,W], normalised; an image with two targets is in it twice.
        target: [M].
        columns: what is drawn above the maps.
    """

    image: Tensor
    target: Tensor
    columns: list[Column]


def main(arguments: list[str] | None = None) -> Path:
    """Write the page; returns its file."""
    options = parse_page(sys.argv[1:] if arguments is None else arguments)
    folder = RunFolder(options.run)
    folder.read_config()  # its error says what a run folder is
    explanandum = folder.load_explanandum()
    specs = chosen_specs(options.methods, explanandum.card.image_size)
    wanted = EvaluateOptions(folder.path, split=options.split, data_root=options.data_root)
    datamodule = run_data(wanted, folder, explanandum.card)
    require_writable(options.output)
    batch = datamodule.dataloader(options.split).preview(CANDIDATES * options.images)  # type: ignore[attr-defined]
    if batch is None:
        raise ValueError(f"No image of the split {options.split} is readable; choose another --split.")
    questions = ask(batch, pick(batch.labels, options.images, options.seed), explanandum)
    layer = layer_in_words(explanandum, questions.image[:1])
    rows, unable = draw_rows(specs, questions, explanandum, folder)
    pictures = save_pictures(questions.columns, rows, options.output / "methods.webp")
    page = options.output / "methods.md"
    page.write_text(page_text(options, specs, unable, layer, pictures))
    return page


def parse_page(arguments: list[str]) -> PageOptions:
    """Command line -> options."""
    parser = Parser(
        prog="methods_page.py",
        usage="python docs/methods_page.py --run RUN [--images N] [--methods NAME ...] [options]",
        description="Draw the maps of all attribution methods for a few images.",
        formatter_class=HelpFormatter,
    )
    parser.add_class_arguments(PageOptions, None, skip={"methods"})
    parser.add_argument("--methods", nargs="+", type=str, default=[], help="All, if not given; as for evaluate.py.")
    return to_dataclass(PageOptions, parser.parse_args(arguments))


def chosen_specs(methods: list[str], image_size: int) -> list[MethodSpec]:
    """The named methods; all of them, in sizes that suit the images, if none is named."""
    if methods:
        return [parse_method(text) for text in methods]
    return [MethodSpec(name, shrunk_lengths(name, image_size)) for name in METHODS]


def shrunk_lengths(method: str, image_size: int) -> dict[str, int]:
    """A method's lengths in proportion to smaller images, in whole pixels; a blur's `kernel_size` stays odd."""
    if image_size >= PAPERS_SIZE:
        return {}
    defaults = options_of(method)
    pixels = {name: defaults[name] * image_size / PAPERS_SIZE for name in LENGTHS.get(method, ())}
    return {
        name: 2 * round((value - 1) / 2) + 1 if name == "kernel_size" else max(1, round(value))
        for name, value in pixels.items()
    }


def pick(labels: Tensor, images: int, seed: int) -> list[tuple[int, int]]:
    """Of evenly spaced candidates one from each section, with one of its classes; the first with several gets two.

    Args:
        labels: multi-hot, of the candidates.
        images: number of sections.
        seed: of what is taken; classes that were not taken yet go first.

    Returns:
        Pairs of candidate and target, at most `images` + 1; a section in which no image has a class gives none.

    Raises:
        ValueError: if no image at all has a class.
    """
    generator = np.random.default_rng(seed)
    pairs: list[tuple[int, int]] = []
    count = labels.bool().sum(dim=1)
    for section in torch.arange(len(labels)).tensor_split(images):
        twice = all(image != other for (image, _), (other, _) in zip(pairs, pairs[1:], strict=False))
        several = section[count[section] > 1]
        usable = several if twice and len(several) else section[count[section] > 0]
        if len(usable):
            image = int(generator.choice(usable))
            present = generator.permutation(labels[image].nonzero()[:, 0]).tolist()
            present.sort(key=[target for _, target in pairs].count)
            pairs += [(image, target) for target in present[: 2 if twice else 1]]
    if not pairs:
        raise ValueError("None of the images has a class; choose another --split or --seed.")
    return pairs


def ask(batch: Batch, pairs: list[tuple[int, int]], explanandum: Explanandum) -> Questions:
    """The columns of the pictures: pairs of an image of the batch and a target."""
    card = explanandum.card
    rows, target = torch.tensor(pairs).T
    image = batch.image[rows]
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
    photographs = (image * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        probability = explanandum.probabilities(explanandum(image))
    columns = []
    for position, (row, wanted) in enumerate(pairs):
        caption = caption_of(card.classes[wanted], float(probability[position, wanted]))
        column = Column(photographs[position], caption)
        if batch.mask is not None and (batch.mask[row] != VOID).any():
            mask = batch.mask[row].numpy()
            truth = mask == wanted + 1
            column.truth = truth_shades(truth, (mask != 0) & (mask != VOID) & ~truth)
        columns.append(column)
    return Questions(image, target, columns)


def draw_rows(
    specs: list[MethodSpec], questions: Questions, explanandum: Explanandum, folder: RunFolder
) -> tuple[list[Row], dict[str, str]]:
    """Each method's maps in [0, 1]; and, by name, why a method has none for this classifier."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    explanandum.to(device)
    resources = {"network": folder.load_explainer()} if any(spec.takes("network") for spec in specs) else {}
    rows, unable = [], {}
    for spec in specs:
        start = time.perf_counter()
        method = spec.build(explanandum, **resources)
        for module in method.modules:
            module.to(device)
        try:
            maps = method(questions.image.to(device), questions.target.to(device)).cpu()
        except CannotExplain as error:
            unable[spec.name] = str(error)
            continue
        maps = maps if method.unit_range else to_unit_range(maps)
        details = [type(method).__name__, getattr(method, "paper", ""), in_words(spec.options)]
        rows.append(Row(spec.name, [line for line in details if line], list(maps.numpy())))
        print(f"{spec.name}: {time.perf_counter() - start:.1f} s", flush=True)
    return rows, unable


def save_pictures(columns: list[Column], rows: list[Row], file: Path) -> list[Path]:
    """As few pictures as the rows need, about equally long: `methods.webp`, `methods_2.webp` and so on."""
    count = math.ceil(len(rows) / MOST_ROWS)
    files = [file.with_stem(file.stem + (f"_{number}" if number > 1 else "")) for number in range(1, count + 1)]
    for index, picture in enumerate(files):
        part = rows[index * len(rows) // count : (index + 1) * len(rows) // count]
        save_gallery(draw_gallery(columns, part), picture)
    return files


def in_words(options: dict[str, Any]) -> str:
    """Options as on a command line."""
    return ",".join(f"{name}={value}" for name, value in options.items())


def page_text(
    options: PageOptions, specs: list[MethodSpec], unable: dict[str, str], layer: str, pictures: list[Path]
) -> str:
    """The page in Markdown."""
    unit_range = ", ".join(f"`{spec.name}`" for spec in specs if METHODS[spec.name].unit_range)
    changed = "\n".join(f"- `{spec.name}:{in_words(spec.options)}`" for spec in specs if spec.options)
    parts = [
        "# All attribution methods",
        f"```sh\n{command_of(options)}\n```\n\nwrites this page and its pictures.",
        READING.format(unit_range=unit_range or "none of these"),
        layer,
        *(f"![Maps of the methods, a row each]({picture.name})" for picture in pictures),
        f"{GIVEN if options.methods else SHRUNK}\n\n{changed}" if changed else DEFAULTS,
        "".join(f"No picture of `{name}`: {why}\n" for name, why in unable.items()).strip(),
        method_table([spec.name for spec in specs]),
    ]
    return "\n\n".join(filter(None, parts))


def command_of(options: PageOptions) -> str:
    """The command line that writes the page, for a run in the usual place."""
    words = ["python", "docs/methods_page.py", "--run", f"runs/{options.run.resolve().name}"]
    for name in ("images", "split", "seed"):
        if getattr(options, name) != getattr(PageOptions, name):
            words += [f"--{name}", str(getattr(options, name))]
    return shlex.join([*words, *(["--methods", *options.methods] if options.methods else [])])


def layer_in_words(explanandum: Explanandum, image: Tensor) -> str:
    """What the CAM methods read of images like this one, [1,3,H,W]; nothing if there is no such layer."""
    try:
        with torch.no_grad(), captured_activation(explanandum.model, explanandum.target_layer) as captured:
            explanandum(image)
        maps = captured.as_maps(captured.value, image)
    except CannotExplain:
        return ""
    cells = " × ".join(str(side) for side in maps.shape[2:])
    return (
        f"The classifier is `{explanandum.card.architecture}` at {image.shape[-2]} × {image.shape[-1]} pixels. The CAM "
        f"methods read its layer `{explanandum.target_layer}`, which has {cells} cells: they can't be finer than that."
    )


def method_table(names: list[str]) -> str:
    """What the methods are and cost."""
    rows = [
        {
            "name": f"`{name}`",
            "paper": getattr(METHODS[name], "paper", ""),
            "passes per image and class": getattr(METHODS[name], "passes", ""),
            "what": (METHODS[name].__doc__ or "").strip().split("\n")[0],
        }
        for name in dict.fromkeys(names)
    ]
    return markdown(rows)


if __name__ == "__main__":
    run_command(main)
