"""Stage 1 of train.py: the classifier that is to be explained."""

import json
from dataclasses import asdict
from functools import partial
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from datamodules import ImageDataModule
from explainer.classifier_check import check_classifier
from explainer.classifiers import build_classifier
from explainer.explanandum import ClassifierCard, Explanandum, open_explanandum
from explainer.explanandum_cache import ClassifierRequest, ExplanandumCache
from explainer.keys import digest
from explainer.machine import make_trainer
from explainer.own_classifier import is_own, own_code, own_name
from explainer.run_folder import RunFolder
from programs.classifier_options import require_single_labels
from programs.train_options import TrainOptions


def classifier_card(options: TrainOptions, datamodule: ImageDataModule) -> ClassifierCard:
    """Of the classifier that is to be explained."""
    data, wanted = options.data, options.classifier
    if wanted.output_kind == "single_label":
        require_single_labels(datamodule)
    architecture = own_name(options.run.explanandum)
    return ClassifierCard(
        *(architecture, datamodule.classes, data.image_size, data.mean, data.std),
        output=wanted.output_kind or ("single_label" if datamodule.single_label else "multi_label"),
        hidden=options.finetune.hidden,
        target_layer=wanted.target_layer,
        version=own_code(architecture).version if is_own(architecture) else "",
    )


def try_own_classifier(options: TrainOptions, card: ClassifierCard) -> None:
    """Build what a user's own code makes, and run a batch through it, before anything else is done."""
    weights = options.run.explanandum_weights
    if is_own(card.architecture) and options.finetune.epochs == 0:
        open_explanandum(weights, card)
    elif is_own(card.architecture):
        model, _ = build_classifier(card.architecture, len(card.classes), weights, card.hidden, card.image_size)
        check_classifier(model, len(card.classes), card.image_size, card.target_layer)


def data_name(options: TrainOptions) -> list[Any]:
    """What tells the data set from others."""
    return [options.run.dataset, asdict(options.shapes) if options.run.dataset == "shapes" else None]


def obtain_explanandum(options: TrainOptions, datamodule: ImageDataModule, folder: RunFolder) -> Explanandum:
    """Stage 1: the classifier of an earlier run with the same settings, or one fine-tuned now."""
    run, data = options.run, options.data
    if run.resume and folder.explanandum.is_file():  # the one that the Explainer was trained against so far
        return folder.load_explanandum()
    versions = datamodule.image_versions
    request = ClassifierRequest(
        classifier_card(options, datamodule),
        weights=run.explanandum_weights,
        options=options.finetune,
        seed=run.seed,
        data=[
            *data_name(options),
            # Not the test images: they may be there or not, and nothing is learned from them.
            {split: ids for split, ids in datamodule.split_ids().items() if split != "test"},
            datamodule.label_version,
            data.augment,
            *([digest(versions)] if versions else []),
        ],
    )
    trainer = partial(
        make_trainer,
        options.machine,
        patient=bool(options.distill.teachers),  # whose images may take some processes longer than others
        logger=TensorBoardLogger(folder.path, "tensorboard", "explanandum"),
    )
    explanandum, metrics = ExplanandumCache(run.output / "explananda").obtain(
        request,
        datamodule.with_batch_size(options.finetune.batch_size),
        trainer,
        folder.path / "explanandum.training",
        refit=run.refit,
    )
    report_explanandum(explanandum, metrics, folder)
    return explanandum


@rank_zero_only
def report_explanandum(explanandum: Explanandum, metrics: dict[str, float], folder: RunFolder) -> None:
    """Print its scores and keep a copy in the run folder, which stands alone when the cache is gone."""
    explanandum.save(folder.explanandum, metrics=json.dumps(metrics), fingerprint=explanandum.fingerprint)
    print(
        f"Explanandum {explanandum.card.architecture}: "
        + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
    )
