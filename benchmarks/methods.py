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
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distributions
from io import StringIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.attribution import AttributionMethod
from explainer.attribution.perturb import resolved_chunk_size
from explainer.attribution.spec import parse_method
from explainer.capture import captured_activation
from explainer.classifiers import build_classifier, normalisation, require_known
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.machine import has_native_bf16
from explainer.network import Explainer
from explainer.passes import Pass, recorded, totals
from explainer.run_folder import environment

METHODS = ("pami:workers=2", "rise:masks=500", "score_cam", "group_cam", "grad_cam")
"""Those that should cost hardly more than their passes. Fewer masks than RISE's 4000 give the same ratio."""

LIBRARIES = ("grad-cam", "torchcam", "captum", "saliency", "zennit")

Row = dict[str, object]
Call = Callable[[], object]
Attribute = Callable[[Tensor, Tensor], object]
"""(image [B,3,H,W], target [B]) -> maps, in whatever form a library gives them."""


def floor(explanandum: Explanandum, passes: list[Pass], like: Tensor, target_layer: str | None = None) -> Call:
    """A function that makes recorded passes and nothing else, on random images of the size and layout of `like`."""
    most = max((single.images for single in passes), default=0)
    noise = channels_last(like.new_empty(most, *like.shape[1:]).normal_())

    def run() -> None:
        for single in passes:
            bare_pass(explanandum, noise[: single.images], single, target_layer)

    return run


def bare_pass(explanandum: Explanandum, image: Tensor, single: Pass, target_layer: str | None) -> None:
    """Forward, and as many times backward as it was recorded, no further down than to what wanted the gradient."""
    if not single.backward:
        with torch.no_grad():
            explanandum(image)
    elif single.to_image:
        leaf = image.detach().requires_grad_()
        differentiate(explanandum(leaf), leaf, single.backward)
    else:
        with captured_activation(explanandum.model, target_layer or explanandum.target_layer) as captured:
            logits = explanandum(image)
        differentiate(logits, captured.value, single.backward)


def differentiate(logits: Tensor, leaf: Tensor, times: int) -> None:
    """The gradient of one logit an image, several times."""
    for left in reversed(range(times)):
        torch.autograd.grad(logits[:, 0].sum(), leaf, retain_graph=left > 0)


def channels_last(tensor: Tensor) -> Tensor:
    """The layout in which train.py and evaluate.py run."""
    return tensor.contiguous(memory_format=torch.channels_last)


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


def pytorch_grad_cam(kind: str, model: nn.Module, layer: str, chunk: int) -> Attribute:
    """GradCAM, which computes the gradients of all parameters too, or ScoreCAM, as pytorch-grad-cam has them."""
    from pytorch_grad_cam import GradCAM, ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = {"GradCAM": GradCAM, "ScoreCAM": ScoreCAM}[kind](model, [model.get_submodule(layer)])
    cam.batch_size = chunk  # which GradCAM does not read

    def attribute(image: Tensor, target: Tensor) -> object:
        with redirect_stderr(StringIO()):  # Score-CAM's progress bars
            return cam(image, [ClassifierOutputTarget(index) for index in target.tolist()])

    return attribute


def torchcam_grad_cam(model: nn.Module, layer: str, _chunk: int) -> Attribute:
    """Grad-CAM of torchcam, whose maps keep the layer's size."""
    from torchcam.methods import GradCAM

    cam = GradCAM(model, layer)
    return lambda image, target: cam(target.tolist(), model(image))


def torchcam_score_cam(model: nn.Module, layer: str, chunk: int) -> Attribute:
    """Score-CAM of torchcam, likewise."""
    from torchcam.methods import ScoreCAM

    cam = ScoreCAM(model, layer, batch_size=chunk)

    @torch.no_grad()
    def attribute(image: Tensor, target: Tensor) -> object:
        model(image)
        return cam(target.tolist())

    return attribute


def captum_grad_cam(model: nn.Module, layer: str, _chunk: int) -> Attribute:
    """Grad-CAM of captum, likewise."""
    from captum.attr import LayerGradCam

    cam = LayerGradCam(model, model.get_submodule(layer))
    return lambda image, target: cam.attribute(image, target, relu_attributions=True)


def zennit_lrp(model: nn.Module, _layer: str, _chunk: int) -> Attribute:
    """LRP of zennit with the rules that ours has by default, right for torchvision's VGGs and ResNets only."""
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    def attribute(image: Tensor, target: Tensor) -> object:
        with Gradient(model, EpsilonPlusFlat(canonizers=[ResNetCanonizer()])) as gradient:
            return gradient(image, lambda logits: logits * F.one_hot(target, logits.shape[1]))

    return attribute


