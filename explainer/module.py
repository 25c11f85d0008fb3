"""Training the Explainer against the frozen explanandum: one step for training and validation.

B images, C classes, H×W pixels.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score, MultilabelF1Score

from datamodules.batch import VOID, Batch
from explainer.distillation.lesson import Lesson
from explainer.explanandum import Explanandum
from explainer.masking import MaskLogits
from explainer.metrics import ImageMean, agreement
from explainer.network import Explainer, mask_logits
from explainer.objective import Explain, Objective
from explainer.optimizer import OptimizerOptions, adam

Stage = Literal["train", "val"]

# Masked images give lower logits overall, so the authors' code counts a class as recognised from -1 up, not from 0.
MASKED_THRESHOLD = torch.sigmoid(torch.tensor(-1.0)).item()

SEGMENTATION = ("acc", "iou")
AGREEMENT = ("agreement/rank_correlation", "agreement/iou")


def loss_names(terms: Iterable[str]) -> list[str]:
    """What is logged of a loss."""
    each = [f"{stage}/{term}{suffix}" for stage in ("train", "val") for term in terms for suffix in ("", "_weighted")]
    return ["train_loss", "val_loss", *each]


def taught_names(teachers: Sequence[str]) -> list[str]:
    """What is logged of distillation."""
    if not teachers:
        return []
    shared = [f"{stage}/distill{suffix}" for stage in ("train", "val") for suffix in ("", "_weighted")]
    each = [f"{stage}/distill/{teacher}" for stage in ("train", "val") for teacher in teachers]
    return [*shared, *each, *(f"{measure}/{teacher}" for measure in AGREEMENT for teacher in teachers)]


class NonFiniteLossError(ArithmeticError):
    """A loss became infinite or not a number; the message names the terms and the step."""


class ExplainerModule(LightningModule):
    """The Explainer in training.

    The explanandum is a submodule, so that it moves along between devices, but no part of the checkpoints: it does not
    change, and the run folder holds it once.

    Args:
        network: the Explainer.
        explanandum: the frozen classifier.
        objective: what the masks are trained for; NN-Explainer's loss if not given.
        optimizer: learning rate and schedule.
        seed: with epoch and rank, determines every random number of training (dropout and the like).
        lesson: what is learned from teachers, beside the objective or alone; None without them.
    """

    def __init__(
        self,
        network: Explainer,
        explanandum: Explanandum,
        objective: Objective | None = None,
        optimizer: OptimizerOptions | None = None,
        seed: int = 42,
        lesson: Lesson | None = None,
    ) -> None:
        super().__init__()
        if network.num_classes != explanandum.num_classes:
            raise ValueError(
                f"The Explainer has {network.num_classes} class masks, "
                f"the explanandum {explanandum.num_classes} classes."
            )
        self.network = network
        self.explanandum = explanandum
        self.objective = objective or Explain()
        self.optimizer_options = optimizer or OptimizerOptions()
        self.seed = seed
        self.lesson = lesson
        self._imitates = lesson is not None and lesson.alone
        self._epochs = 0.0
        self._unmasked: Tensor | None = None
        self.train_f_score = self._f_score(MASKED_THRESHOLD)
        self.val_f_score = self._f_score(MASKED_THRESHOLD)
        self.unmasked_f_score = self._f_score(0.5)
        names = [*loss_names(self.objective.weights), *(f"segmentation/{name}" for name in SEGMENTATION)]
        names += taught_names(lesson.teachers if lesson else ())
        self.means = nn.ModuleDict({_key(name): ImageMean() for name in names})

    def forward(self, image: Tensor) -> Tensor:
        """Class masks S [B,C,H,W] in [0, 1] of normalised images [B,3,H,W]."""
        return self.network(image).float().sigmoid()

    @property
    def _single_label(self) -> bool:
        return self.explanandum.card.output == "single_label"

    def _f_score(self, threshold: float) -> Metric:
        """Macro F-score; of a single-label explanandum's classes the most probable is recognised, without threshold."""
        classes = self.explanandum.num_classes
        return MulticlassF1Score(classes) if self._single_label else MultilabelF1Score(classes, threshold=threshold)

    def on_train_batch_start(self, _batch: Batch, batch_idx: int) -> None:
        """Note how far training is: not the number of steps, since a run that goes on may have fewer an epoch."""
        self._epochs = self.current_epoch + batch_idx / self.trainer.num_training_batches

    def training_step(self, batch: Batch, _batch_index: int) -> Tensor:
        """Total loss of a batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        """Log the losses and both F-scores of a batch."""
        self._step(batch, "val")
        if self._unmasked is None:
            self._score(self.unmasked_f_score, self.explanandum(batch.image), batch.labels)

    def _step(self, batch: Batch, stage: Stage) -> Tensor:
        batch = batch._replace(image=channels_last(batch.image))
        masks = mask_logits(self.network, batch.image)
        terms: dict[str, Tensor] = {}
        total = batch.image.new_zeros((), dtype=torch.float32)
        if not self._imitates or stage == "val":  # pure imitation is spared the classifier, but judged like the others
            terms = self._judged(batch, masks, stage)
        if not self._imitates:
            total = total + self.objective.total(terms)
        values = self._weighted(terms, stage)
        if self.lesson is not None:
            distilled = self._distill(self.lesson, masks, batch, stage)
            weight = self.lesson.weight_at(self._epochs)
            # Of the validation loss it is no part, or a weight that fades would pass for progress.
            if stage == "train" or self._imitates:
                total = total + weight * distilled
            terms |= {"distill": distilled}
            values |= {f"{stage}/distill": distilled.detach(), f"{stage}/distill_weighted": weight * distilled.detach()}
        self._require_finite(total, terms, stage)
        self._log_losses(total, values, stage, len(batch.image))
        return total

    def _judged(self, batch: Batch, masks: MaskLogits, stage: Stage) -> dict[str, Tensor]:
        """The objective's terms; logs what the masked images and the mask itself tell."""
        found = self.objective.judge(self.explanandum, batch, masks, fresh=stage == "train")
        self._log_f_score(found.masked_logits.detach(), batch.labels, stage)
        if stage == "val" and batch.mask is not None:
            self._log_segmentation(found.target, batch.mask)
        return found.terms

    def _log_segmentation(self, target: Tensor, mask: Tensor) -> None:
        """How the target mask meets the objects' outlines (percent), where there are some: told, never learned from."""
        valid = mask != VOID
        outlined = valid.flatten(1).any(dim=1)
        scores = agreement(target[outlined], mask[outlined] > 0, valid[outlined])
        for name in SEGMENTATION:
            # Also for a batch without outlines: a process that logs less than the others would wait for them for ever.
            self._log_mean(f"segmentation/{name}", 100 * scores[name].mean().nan_to_num(), int(outlined.sum()))

    def _distill(self, lesson: Lesson, masks: MaskLogits, batch: Batch, stage: Stage) -> Tensor:
        """The distillation loss; logs each teacher's own, and in validation how alike student and teachers are."""
        total, own = lesson.losses(masks, batch)
        assert batch.teacher_weights is not None  # `losses` has seen to it
        pairs = (batch.teacher_weights > 0).sum(dim=0).tolist()
        for name, value, count in zip(lesson.teachers, own, pairs, strict=True):
            self._log_mean(f"{stage}/distill/{name}", value.nan_to_num(), count)
        if stage == "val":
            for name, alike in zip(lesson.teachers, lesson.likeness(masks, batch), strict=True):
                for measure, value in zip(AGREEMENT, (alike.rank_correlation, alike.iou), strict=True):
                    self._log_mean(f"{measure}/{name}", value, alike.pairs)
        return total

    def _log_f_score(self, masked_logits: Tensor, labels: Tensor, stage: Stage) -> None:
        f_score = self.train_f_score if stage == "train" else self.val_f_score
        self._score(f_score, masked_logits, labels)
        self.log(f"f_score/{stage}_masked", f_score, on_step=False, on_epoch=True)

    def _score(self, f_score: Metric, logits: Tensor, labels: Tensor) -> None:
        # torchmetrics takes values within [0, 1] for probabilities, and logits may all lie there by chance.
        f_score.update(
            self.explanandum.probabilities(logits), labels.argmax(dim=1) if self._single_label else labels.int()
        )

    def _require_finite(self, total: Tensor, terms: dict[str, Tensor], stage: Stage) -> None:
        if torch.isfinite(total):
            return
        culprits = ", ".join(f"{name} = {term.item()}" for name, term in terms.items() if not torch.isfinite(term))
        raise NonFiniteLossError(
            f"Non-finite {stage} loss at epoch {self.current_epoch}, step {self.global_step}: "
            f"{culprits or 'their sum'}. "
            "The checkpoints of the last good epoch are kept; try a smaller --lr or --precision 32."
        )

    def _weighted(self, terms: dict[str, Tensor], stage: Stage) -> dict[str, Tensor]:
        """The terms as they are logged: plain, and as they weigh in the total."""
        values = {f"{stage}/{name}": term.detach() for name, term in terms.items()}
        return values | {
            f"{stage}/{name}_weighted": self.objective.weights[name] * term.detach() for name, term in terms.items()
        }

    def _log_losses(self, total: Tensor, values: dict[str, Tensor], stage: Stage, images: int) -> None:
        if stage == "train":
            # A name of its own: of a value logged by step and by epoch, Lightning makes three.
            self.log("loss", total.detach(), batch_size=images, prog_bar=True)
        for name, value in (values | {f"{stage}_loss": total.detach()}).items():
            self._log_mean(name, value, images)

    def _log_mean(self, name: str, value: Tensor, count: int) -> None:
        """Log a mean over an epoch, of `count` images (or pairs) in this batch."""
        mean = self.means[_key(name)]
        assert isinstance(mean, ImageMean)
        mean.update(value, count)
        self.log(name, mean, on_step=False, on_epoch=True, batch_size=count, prog_bar=name == "val_loss")

    def on_train_epoch_start(self) -> None:
        """Make every random number of an epoch a function of (seed, epoch, rank), so that a resumed run repeats it."""
        torch.manual_seed(hash((self.seed, self.current_epoch, self.global_rank)) % 2**63)

    def on_validation_epoch_end(self) -> None:
        """Log the F-score on plain images, computed in the first epoch: the explanandum is frozen."""
        if self._unmasked is None:
            self._unmasked = self.unmasked_f_score.compute()
        self.log("f_score/val_unmasked", self._unmasked, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam over the Explainer's parameters."""
        return adam(self.network.parameters(), self.optimizer_options, self.trainer.estimated_stepping_batches)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The Explainer's weights alone."""
        return {
            name: value for name, value in super().state_dict(*args, **kwargs).items() if name.startswith("network.")
        }

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load the Explainer's weights.

        Raises:
            ValueError: if the weights are of another network, e.g. one with another number of classes.
        """
        own = self.state_dict()
        wrong = [name for name, value in own.items() if name not in state_dict or state_dict[name].shape != value.shape]
        if wrong:
            raise ValueError(
                f"The checkpoint does not fit this Explainer of {self.network.num_classes} classes: {wrong[0]} is "
                "missing or of another shape. Was it trained on other classes or with another --encoder?"
            )
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def channels_last(image: Tensor) -> Tensor:
    """The layout in which convolutions are fastest on CPUs with bf16 and on GPUs."""
    return image.contiguous(memory_format=torch.channels_last)


def _key(name: str) -> str:
    """Of a metric within a ModuleDict, which takes no dots: a teacher's options may have some."""
    return name.replace(".", "·")
