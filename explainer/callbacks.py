"""What happens around the training steps: exports, scalars, pictures, speed."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from datamodules.batch import Batch
from explainer.files import write_whole
from explainer.masking import MaskLogits, class_areas, probability, target_mask
from explainer.module import ExplainerModule
from explainer.network import mask_logits
from explainer.report.panels import Panel, draw_panel
from explainer.run_folder import save_explainer

STEP_METRICS = ("loss", "lr-Adam")
"""Single steps' values, which say little about an epoch; the rate at its end has a column of its own."""

STRONGEST = 3
"""Class masks of a panel."""


class ExportBest(Callback):
    """Write `explainer.safetensors` whenever the validation loss is the best so far.

    Args:
        file: where to.
        notes: text for the file's header, e.g. the class names.
    """

    def __init__(self, file: Path, notes: dict[str, str]) -> None:
        self.file = file
        self.notes = notes
        self.best = float("inf")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export if better; log the best loss for the hparams table."""
        loss = float(trainer.callback_metrics.get("val_loss", float("inf")))
        if loss < self.best:
            self.best = loss
            self._export(trainer, pl_module, val_loss=f"{loss:.6f}")
        for logger in trainer.loggers:
            logger.log_metrics({"hp/best_val_loss": self.best}, step=trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Interrupted within the first epoch: unfinished weights are better than none."""
        if isinstance(exception, KeyboardInterrupt) and not self.file.exists():
            self._export(trainer, pl_module, val_loss="unknown: interrupted in the first epoch")

    def _export(self, trainer: Trainer, pl_module: LightningModule, **notes: str) -> None:
        if trainer.is_global_zero:
            save_explainer(
                _explainer_module(pl_module).network, self.file, epoch=str(trainer.current_epoch), **self.notes, **notes
            )

    def state_dict(self) -> dict[str, Any]:
        """The best loss, so that a resumed run does not overwrite a better export."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best loss."""
        self.best = state_dict["best"]


