"""Images per second of the Explainer, in every form in which it can be run, against the encoder alone as the floor.

`python benchmarks/inference.py --encoders resnet50 --batches 1 8 --threads 1 2 --output benchmarks/inference.csv`

From RGB images to class masks of the images' size: PyTorch, torch.compile, torch.export's archive and onnxruntime, in
float32 and in half precision. The floor is the network's encoder, in PyTorch, on the same images in the same precision:
the part that the choice of the encoder decides. What the Explainer adds are the spatial pyramid, the enlargement of the
C masks and their sigmoid.

All forms take turns, so that a change of the machine's speed hits all of them; images per second are of the median
round, the ratio is the median of the rounds' ratios of seconds. Weights are random, the images photographs.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from floor import Row, alternate, channels_last, significant  # beside this file, where Python looks first
from methods import photographs, report, write
from torch import nn

from explainer.classifiers import IMAGENET_MEAN, IMAGENET_STD
from explainer.explanandum import ClassifierCard
from explainer.export.formats import SUFFIXES, Format, Run, exported, opened, require_onnx
from explainer.export.formats import write as write_model
from explainer.export.model import DTYPES, MaskModel, Precision
from explainer.machine import has_native_bf16
from explainer.network import Explainer

ENGINES = ("pytorch", "compile", "export", "onnxruntime")
FLOOR = "encoder alone"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
ARCHIVES: dict[str, Format] = {"export": "torch", "onnxruntime": "onnx"}


@dataclass
class Form:
    """One way to run the Explainer, or its encoder.

    Args:
        engine: what runs it.
        precision: of the weights.
        run: images [B,3,H,W] -> anything.
    """

    engine: str
    precision: Precision
    run: Run

    @property
    def name(self) -> str:
        """Unique among the forms."""
        return f"{self.engine} {self.precision}"


def build(encoder: str, options: argparse.Namespace) -> tuple[MaskModel, ClassifierCard]:
    """The model with random weights, and the card of a classifier that might be explained by it."""
    torch.manual_seed(0)
    names = tuple(f"class {index}" for index in range(options.classes))
    card = ClassifierCard("none", names, options.size, IMAGENET_MEAN, IMAGENET_STD)
    return MaskModel(Explainer(options.classes, encoder), card).eval(), card


def precise(model: MaskModel, precision: Precision, device: str) -> MaskModel:
    """A model of its own, in the layout in which train.py runs, with weights of that precision."""
    fresh = MaskModel(Explainer.from_recipe(model.network.recipe), ClassifierCard("", (), 0, (0.0,) * 3, (1.0,) * 3))
    fresh.load_state_dict(model.state_dict())
    fresh.network.to(DTYPES[precision])
    return fresh.eval().to(device).to(memory_format=torch.channels_last)


def forms(model: MaskModel, card: ClassifierCard, threads: int, options: argparse.Namespace) -> Iterator[Form]:
    """All that were asked for and that this machine can run."""
    for precision in options.precisions:
        plain = precise(model, precision, options.device)
        yield Form(FLOOR, precision, partial(encode, plain.network.deeplab.encoder, DTYPES[precision]))
        for engine in options.engines:
            if engine == "pytorch":
                yield Form(engine, precision, plain)
            elif engine == "compile":
                torch._dynamo.reset()  # a compiled model keeps the number of threads that it was compiled with
                yield Form(engine, precision, torch.compile(precise(model, precision, options.device)))
            elif options.device == "cpu" and not (engine == "onnxruntime" and precision == "bf16"):
                yield Form(engine, precision, archived(model, card, ARCHIVES[engine], precision, threads))


def encode(encoder: nn.Module, dtype: torch.dtype, image: torch.Tensor) -> object:
    """The floor."""
    return encoder(image.to(dtype))


def archived(model: MaskModel, card: ClassifierCard, format: Format, precision: Precision, threads: int) -> Run:
    """Exported, written and read again."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{SUFFIXES[format]}"
        write_model(exported(model, card, precision), format, file, {})
        return opened(format, file, threads)


def measure(encoder: str, threads: int, options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of each batch size."""
    torch.set_num_threads(threads)
    model, card = build(encoder, options)
    contenders = list(forms(model, card, threads, options))
    for batch in options.batches:
        images = channels_last(photographs(card, batch, options.device))
        calls = {form.name: partial(form.run, images) for form in contenders}
        with torch.inference_mode():
            for call in calls.values():
                call()
                call()  # compilers look twice at a shape
            times = alternate(calls, options.rounds, options.seconds, options.device)
        head: Row = {"encoder": encoder, "size": options.size, "classes": options.classes, "device": options.device}
        head |= {"threads": threads, "batch": batch}
        yield [head | row(form, times, batch) for form in contenders]


def row(form: Form, times: dict[str, list[float]], batch: int) -> Row:
    """The measured columns."""
    own, floor = times[form.name], times[f"{FLOOR} {form.precision}"]
    ratios = [time / bare for time, bare in zip(own, floor, strict=True)]
    return {
        "engine": form.engine,
        "precision": form.precision,
        "images_per_s": significant(batch / statistics.median(own)),
        "lowest": significant(batch / max(own)),
        "highest": significant(batch / min(own)),
        "times_the_encoder": round(statistics.median(ratios), 3),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; what this machine can't do ends it here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["resnet50"], help="as train.py's --encoder")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="images of one call")
    parser.add_argument("--threads", nargs="+", type=int, default=[torch.get_num_threads()])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPES), default=["32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for which, at least, a call is repeated in a round")
    parser.add_argument("--output", type=Path, help="CSV file; notes on the machine go beside it, as .txt")
    options = parser.parse_args(arguments)
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if "bf16" in options.precisions and not has_native_bf16(options.device == "cuda"):
        parser.error("This machine only emulates bfloat16, which is slower than float32; leave it out of --precisions.")
    if "onnxruntime" in options.engines and options.device == "cpu":
        try:
            require_onnx()
        except ImportError as error:
            parser.error(f"{error} Or leave onnxruntime out of --engines.")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Print the rows as they come, and write them, with the machine beside them."""
    options = parse(arguments)
    rows: list[Row] = []
    for encoder in options.encoders:
        for threads in options.threads:
            for measured in measure(encoder, threads, options):
                rows += report(measured)
                write(rows, options.output, LIBRARIES)


if __name__ == "__main__":
    main()
