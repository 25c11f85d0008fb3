"""Telling how far a run is: a moving bar on a terminal, a line now and then in a log file."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from rich.console import Console
from rich.progress import track

ItemT = TypeVar("ItemT")


def progress(test: str = "evaluating") -> ProgressBar:
    """What suits standard output; `test` says what a Trainer's `test` does."""
    return MovingBar(test) if sys.stdout.isatty() else ProgressLines(test)


def counted(items: Iterable[ItemT], total: int, what: str, seconds: float = 30) -> Iterator[ItemT]:
    """The items, while standard error tells how many are done: a moving bar on a terminal, else a line now and then.

    Args:
        items: any.
        total: how many they are.
        what: is done with them.
        seconds: between two lines.
    """
    if sys.stderr.isatty():
        yield from track(items, what, total, console=Console(stderr=True))
        return
    start = last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last >= seconds and done:
            last = time.monotonic()
            left = round((last - start) / done * (total - done))
            print(f"{what}: {done} of {total}, {left // 60}:{left % 60:02d} left", file=sys.stderr, flush=True)
        yield item


class MovingBar(RichProgressBar):
    """Steps, time left, loss and images/s.

    Args:
        test: what a Trainer's `test` does.
    """

    def __init__(self, test: str = "evaluating") -> None:
        super().__init__(leave=True)
        self.test = test

    @property
    def test_description(self) -> str:
        """Lightning's word would be Testing."""
        return self.test

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Without the name of the logger's folder, which Lightning calls a version number."""
        return {
            name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"
        }  # fmt: skip


class ProgressLines(ProgressBar):
    """A line every half minute, and one at the end of an epoch that took a while.

    Args:
        test: what a Trainer's `test` does.
        seconds: between two lines within an epoch.
        epoch_seconds: since the last line, from which on the end of an epoch gets its own.
    """

    def __init__(self, test: str = "evaluating", seconds: float = 30, epoch_seconds: float = 5) -> None:
        super().__init__()
        self.test = test
        self.seconds = seconds
        self.epoch_seconds = epoch_seconds
        self._last_line = time.monotonic()
        self._epoch_start = self._last_line

    def disable(self) -> None:
        """Nothing moves here, nothing needs to be switched off."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._last_line = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line if it is time."""
        if self._is_due(self.seconds):
            total = self.total_train_batches
            self._print(trainer, self._epoch(trainer), *self._steps(batch_idx + 1, total, self._epoch_start))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line unless epochs are so short that there would be too many."""
        _ = trainer.progress_bar_metrics  # ranks whose clocks differ must not differ in reducing
        if self._is_due(self.epoch_seconds):
            self._print(trainer, self._epoch(trainer), "done")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._last_line = self._epoch_start = time.monotonic()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print a line if it is time."""
        if self._is_due(self.seconds):
            total = sum(trainer.num_test_batches)
            self._print(trainer, self.test, *self._steps(batch_idx + 1, total, self._epoch_start))

    def _is_due(self, seconds: float) -> bool:
        return time.monotonic() - self._last_line >= seconds

    @staticmethod
    def _epoch(trainer: Trainer) -> str:
        return f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"

    @staticmethod
    def _steps(done: int, total: int | float, start: float) -> tuple[str, ...]:
        if not math.isfinite(total):
            return (f"step {done}",)
        left = round((time.monotonic() - start) / done * (total - done))
        return f"step {done} of {total}", f"{left // 60}:{left % 60:02d} left"

    def _print(self, trainer: Trainer, *parts: str) -> None:
        metrics = trainer.progress_bar_metrics  # on every rank: reading them may reduce them over ranks
        if trainer.is_global_zero:
            values = [f"{name} {value:.4g}" for name, value in metrics.items() if name != "v_num"]
            print(", ".join([*parts, *values]), flush=True)
        self._last_line = time.monotonic()


class Stopwatch(Callback):
    """Seconds of training, those before an interruption included."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start: float | None = None

    @property
    def seconds(self) -> float:
        """Up to now."""
        return self._before + (0 if self._start is None else time.monotonic() - self._start)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self._start = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The time so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; what was trained after the checkpoint is trained again and counts once."""
        self._before = state_dict["seconds"]
