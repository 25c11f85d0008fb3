"""Checkpoints that survive a kill at any moment."""

import errno
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.plugins.io import TorchCheckpointIO


class WholeFileCheckpoints(TorchCheckpointIO):
    """Write a checkpoint beside its place and rename it, so that the old one is there until the new one is whole.

    Lightning's own way goes through the system's temporary folder, often another disk, from where it is copied.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write, whole or not at all.

        Raises:
            OSError: if the disk is full or the folder not writable.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp")  # the same name each time: a kill leaves at most one behind
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint, temporary)
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
            temporary.unlink(missing_ok=True)
            raise OSError(
                getattr(error, "errno", None) or errno.EIO,
                f"Cannot write the checkpoint {path} ({error}); the one before it is kept. Free some space",
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read as `read_checkpoint` does, whatever Lightning asks for."""
        return read_checkpoint(path)


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; what is not a tensor, number or text is not unpacked, let alone run.

    Args:
        path: of the file.
        mmap: read tensors only when they are used.

    Raises:
        ValueError: if there is anything else in it.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))
    except UnpicklingError as error:
        raise ValueError(
            f"{path} is no checkpoint of ours: it holds more than tensors, numbers and texts, which could run code "
            "when it is unpacked. Begin a new run."
        ) from error


class PatientStopping(EarlyStopping):
    """Early stopping with this run's patience, not that of the interrupted run that it goes on with."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count and the best value only."""
        super().load_state_dict(state_dict | {"patience": self.patience})


class StayStopped(Callback):
    """A run that was killed after early stopping had decided trains no further epoch when it is resumed."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Repeat the decision from the restored count."""
        if any(stopping.wait_count >= stopping.patience for stopping in _early_stopping(trainer)):
            trainer.should_stop = True


def _early_stopping(trainer: Trainer) -> list[Any]:
    return list(trainer.early_stopping_callbacks)
