"""Seconds per image of the whole training step against the floor: bare forward + backward of the two networks.

`python benchmarks/train_step.py --output benchmarks/train_step.csv`

The floor runs the same networks on the same tensors in the same precision: the Explainer forward and backward from the
mean of its output, the explanandum forward and backward to the input on twice as many images. What the step adds are
the masks, the losses, the metrics' update, the finiteness check and Adam.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from datamodules.batch import Batch
from explainer.classifiers import build_classifier
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.machine import has_native_bf16
from explainer.module import ExplainerModule
from explainer.network import Explainer
from explainer.run_folder import environment

CLASSES = tuple(f"class {index}" for index in range(20))


def build(architecture: str, size: int, bf16: bool) -> ExplainerModule:
    """The networks of the paper's set-up with random weights, in the layout and storage that train.py uses."""
    torch.manual_seed(0)
    model, _ = build_classifier(architecture, len(CLASSES), "none", image_size=size)
    explanandum = Explanandum(model, ClassifierCard(architecture, CLASSES, size, (0.0,) * 3, (1.0,) * 3))
    if bf16:
        explanandum.store_in(torch.bfloat16)
    module = ExplainerModule(Explainer(len(CLASSES)), explanandum).to(memory_format=torch.channels_last)
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign] # no Trainer here
    return module.train()


def autocast(device: str, bf16: bool) -> AbstractContextManager[None]:
    """The precision plugin's context."""
    return torch.autocast(device, torch.bfloat16, enabled=bf16)


def whole_step(module: ExplainerModule, batch: Batch, bf16: bool) -> Callable[[], None]:
    """Forward, masks, both masked passes, losses, backward, Adam."""
    optimizer = torch.optim.Adam(module.network.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        with autocast(batch.image.device.type, bf16):
            loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def floor(module: ExplainerModule, batch: Batch, bf16: bool) -> Callable[[], None]:
    """The two networks and nothing else."""
    image = batch.image.contiguous(memory_format=torch.channels_last)
    twice = torch.cat([image, image]).requires_grad_()

    def step() -> None:
        with autocast(image.device.type, bf16):
            _backward(module.network(image))
            _backward(module.explanandum(twice))
        module.network.zero_grad()
        twice.grad = None

    return step


def _backward(output: Tensor) -> None:
    output.float().mean().backward()


def seconds(step: Callable[[], None], repeats: int, device: str) -> list[float]:
    """Wall time of each repeat after one warm-up, the device synchronised."""
    times = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat:
            times.append(time.perf_counter() - start)
    return times


def measure(architecture: str, bf16: bool, options: argparse.Namespace) -> dict[str, object]:
    """One row of the table; step and floor alternate, so that a change of the machine's speed hits both."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = build(architecture, options.size, bf16).to(device)
    labels = torch.zeros(options.batch, len(CLASSES), device=device)
    labels[torch.arange(options.batch), torch.arange(options.batch) % len(CLASSES)] = 1
    image = torch.randn(options.batch, 3, options.size, options.size, device=device)
    batch = Batch(image, labels, ("",) * options.batch)
    steps = {"step": whole_step(module, batch, bf16), "floor": floor(module, batch, bf16)}
    times: dict[str, list[float]] = {"step": [], "floor": []}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name] += seconds(step, options.repeats, device)
    step_time, floor_time = (statistics.median(times[name]) / options.batch for name in ("step", "floor"))
    spread = (max(times["step"]) - min(times["step"])) / options.batch
    return {
        "explanandum": architecture,
        "precision": "bf16" if bf16 else "fp32",
        "step_s_per_image": round(step_time, 5),
        "step_range": round(spread, 5),
        "floor_s_per_image": round(floor_time, 5),
        "overhead": round(step_time / floor_time, 3),
    }


def main() -> None:
    """Print the table, and write it beside a description of the machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3, help="measured calls a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--architectures", nargs="+", default=["vgg16", "resnet50"])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    precisions = [False, True] if has_native_bf16(torch.cuda.is_available()) else [False]
    rows = []
    for architecture in options.architectures:
        for bf16 in precisions:
            rows.append(measure(architecture, bf16, options))
            print(rows[-1], flush=True)
    if options.output:
        with options.output.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        options.output.with_suffix(".txt").write_text(environment())


if __name__ == "__main__":
    main()
