"""What goes through a classifier: counted, the cost of a method that depends on no machine, or broken off.

Whatever a method does, masked passes, steps of an optimiser or gradients, it asks the classifier; so here it can be
watched, and no method needs to know.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Pass:
    """One forward pass of a classifier, and what came back.

    Args:
        images: in the batch.
        to_image: whether the gradient was wanted for the images, not only for a layer.
        backward: backward passes through the logits.
    """

    images: int
    to_image: bool
    backward: int = 0


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Pass]]:
    """The passes that go through the model inside the `with` block; the list grows while they are made.

    A backward pass is counted where it begins, at the logits, also if it starts after the block.

    Args:
        model: images [B,3,H,W], its first positional argument, -> logits, a tensor.
    """
    passes: list[Pass] = []

    def forward(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        passes.append(Pass(len(inputs[0]), inputs[0].requires_grad))

    def watch(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
        this = passes[-1]

        def backward(_gradient: Tensor) -> None:
            this.backward += 1

        if logits.requires_grad:
            logits.register_hook(backward)

    handles = [model.register_forward_pre_hook(forward), model.register_forward_hook(watch)]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def totals(passes: Iterable[Pass]) -> tuple[int, int]:
    """How many images went forward, and how many backward; one that went twice counts twice."""
    counted = list(passes)
    return sum(single.images for single in counted), sum(single.images * single.backward for single in counted)


class Stopped(BaseException):
    """Nobody wants the result any longer.

    As with asyncio's CancelledError, no `except Exception` takes it for a failure of the method.
    """


@contextmanager
def stoppable(model: nn.Module, stop: Callable[[], bool]) -> Iterator[None]:
    """Let what asks the model inside the `with` block be broken off by another thread, before its next forward pass.

    Args:
        model: a classifier.
        stop: whether it shall end; asked at the beginning, and before each pass.

    Raises:
        Stopped: once it shall.
    """

    def look(*_: object) -> None:
        if stop():
            raise Stopped

    look()
    handle = model.register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
