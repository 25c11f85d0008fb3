"""Seconds per image of attribution methods against the floor: nothing but the passes that they make.

`python benchmarks/methods.py --architectures resnet50 vgg16 --output benchmarks/methods.csv`

A method's first call, the warm-up, is watched: how many images went through the classifier in each pass, and whether a
gradient came back, to the layer that the method reads or to the image. The floor repeats these passes, in the same
batch sizes, on random images, in the same layout and precision. Method, floor and the same method of other libraries,
where they are installed, take turns, so that a change of the machine's speed hits all of them.

Weights are random, the images photographs: superpixels of noise are unlike those of a picture. The libraries run as
their users run them, in float32 on a model whose parameters want gradients and that is not in channels_last; their
chunks are as large as ours. Seconds are medians over the rounds; the ratio is the median of the rounds' ratios.
Memory is what a call takes at most on top of the weights, on CUDA only.
"""

import argparse
import copy
import csv
from collections.abc import Iterator
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

import torch
import torch.nn.functional as F
from adapter import NoPeer
from floor import Contender, Row, alternate, channels_last, floor, row  # beside this file, where Python looks first
from peers import LIBRARIES, PEERS
from torch import Tensor

from explainer.attribution import AttributionMethod
from explainer.attribution.spec import parse_method
from explainer.classifiers import build_classifier, normalisation, require_known
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.machine import has_native_bf16
from explainer.network import Explainer
from explainer.run_folder import environment

METHODS = (
    *("pami:workers=2", "rise:masks=500", "score_cam", "group_cam", "grad_cam", "occlusion"),
    *("gradient", "guided_backprop", "smooth_grad", "integrated_gradients", "full_grad:rescale=channel", "lrp", "xrai"),
)
"""Those that other libraries have too, and those that should cost hardly more than their passes.

Fewer masks than RISE's 4000 give the same ratio; FullGrad with the option that pytorch-grad-cam's has.
"""


def build(architecture: str, size: int, classes: int, device: str, *, bf16: bool) -> Explanandum:
    """A multi-label classifier with random weights, as train.py lays it out."""
    torch.manual_seed(0)
    model, _ = build_classifier(architecture, classes, "none", image_size=size)
    names = tuple(f"class {index}" for index in range(classes))
    explanandum = Explanandum(model, ClassifierCard(architecture, names, size, *normalisation(architecture)))
    if bf16:
        explanandum.store_in(torch.bfloat16)
    return explanandum.to(device).to(memory_format=torch.channels_last)


def build_method(text: str, explanandum: Explanandum) -> AttributionMethod:
    """The method that `text` names; for the learned one an Explainer with random weights."""
    spec, device = parse_method(text), next(explanandum.parameters()).device
    network = {"network": Explainer(explanandum.num_classes)} if spec.takes("network") else {}
    method = spec.build(explanandum, **network)
    for module in method.modules:
        module.to(device).to(memory_format=torch.channels_last)
    return method


