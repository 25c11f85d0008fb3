"""Memory of the Explainer by the number of classes: of a training step, and of explaining.

`python benchmarks/classes.py --classes 20 80 1000 --output benchmarks/classes.csv`

"at once" enlarges the masks of all classes to the image's size, as is done up to 100 classes; "in parts" enlarges only
those that are looked at, a few at a time, as is done beyond (`explainer.masking.CoarseLogits`). Masks and losses are
the same. Memory is what a call takes at most on top of networks and images: of CUDA's allocator on a GPU, else of the
whole process as Linux counts it, each figure from a process of its own.
"""

import argparse
import gc
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import torch
from floor import Row, significant  # beside this file, where Python looks first
from methods import report, write
from torch import Tensor

from datamodules.batch import Batch
from explainer import network
from explainer.attribution import LearnedExplainer
from explainer.classifiers import build_classifier
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.module import ExplainerModule
from explainer.network import Explainer

WAYS = ("at once", "in parts")
TASKS = ("training step", "explain")
MIB = 2**20


def build(classes: int, options: argparse.Namespace) -> tuple[ExplainerModule, Batch]:
    """Networks with random weights, and a batch whose images have one class each."""
    torch.manual_seed(0)
    model, _ = build_classifier(options.architecture, classes, "none", image_size=options.size)
    names = tuple(f"class {index}" for index in range(classes))
    card = ClassifierCard(options.architecture, names, options.size, (0.0,) * 3, (1.0,) * 3, "single_label")
    module = ExplainerModule(Explainer(classes, options.encoder), Explanandum(model, card)).to(options.device)
    module.log = lambda *_, **__: None  # type: ignore[method-assign] # there is no Trainer
    image = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    labels = torch.eye(classes, device=options.device)[torch.arange(options.batch) % classes]
    return module.train(), Batch(image, labels, tuple(map(str, range(options.batch))))


def training_step(module: ExplainerModule, batch: Batch) -> None:
    """Forward and backward; Adam's memory does not depend on the number of classes."""
    module.training_step(batch, 0).backward()


def explain(module: ExplainerModule, batch: Batch) -> Tensor:
    """The masks of the classes in the images."""
    return LearnedExplainer(module.explanandum, module.network).present_class_maps(batch.image, batch.labels)[0]


def measure(classes: int, task: str, way: str, options: argparse.Namespace) -> Row:
    """One row, measured in this process."""
    network.FEW_CLASSES = classes if way == "at once" else 0
    module, batch = build(classes, options)
    call = {"training step": training_step, "explain": explain}[task]
    small = batch._replace(image=batch.image[:1], labels=batch.labels[:1], image_id=batch.image_id[:1])
    explain(module, small)  # libraries load themselves at the first call
    start = time.perf_counter()
    memory = peak(lambda: call(module, batch), options.device)
    return {
        "classes": classes,
        "task": task,
        "masks": way,
        "batch": options.batch,
        "size": options.size,
        "encoder": options.encoder,
        "device": options.device,
        "peak_mib": round(memory / MIB),
        "seconds": significant(time.perf_counter() - start),
    }


def peak(call: Callable[[], object], device: str) -> int:
    """Bytes that a call takes at most, on top of what is there."""
    gc.collect()  # or what goes meanwhile would be taken off
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest value so far
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Bytes of this process in memory: now (VmRSS), or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", type=int, default=[20, 80, 1000])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--architecture", default="resnet18", help="of the classifier")
    parser.add_argument("--encoder", default="resnet18", help="of the Explainer")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=8, help="images of one call")
    parser.add_argument("--output", type=Path, help="CSV file; notes on the machine go beside it, as .txt")
    options = parser.parse_args(arguments)
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        parser.error("Without a GPU the memory is read from Linux's /proc, which is not here.")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Print the rows as they come, and write them, with the machine beside them."""
    options = parse(arguments)
    rows: list[Row] = []
    for classes, task, way in product(options.classes, options.tasks, options.ways):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            rows += report([fresh.submit(measure, classes, task, way, options).result()])
        write(rows, options.output)


if __name__ == "__main__":
    main()