class MetricsFile(Callback):
    """One row of `metrics.csv` per epoch, written at once, so that a kill loses none.

    Args:
        file: where to.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """On resuming, drop the rows of epochs that are about to be repeated."""
        if trainer.is_global_zero and self.file.exists():
            self._write([row for row in self._rows() if int(row["epoch"]) < trainer.current_epoch])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's metrics."""
        metrics = dict(trainer.callback_metrics)  # on every rank: reading them may reduce them over ranks
        if not trainer.is_global_zero:
            return
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: f"{value:.6g}" for name, value in sorted(metrics.items()) if name not in STEP_METRICS}
        row["lr"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}"
        self._write([*self._rows(), row])

    def _rows(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        with self.file.open(newline="") as opened:
            return list(csv.DictReader(opened))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        columns = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
        if rows:
            writer.writeheader()
            writer.writerows(rows)
        write_whole(self.file, text.getvalue())


class Throughput(Callback):
    """Training images per second, all devices together, since the epoch's start; validation does not count."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start, self._images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the mean so far; the last one of an epoch is the epoch's."""
        self._images += len(batch[0]) * trainer.world_size
        self._speed = self._images / (time.perf_counter() - self._start)
        pl_module.log("images/s", self._speed, prog_bar=True, on_step=True, on_epoch=False, logger=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's mean."""
        pl_module.log("images/s", self._speed)


class MaskPanels(Callback):
    """For the same few validation images, each epoch: photograph, m, photograph·m, the strongest class masks.

    With teachers, between them the mask of the image's first class and its teachers' maps.

    Args:
        classes: names of the C classes.
        mean: of the normalised images, to show the photograph again.
        std: likewise.
        images: how many.
    """

    def __init__(
        self, classes: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...], images: int = 8
    ) -> None:
        self.classes = classes
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]
        self.images = images
        self._batch: Batch | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and log the panels."""
        if not trainer.is_global_zero:
            return
        for name, picture in self.draw(trainer, pl_module):
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(f"masks/{name}", picture, trainer.current_epoch, dataformats="HWC")

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> list[tuple[str, np.ndarray]]:
        """(image id, picture uint8 [h,w,3]) for each chosen validation image; none if no image is readable."""
        if self._batch is None:
            # Without a step, as when a resumed run has nothing left to do, the trainer has made no loader.
            loader = trainer.val_dataloaders or trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
            self._batch = loader.preview(self.images)
        if self._batch is None:
            return []
        batch = self._batch._replace(
            image=self._batch.image.to(pl_module.device), labels=self._batch.labels.to(pl_module.device)
        )
        module = _explainer_module(pl_module)
        was_training = module.training
        module.eval()
        with torch.no_grad():
            logits = mask_logits(module.network, batch.image)
            scores = module.explanandum.probabilities(module.explanandum(batch.image)).cpu()
        module.train(was_training)
        target = target_mask(logits, batch.labels).cpu()
        photographs = (batch.image.cpu() * self.std + self.mean).clamp(0, 1).permute(0, 2, 3, 1)
        labels = batch.labels.cpu()
        lessons = self._lessons(logits, labels, batch.teacher_maps, module.lesson.teachers if module.lesson else [])
        strongest = class_areas(logits).argsort(dim=1, descending=True)[:, :STRONGEST]
        shown = zip(strongest.tolist(), _masks(logits, strongest), strict=True)
        masks = [dict(zip(classes, of_classes, strict=True)) for classes, of_classes in shown]
        return [
            (
                batch.image_id[i],
                draw_panel(self._panel(photographs[i], target[i], masks[i], scores[i], labels[i], lessons[i])),
            )
            for i in range(len(batch.image))
        ]

    def _lessons(
        self, logits: MaskLogits, labels: Tensor, maps: Tensor | None, teachers: list[str]
    ) -> list[dict[str, np.ndarray]]:
        """For each image the mask of its first class and the teachers' maps; black tiles for one without a class."""
        if maps is None or not teachers:
            return [{} for _ in labels]
        of_images = maps.split(labels.sum(dim=1).int().tolist())
        first = labels.argmax(dim=1, keepdim=True)
        lessons = []
        for (mask,), of_image, (index,) in zip(_masks(logits, first), of_images, first.tolist(), strict=True):
            there = len(of_image) > 0
            nothing = torch.zeros_like(mask)
            student = mask if there else nothing
            taught = of_image[0].float().cpu() / 255 if there else [nothing] * len(teachers)
            name = self.classes[index] if there else "no class"
            pictures = zip(["mask", *teachers], [student, *taught], strict=True)
            lessons.append({f"{name}: {whose}": picture.numpy() for whose, picture in pictures})
        return lessons

    def _panel(
        self,
        photograph: Tensor,
        target: Tensor,
        masks: dict[int, Tensor],
        scores: Tensor,
        labels: Tensor,
        lesson: dict[str, np.ndarray],
    ) -> Panel:
        return Panel(
            photograph=photograph.numpy(),
            target_mask=target.numpy(),
            class_masks=[mask.numpy() for mask in masks.values()],
            captions=[
                # The asterisk marks a class of the ground truth, as in the paper's Fig. 4.
                f"{self.classes[c]}{'*' if labels[c] else ''} {scores[c]:.2f}"
                for c in masks
            ],
            labels=[name for name, present in zip(self.classes, labels.tolist(), strict=True) if present],
            lesson=lesson,
        )


def _masks(logits: MaskLogits, classes: Tensor) -> Tensor:
    """Of each image the masks of some classes [B,k], on the CPU: [B,k,H,W]."""
    image_index = torch.arange(len(classes), device=classes.device).repeat_interleave(classes.shape[1])
    return probability(logits[image_index, classes.flatten()]).unflatten(0, classes.shape).cpu()


def _explainer_module(module: LightningModule) -> ExplainerModule:
    if not isinstance(module, ExplainerModule):
        raise TypeError(f"This callback belongs to an ExplainerModule, got {type(module).__name__}.")
    return module