def photographs(card: ClassifierCard, count: int, device: str) -> Tensor:
    """Photographs that come with scikit-image, resized and normalised, [count,3,H,W]; when all are used, shifted."""
    from skimage import data

    size = (card.image_size, card.image_size)
    pictures = [torch.from_numpy(load()) for load in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    small = [
        F.interpolate(picture.permute(2, 0, 1)[None] / 255, size=size, mode="bilinear", antialias=True)
        for picture in pictures
    ]
    chosen = [small[index % len(small)].roll(index // len(small) * 20, dims=3) for index in range(count)]
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
    return channels_last(((torch.cat(chosen) - mean) / std).to(device))


def peers(name: str, method: AttributionMethod, image: Tensor, target: Tensor) -> dict[str, Contender]:
    """The method as other libraries have it, each on its own copy of the model, where its hooks disturb nobody."""
    found: dict[str, Contender] = {}
    plain = image.contiguous()
    for title, adapt in PEERS.get(name, {}).items():
        model = copy.deepcopy(method.explanandum.model).requires_grad_(True)
        model = model.to(memory_format=torch.contiguous_format)
        try:
            attribute = adapt(method, model)
        except (ImportError, NoPeer) as error:
            print(f"{title} is left out: {error}", flush=True)
            continue
        found[title] = Contender.watched(model, partial(attribute, plain, target), image.device.type)
    return found


def measure(text: str, explanandum: Explanandum, options: argparse.Namespace, *, bf16: bool) -> list[Row]:
    """The rows of one method, ours first."""
    device = next(explanandum.parameters()).device.type
    image = photographs(explanandum.card, options.batch, device)
    target = torch.arange(options.batch, device=device) % explanandum.num_classes
    with torch.autocast(device, torch.bfloat16, enabled=bf16):  # the precision plugin's context
        method = build_method(text, explanandum)
        ours = Contender.watched(explanandum.model, partial(method, image, target), device)
        bare = floor(explanandum, ours.passes, image, getattr(method, "target_layer", None))
        bare()
        contenders = {text: ours, **({} if bf16 else peers(parse_method(text).name, method, image, target))}
        calls = {name: contender.call for name, contender in contenders.items()}
        times = alternate({text: ours.call, "floor": bare, **calls}, options.rounds, options.seconds, device)
    rows = []
    for name, contender in contenders.items():
        floor_times = times["floor"] if name == text and ours.passes else []
        head = {"architecture": explanandum.card.architecture, "method": name, "precision": "bf16" if bf16 else "fp32"}
        rows.append(head | row(contender, times[name], floor_times, options.batch))
    return rows


def common_options(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark of a classifier's passes can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["resnet18"], help="torchvision's names, or timm:NAME")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4, help="images of one call")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="for which, at least, a call is repeated in a round")
    parser.add_argument("--bf16", action="store_true", help="measure in bfloat16 too, without other libraries")
    parser.add_argument("--output", type=Path, help="CSV file; notes on the machine go beside it, as .txt")
    return parser


def check_common(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program, before anything is measured, for an unknown architecture and for a bfloat16 that isn't there."""
    try:
        for architecture in options.architectures:
            require_known(architecture)
    except ValueError as error:
        parser.error(str(error))
    if options.bf16 and not has_native_bf16(torch.cuda.is_available()):
        parser.error("This machine only emulates bfloat16, which is slower than float32; leave out --bf16.")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; wrong names end it here."""
    parser = common_options(__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME[:OPTION=VALUE,...]")
    options = parser.parse_args(arguments)
    try:
        for text in options.methods:
            parse_method(text)
    except ValueError as error:
        parser.error(str(error))
    check_common(parser, options)
    return options


def every_classifier(options: argparse.Namespace) -> Iterator[tuple[Explanandum, bool]]:
    """The architectures, each in float32 and, if that was asked for, in bfloat16, which the second value says."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for architecture in options.architectures:
        for bf16 in [False, True] if options.bf16 else [False]:
            yield build(architecture, options.size, options.classes, device, bf16=bf16), bf16


def main(arguments: list[str] | None = None) -> None:
    """Print the rows as they come, and write them, with the machine beside them."""
    options = parse(arguments)
    rows: list[Row] = []
    for explanandum, bf16 in every_classifier(options):
        for text in options.methods:
            rows += report(measure(text, explanandum, options, bf16=bf16))
            write(rows, options.output, LIBRARIES)


def report(rows: list[Row]) -> list[Row]:
    """Print rows, and hand them on."""
    print(*rows, sep="\n", flush=True)
    return rows


def write(rows: list[Row], file: Path | None, libraries: tuple[str, ...] = ()) -> None:
    """The table; beside it the machine, the threads of this process and the other libraries' versions.

    To be called again and again: whatever ends a long run leaves what it measured.
    """
    if file is None:
        return
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    there = {found.name: found.version for found in distributions() if found.name in libraries}
    lines = [f"threads: {torch.get_num_threads()}"]
    lines += [f"{library}: {there.get(library, 'not installed')}" for library in libraries]
    file.with_suffix(".txt").write_text(environment() + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
