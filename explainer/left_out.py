"""Telling which image files a run goes on without (`--on_bad_image skip`)."""

from collections.abc import Sequence

from pytorch_lightning import Callback, LightningModule, Trainer

SHOWN = 10
"""Names in a message; more would hide the rest of the output."""


class UnreadableImages(Callback):
    """A line at the end of an epoch about the image files left out, the first time and when there are more."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """By now the epoch's training images have been read as well."""
        self._tell(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for test images."""
        self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        ask = getattr(getattr(trainer, "datamodule", None), "unreadable", None)
        if ask is None:  # no data set of ours, e.g. cached features; their images are told of when they are scored
            return
        names = ask()  # on all ranks together
        if names != self._told and trainer.is_global_zero:
            print(describe(names), flush=True)
        self._told = names


def describe(names: Sequence[str]) -> str:
    """`2 unreadable images left out: a.jpg, b.jpg`."""
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} unreadable image{'s'[: len(names) != 1]} left out: {shown}"
