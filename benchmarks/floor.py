"""What is timed: a call that was watched once, and the floor, nothing but the passes that it made.

B images, H×W pixels.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explainer.capture import captured_activation
from explainer.explanandum import Explanandum
from explainer.passes import Pass, recorded, totals

Row = dict[str, object]
Call = Callable[[], object]


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
