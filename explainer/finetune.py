"""Fine-tuning the classifier on the data set before it is frozen (NN-Explainer, Sec. 4).

B images, C classes.
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
from torchmetrics import MetricCollection

from explainer.augmentation import Augmentation, AugmentName
from explainer.checkpoints import PatientStopping, read_checkpoint
from explainer.classifier_scores import SCORES
from explainer.explanandum import OutputKind
from explainer.feature_cache import FeatureCache
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
        augment: group_cam: blur where the classifier sees nothing of the classes; explainer: add masked images.
        run: Run folder of the Explainer that masks images for --finetune.augment explainer.

    Raises:
        ValueError: for a run without an augmentation that needs it, or the other way round.
    """

    epochs: int = 100
    patience: int = 5
    batch_size: int = 16
    freeze: bool = True
    hidden: int = 4096
    augment: AugmentName = "none"
    run: Path | None = None

    def __post_init__(self) -> None:
        """Refuse half a wish."""
        super().__post_init__()
        if (self.augment == "explainer") != (self.run is not None):
            raise ValueError(
                f"--finetune.augment is {self.augment} and --finetune.run is {self.run}: the augmentation explainer "
                "needs the folder of a run whose Explainer is trained, and no other one takes it."
            )


class ExplanandumModule(LightningModule):
    """A classifier in training, on images or, where all but the head is frozen, on cached features.

    Args:
        model: image (or features) -> logits [B,C].
        trained: the part of `model` that is trained; all else stays in eval mode.
        num_classes: C.
        options: learning rate and schedule.
        seed: with epoch and rank, determines the random numbers of training (dropout).
        output: what the logits mean: it decides the loss and the scores.
        augmentation: what is made of the training images; None for nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        trained: nn.Module,
        num_classes: int,
        options: OptimizerOptions,
        seed: int = 42,
        output: OutputKind = "multi_label",
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._trained = [trained]  # in a list: a part of `model` must not be registered twice
        self.options = options
        self.seed = seed
        self.output = output
        self.augmentation = augmentation
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
        return self.model(_as_the_model_likes(inputs))

    def training_step(self, batch: Any, _batch_index: int) -> Tensor:
        """Cross-entropy (binary if multi-label) of a batch (image or features, labels, …)."""
        inputs, labels = batch[0], batch[1]
        if self.augmentation is not None:
            inputs, labels = self.augmentation(self.model, _as_the_model_likes(inputs), labels)
        loss = self._loss(self(inputs), labels)
        self.train_mean.update(loss.detach(), len(labels))
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


def _as_the_model_likes(inputs: Tensor) -> Tensor:
    """As float32, since features come from the cache in half precision, and images in the fast layout."""
    inputs = inputs.float()
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


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
        augmentation: what is made of the training images; None for nothing.
    """

    model: nn.Module
    head: str
    num_classes: int
    options: FinetuneOptions
    seed: int
    work_folder: Path
    callbacks: list[Callback] = field(default_factory=list)
    output: OutputKind = "multi_label"
    augmentation: Augmentation | None = None

    def module(self, model: nn.Module, trained: nn.Module) -> ExplanandumModule:
        """What trains the part `trained` of `model`, which is the job's or its head."""
        return ExplanandumModule(
            model, trained, self.num_classes, self.options, self.seed, self.output, self.augmentation
        )


def finetune(job: FinetuneJob, datamodule: Any, make_trainer: TrainerFactory) -> tuple[Metrics, Trainer]:
    """Train the classifier in place, keep the weights of the best validation loss, and score it.

    Where everything but the head is frozen, one device is used and no image is changed, each image passes the frozen
    part once and the head is trained on the cached features, in a random order of its own. Interrupted at any time, a
    second call with the same work folder goes on from the last finished epoch.

    Args:
        job: what to train and how.
        datamodule: LightningDataModule that yields `Batch`; its `options.augment` says whether images vary.
        make_trainer: builds a Trainer from the keywords that this function adds.

    Returns:
        `val/…` and, where the data set has a test split, `test/…`: what `SCORES` has for the outputs,
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
        module.load_state_dict(read_checkpoint(best.best_model_path)["state_dict"])
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
    fixed_images = not datamodule.options.augment and job.augmentation is None
    features = None
    if fixed_images and trainer.world_size == 1 and job.options.epochs > 0:
        cache = FeatureCache(job.model, job.head, trainer)
        features = cache.loaders(datamodule, job.options.batch_size, job.seed)
    if features is None:
        return whole, whole, {"datamodule": datamodule}
    return whole, job.module(head, head), features