def saliency_xrai(model: nn.Module, _layer: str, chunk: int) -> Attribute:
    """XRAI of its authors: 100 steps from each of two baselines, the image's lowest and highest value."""
    import saliency.core as saliency

    device = next(model.parameters()).device

    def gradients(inputs: object, call_model_args: int, expected_keys: object = None) -> dict[str, object]:
        leaf = torch.as_tensor(inputs, device=device).float().permute(0, 3, 1, 2).requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf)[:, call_model_args].sum(), leaf)
        return {saliency.INPUT_OUTPUT_GRADIENTS: gradient.permute(0, 2, 3, 1).cpu().numpy()}

    def attribute(image: Tensor, target: Tensor) -> object:
        pictures = image.permute(0, 2, 3, 1).cpu().numpy()
        return [
            saliency.XRAI().GetMask(picture, gradients, call_model_args=index, batch_size=chunk)
            for picture, index in zip(pictures, target.tolist(), strict=True)
        ]

    return attribute


PEERS: dict[str, dict[str, Callable[[nn.Module, str, int], Attribute]]] = {
    "grad_cam": {
        "pytorch-grad-cam GradCAM": partial(pytorch_grad_cam, "GradCAM"),
        "torchcam GradCAM": torchcam_grad_cam,
        "captum LayerGradCam": captum_grad_cam,
    },
    "score_cam": {
        "pytorch-grad-cam ScoreCAM": partial(pytorch_grad_cam, "ScoreCAM"),
        "torchcam ScoreCAM": torchcam_score_cam,
    },
    "lrp": {"zennit EpsilonPlusFlat": zennit_lrp},
    "xrai": {"saliency XRAI": saliency_xrai},
}
"""By our method's name: what other libraries call theirs -> (model, layer, masked images of one pass) -> theirs."""


@dataclass
class Contender:
    """What takes its turn: a method of ours or of another library, after a first call that was watched.

    Args:
        call: makes the maps of the batch.
        passes: of the first call.
        memory: that it took at most, in MiB; None without CUDA.
    """

    call: Call
    passes: list[Pass]
    memory: int | None

    @classmethod
    def watched(cls, model: nn.Module, call: Call, device: str) -> "Contender":
        """Make the first call, which also warms up."""
        before = 0
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        with recorded(model) as passes:
            call()
        return cls(call, passes, (torch.cuda.max_memory_allocated() - before) >> 20 if device == "cuda" else None)


def peers(name: str, method: AttributionMethod, image: Tensor, target: Tensor) -> dict[str, Contender]:
    """The method as other libraries have it, each on its own copy of the model, where its hooks disturb nobody."""
    found: dict[str, Contender] = {}
    plain = image.contiguous()
    for title, make in PEERS.get(name, {}).items():
        model = copy.deepcopy(method.explanandum.model).requires_grad_(True)
        model = model.to(memory_format=torch.contiguous_format)
        layer = getattr(method, "target_layer", method.explanandum.target_layer)
        try:
            attribute = make(model, layer, resolved_chunk_size("auto", image))
        except ImportError as error:
            print(f"{title} is left out: {error}", flush=True)
            continue
        found[title] = Contender.watched(model, partial(attribute, plain, target), image.device.type)
    return found


def alternate(calls: dict[str, Call], rounds: int, least: float, device: str) -> dict[str, list[float]]:
    """Seconds of a call, in each of several rounds in which all calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, least, device))
    return times


def seconds(call: Call, least: float, device: str) -> float:
    """Mean wall time of a call, which is repeated for `least` seconds, the device synchronised."""
    finish = torch.cuda.synchronize if device == "cuda" else torch.cpu.synchronize
    finish()  # what came before
    start, count, passed = time.perf_counter(), 0, 0.0
    while passed < least or not count:
        call()
        finish()
        count += 1
        passed = time.perf_counter() - start
    return passed / count


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


def row(contender: Contender, times: list[float], floor_times: list[float], batch: int) -> Row:
    """The measured columns; without times of a floor, as another library's method has none, some are blank."""
    forward, backward = totals(contender.passes)
    ratios = [time / bare for time, bare in zip(times, floor_times, strict=False)]
    return {
        "batch": batch,
        "forward_per_image": forward / batch,
        "backward_per_image": backward / batch,
        "s_per_image": significant(statistics.median(times) / batch),
        "bare_s_per_image": significant(statistics.median(floor_times) / batch) if ratios else "",
        "ratio": round(statistics.median(ratios), 3) if ratios else "",
        "lowest_ratio": round(min(ratios), 3) if ratios else "",
        "highest_ratio": round(max(ratios), 3) if ratios else "",
        "peak_memory_mib": "" if contender.memory is None else contender.memory,
    }


def significant(number: float) -> float:
    """Rounded to four digits, wherever they begin."""
    return float(f"{number:.4g}")


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
