"""Fine-tuning the classifier on the data set before it is frozen (NN-Explainer, Sec. 4).

B images, C classes, F features at the head's input.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAveragePrecision,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)

from explainer.checkpoints import PatientStopping
from explainer.explanandum import OutputKind
from explainer.losses import classification_loss
from explainer.metrics import ImageMean
from explainer.optimizer import OptimizerOptions, adam

Metrics = dict[str, float]


@dataclass
class FinetuneOptions(OptimizerOptions):
    """How the classifier is trained; the defaults are the authors' for VGG-16.

    Args:
        lr: Learning rate of Adam.
        schedule: Constant as the authors, or a cosine down to zero at the last epoch's end.
        warmup_steps: Steps over which the learning rate rises linearly at first.
        epochs: At most so many; 0 takes the weights as they are, head included.
        patience: Epochs without a better validation loss before it stops.
        batch_size: Images a step.
        freeze: Train the fresh head only.
        hidden: Width of the two hidden layers of a VGG's fresh head.
    """

    epochs: int = 100
    patience: int = 5
    batch_size: int = 16
    freeze: bool = True
    hidden: int = 4096


class MultiLabelScores(MetricCollection):
    """F-score, precision and recall at probability .5, and mAP, macro over classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            {
                "f_score": MultilabelF1Score(num_classes),
                "precision": MultilabelPrecision(num_classes),
                "recall": MultilabelRecall(num_classes),
                "mAP": MultilabelAveragePrecision(num_classes),
            }
        )

    def update(self, logits: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        """Add images by their logits and multi-hot labels, [B,C] both."""
        super().update(logits.sigmoid(), labels.int())  # logits within [0, 1] would be taken for probabilities


class SingleLabelScores(MetricCollection):
    """Top-1 accuracy over images; F-score, precision and recall, macro over the classes that occur or are predicted."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "f_score": MulticlassF1Score(num_classes),
                "precision": MulticlassPrecision(num_classes),
                "recall": MulticlassRecall(num_classes),
            }
        )

    def update(self, logits: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        """Add images by their logits and labels with exactly one 1, [B,C] both."""
        super().update(logits, labels.argmax(dim=1))


SCORES: dict[OutputKind, Callable[[int], MetricCollection]] = {
    "multi_label": MultiLabelScores,
    "single_label": SingleLabelScores,
}


class ExplanandumModule(LightningModule):
    """A classifier in training, on images or, where all but the head is frozen, on cached features.

    Args:
        model: image (or features) -> logits [B,C].
        trained: the part of `model` that is trained; all else stays in eval mode.
        num_classes: C.
        options: learning rate and schedule.
        seed: with epoch and rank, determines the random numbers of training (dropout).
        output: what the logits mean: it decides the loss and the scores.
    """

    def __init__(
        self,
        model: nn.Module,
        trained: nn.Module,
        num_classes: int,
        options: OptimizerOptions,
        seed: int = 42,
        output: OutputKind = "multi_label",
    ) -> None:
        super().__init__()
        self.model = model
        self._trained = [trained]  # in a list: a part of `model` must not be registered twice
        self.options = options
        self.seed = seed
        self.output = output
        scores = SCORES[output](num_classes)
        self.val_scores = scores.clone("val/")
        self.test_scores = scores.clone("test/")
        self.train_mean, self.val_mean, self.test_mean = ImageMean(), ImageMean(), ImageMean()
        self.train()  # Lightning takes the modes as it finds them

    def train(self, mode: bool = True) -> Self:
        """Switch the trained part only: frozen BatchNorm statistics must not drift."""
        super().train(False)
        self.training = mode
        self._trained[0].train(mode)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [B,C] of images [B,3,H,W] or of features."""
        inputs = inputs.float()  # cached features come in half precision, which a float32 head does not take
        return self.model(inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs)

    def training_step(self, batch: Any, _batch_index: int) -> Tensor:
        """Cross-entropy (binary if multi-label) of a batch (image or features, labels, …)."""
        loss = self._loss(self(batch[0]), batch[1])
        self.train_mean.update(loss.detach(), len(batch[1]))
        self.log("train_loss", self.train_mean, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, _batch_index: int) -> None:
        """Log loss and scores on validation images."""
        self._score(batch, "val", self.val_scores)

    def test_step(self, batch: Any, _batch_index: int) -> None:
        """Log loss and scores on test images."""
        self._score(batch, "test", self.test_scores)

    def _score(self, batch: Any, stage: str, scores: MetricCollection) -> None:
        logits = self(batch[0]).float()
        loss = self._loss(logits, batch[1])
        mean = self.val_mean if stage == "val" else self.test_mean
        mean.update(loss, len(batch[1]))
        self.log(f"{stage}_loss", mean, prog_bar=True, on_epoch=True)
        scores.update(logits, batch[1])
        self.log_dict(scores, on_epoch=True, batch_size=len(batch[1]))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = classification_loss(logits.float(), labels, self.output)
        if not torch.isfinite(loss):
            raise ArithmeticError(
                f"Non-finite classification loss of the explanandum at epoch {self.current_epoch}, step "
                f"{self.global_step}; try a smaller --finetune.lr or --precision 32."
            )
        return loss

    def on_train_epoch_start(self) -> None:
        """Make every random number of an epoch a function of (seed, epoch, rank)."""
        torch.manual_seed(hash((self.seed, self.current_epoch, self.global_rank)) % 2**63)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam over the trained part."""
        return adam(self._trained[0].parameters(), self.options, self.trainer.estimated_stepping_batches)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Weights and statistics of the trained part alone."""
        return self._trained[0].state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load the trained part."""
        return self._trained[0].load_state_dict(state_dict, strict=strict, assign=assign)


TrainerFactory = Callable[..., Trainer]


@dataclass
class FinetuneJob:
    """One classifier to be fine-tuned.

    Args:
        model: the classifier, its head fresh.
        head: name of the head within it.
        num_classes: C.
        options: how to train.
        seed: of the order of images and of dropout.
        work_folder: keeps the checkpoints while training runs; a killed run goes on from there.
        callbacks: further Lightning callbacks, e.g. a progress bar.
        output: what the logits shall mean.
    """

    model: nn.Module
    head: str
    num_classes: int
    options: FinetuneOptions
    seed: int
    work_folder: Path
    callbacks: list[Callback] = field(default_factory=list)
    output: OutputKind = "multi_label"

    def module(self, model: nn.Module, trained: nn.Module) -> ExplanandumModule:
        """What trains the part `trained` of `model`, which is the job's or its head."""
        return ExplanandumModule(model, trained, self.num_classes, self.options, self.seed, self.output)


def finetune(job: FinetuneJob, datamodule: Any, make_trainer: TrainerFactory) -> tuple[Metrics, Trainer]:
    """Train the classifier in place, keep the weights of the best validation loss, and score it.

    Where everything but the head is frozen, one device is used and nothing is augmented, each image passes the frozen
    part once and the head is trained on the cached features, in a random order of its own. Interrupted at any time, a
    second call with the same work folder goes on from the last finished epoch.

    Args:
        job: what to train and how.
        datamodule: LightningDataModule that yields `Batch`; its `options.augment` says whether images vary.
        make_trainer: builds a Trainer from the keywords that this function adds.

    Returns:
        `val/…` and, where the data set has a test split, `test/…`: what `MultiLabelScores` or `SingleLabelScores` have,
        in [0, 1]; and the Trainer.
    """
    best = ModelCheckpoint(
        dirpath=job.work_folder, filename="best", monitor="val_loss", save_last=True, enable_version_counter=False,
        save_on_train_epoch_end=True,
    )  # fmt: skip
    stopping = PatientStopping("val_loss", patience=job.options.patience)
    trainer = make_trainer(max_epochs=job.options.epochs, callbacks=[best, stopping, *job.callbacks])
    whole, module, loaders = _what_to_train(job, datamodule, trainer)
    last = job.work_folder / "last.ckpt"
    trainer.fit(module, **loaders, ckpt_path=str(last) if last.is_file() else None)
    if best.best_model_path:  # empty after 0 epochs
        module.load_state_dict(torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"])
    scores = dict(trainer.validate(whole, datamodule=datamodule, verbose=False)[0])
    if datamodule.is_available("test"):
        scores |= trainer.test(whole, datamodule=datamodule, verbose=False)[0]
    return {name: float(value) for name, value in scores.items() if "/" in name}, trainer


def _what_to_train(
    job: FinetuneJob, datamodule: Any, trainer: Trainer
) -> tuple[ExplanandumModule, ExplanandumModule, dict[str, Any]]:
    """The whole classifier; what is trained of it, itself or its head on cached features; and the loaders for that."""
    head = job.model.get_submodule(job.head)
    if not job.options.freeze:
        whole = job.module(job.model, job.model)
        return whole, whole, {"datamodule": datamodule}
    job.model.requires_grad_(False)
    head.requires_grad_(True)
    whole = job.module(job.model, head)
    one_device_and_fixed_images = trainer.world_size == 1 and not datamodule.options.augment
    worthwhile = one_device_and_fixed_images and job.options.epochs > 0
    features = FeatureCache(job, trainer).loaders(datamodule) if worthwhile else None
    if features is None:
        return whole, whole, {"datamodule": datamodule}
    return whole, job.module(head, head), features


class FeatureCache:
    """The head's inputs for every training and validation image, computed once by the frozen part of the classifier."""

    def __init__(self, job: FinetuneJob, trainer: Trainer) -> None:
        self.job = job
        self.device = trainer.strategy.root_device
        self.autocast = trainer.precision_plugin.forward_context

    def loaders(self, datamodule: Any) -> dict[str, Any] | None:
        """Loaders of (features, labels) for `Trainer.fit`; None if the model isn't head(features)."""
        datamodule.prepare_data()
        datamodule.setup("fit")
        splits = {}
        for split in ("train", "val"):
            computed = self._compute(datamodule.dataloader(split))
            if computed is None:
                return None
            splits[split] = TensorDataset(*computed)
        batch_size = self.job.options.batch_size
        sampler: DistributedSampler[Any] = DistributedSampler(
            splits["train"], num_replicas=1, rank=0, seed=self.job.seed
        )
        return {
            # A generator of its own: a loader draws a number each epoch, which would shift those of dropout.
            "train_dataloaders": DataLoader(splits["train"], batch_size, sampler=sampler, generator=torch.Generator()),
            "val_dataloaders": DataLoader(splits["val"], batch_size=256),
        }

    @torch.no_grad()
    def _compute(self, loader: Any) -> tuple[Tensor, Tensor] | None:
        model = self.job.model.to(self.device).eval()
        head = model.get_submodule(self.job.head)
        features: list[Tensor] = []
        labels: list[Tensor] = []
        for batch in loader:
            image = batch.image.to(self.device).contiguous(memory_format=torch.channels_last)
            with self.autocast():
                inputs, outputs = _through(model, head, image)
                if inputs is None or (not features and not _is_last(head, inputs, outputs)):
                    return None
            features.append(_compact(inputs).cpu())
            labels.append(batch.labels)
        return torch.cat(features), torch.cat(labels)


def _compact(features: Tensor) -> Tensor:
    """As float16, if they fit: half the memory of float32, and finer than the bf16 that autocast hands to the head."""
    half = features.half()
    return half if half.isfinite().all() else features.float()


def _through(model: nn.Module, head: nn.Module, image: Tensor) -> tuple[Tensor | None, Tensor]:
    """The head's input (None if the head isn't called as a module) and the model's output."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        output = model(image)
    finally:
        handle.remove()
    return (seen[0] if len(seen) == 1 else None), output


def _is_last(head: nn.Module, inputs: Tensor, outputs: Tensor) -> bool:
    alone = head(inputs)
    return alone.shape == outputs.shape and torch.equal(alone, outputs)
