"""Fine-tuned classifiers are kept: the same data, architecture and settings never train twice."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import seed_everything
from torch import nn

from explainer.augmentation import make_augmentation
from explainer.classifiers import build_classifier, trained_classifier
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.finetune import FinetuneJob, FinetuneOptions, Metrics, TrainerFactory, finetune
from explainer.keys import digest, digest_of_network
from explainer.machine import is_first_process
from explainer.own_classifier import is_own
from explainer.progress import progress
from explainer.run_folder import RunFolder
from explainer.weights import read_metadata


@dataclass(frozen=True)
class ClassifierRequest:
    """Which classifier is wanted.

    Args:
        card: architecture, classes, preprocessing, and what the outputs mean.
        weights: what the training starts from: imagenet, none, or a file.
        options: how it is trained.
        seed: of its training.
        data: whatever else decides what is learned, e.g. data set name, image ids, augmentation; JSON-serialisable.
    """

    card: ClassifierCard
    weights: str
    options: FinetuneOptions
    seed: int
    data: Any

    @property
    def key(self) -> str:
        """Hash of all of it; weights and a run's Explainer count by their content, not by their path.

        The layer that CAM methods read makes no other classifier.
        """
        card = replace(self.card, target_layer="").facts()
        parts = [card, self._weights, _decisive(self.options), self.seed, self.data]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]

    @property
    def _weights(self) -> str:
        """Hash of a file, and of what a user's own code gives the classifier; else their name."""
        file = Path(self.weights)
        if file.is_file():
            return hashlib.sha256(file.read_bytes()).hexdigest()
        if is_own(self.card.architecture):
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                return digest_of_network(_built(self)[0])
        return self.weights


def _decisive(options: FinetuneOptions) -> dict[str, Any]:
    """The options as the key has them: the augmentation only where there is one, or kept classifiers would be lost."""
    decisive = asdict(options)
    augment, run = decisive.pop("augment"), decisive.pop("run")
    if augment != "none":
        decisive["augment"] = augment
    if run is not None:
        network = RunFolder(run).load_explainer()
        decisive["run"] = digest(network.recipe, digest_of_network(network))
    return decisive


class ExplanandumCache:
    """One file per classifier in a folder.

    Args:
        folder: the cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, request: ClassifierRequest) -> Path:
        """Where the classifier lies, or would."""
        name = request.card.architecture.replace(":", "-").replace("/", "-")
        return self.folder / f"{name}_{request.key}.safetensors"

    def obtain(
        self,
        request: ClassifierRequest,
        datamodule: Any,
        make_trainer: TrainerFactory,
        work: Path,
        *,
        refit: bool = False,
    ) -> tuple[Explanandum, Metrics]:
        """The classifier from the cache, or fine-tuned now and put there, with its scores.

        Args:
            request: which classifier.
            datamodule: yields its images.
            make_trainer: as for `finetune`.
            work: folder of this run alone for the checkpoints; a training that was killed goes on from there.
            refit: train even if the cache has it.
        """
        file = self.file(request)
        if refit or work.exists() or not file.is_file():  # a work folder: a training (a refit, perhaps) to go on with
            self._train(request, file, datamodule, make_trainer, work)
        explanandum = Explanandum.load(file).reading(request.card.target_layer)
        return explanandum, json.loads(read_metadata(file)["metrics"])

    @staticmethod
    def _train(
        request: ClassifierRequest, file: Path, datamodule: Any, make_trainer: TrainerFactory, work: Path
    ) -> None:
        card, options = request.card, request.options
        seed_everything(request.seed, workers=True, verbose=False)
        model, head = _built(request)
        augmentation = make_augmentation(options.augment, options.run, model, card)
        job = FinetuneJob(
            model, head, len(card.classes), options, request.seed, work, [progress()], card.output, augmentation
        )
        metrics, trainer = finetune(job, datamodule, make_trainer)
        if is_first_process():
            Explanandum(model, replace(card, target_layer="")).save(file, metrics=json.dumps(metrics))
            shutil.rmtree(work, ignore_errors=True)
        trainer.strategy.barrier("explanandum cached")


def _built(request: ClassifierRequest) -> tuple[nn.Module, str]:
    """The classifier that is to be trained, its head fresh; of one that is to stay as it is, the head too is read."""
    card, weights = request.card, request.weights
    arguments = (card.architecture, len(card.classes), weights, request.options.hidden, card.image_size)
    if request.options.epochs > 0 or weights == "none":
        return build_classifier(*arguments)
    with torch.device("meta"):  # costs nothing
        _, head = build_classifier(card.architecture, len(card.classes), "none", card.hidden, card.image_size)
    return trained_classifier(*arguments), head
