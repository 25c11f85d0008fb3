"""Train an Explainer: recipe + command line -> data set, explanandum, Explainer -> run folder.

`python train.py --dataset voc --explanandum vgg16 --data_root DIR`
"""

import json
import os
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from pytorch_lightning import seed_everything
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    TQDMProgressBar,
)
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from command_line import TrainOptions, make_datamodule, parse
from datamodules import ImageDataModule
from explainer.callbacks import ExportBest, MaskPanels, MetricsFile, Throughput
from explainer.classifiers import normalisation
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.explanandum_cache import ClassifierRequest, ExplanandumCache
from explainer.machine import is_first_process, make_trainer, precision_of
from explainer.module import ExplainerModule
from explainer.network import Explainer
from explainer.report.panels import stack_panels
from explainer.run_folder import RunFolder, choose_folder, environment, require_space, require_writable

CHECKPOINT_COPIES = 2 * 3
"""Best and last checkpoint, each with the weights and Adam's two moments."""

FOLDER_VARIABLE = "EXPLAINER_RUN_FOLDER"
"""Tells the processes that Lightning starts for further devices which folder the first one chose."""


def main(arguments: list[str] | None = None) -> RunFolder:
    """Run everything; returns the run folder."""
    options, config = parse(sys.argv[1:] if arguments is None else arguments)
    folder = open_folder(options)
    if folder.summary.is_file() and json.loads(folder.summary.read_text())["epochs"] >= options.run.epochs:
        print(f"{folder.path} is finished; choose more --epochs to go on.")
        return folder
    datamodule = prepared_datamodule(options)
    write_down(folder, config, datamodule)
    explanandum = obtain_explanandum(options, datamodule, folder)
    if options.run.stage == "all":
        train_explainer(options, datamodule, explanandum, folder, config)
    return folder


def open_folder(options: TrainOptions) -> RunFolder:
    """The folder of a resumed run, or a new one, the same on all processes of the run."""
    if options.run.resume:
        folder = RunFolder(options.run.resume)
        require_writable(folder.path)
        return folder
    name = options.run.name or f"{options.run.dataset}_{options.run.explanandum}".replace(":", "-").replace("/", "-")
    if FOLDER_VARIABLE in os.environ:
        return RunFolder(Path(os.environ[FOLDER_VARIABLE]))
    if any(variable in os.environ for variable in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS")):
        # All ranks start at once: none can tell the others of a numbered name, so the plain one must be free.
        return shared_folder(options.run.output / name)
    folder = choose_folder(options.run.output, name)
    os.environ[FOLDER_VARIABLE] = str(folder.path)
    return folder


def shared_folder(path: Path) -> RunFolder:
    """A new folder under torchrun or SLURM, where every rank comes here by itself."""
    if is_first_process():
        require_writable(path.parent)
        if path.exists():
            raise FileExistsError(f"{path} is taken; choose another --name, or go on with --resume {path}.")
        path.mkdir()
    return RunFolder(path)


def prepared_datamodule(options: TrainOptions) -> ImageDataModule:
    """The data set, downloaded where it can be and opened; missing files are errors here, before any training."""
    options.data.seed = options.run.seed
    options.data.mean, options.data.std = normalisation(options.run.explanandum)
    datamodule = make_datamodule(options)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


@rank_zero_only
def write_down(folder: RunFolder, config: str, datamodule: ImageDataModule) -> None:
    """What the run is made of."""
    folder.config.write_text(config)
    (folder.path / "environment.txt").write_text(environment())
    (folder.path / "splits.json").write_text(json.dumps(datamodule.split_ids()))


def obtain_explanandum(options: TrainOptions, datamodule: ImageDataModule, folder: RunFolder) -> Explanandum:
    """Stage 1: the classifier of an earlier run with the same settings, or one fine-tuned now."""
    run, data = options.run, options.data
    mean, std = data.mean, data.std
    request = ClassifierRequest(
        ClassifierCard(run.explanandum, datamodule.classes, data.image_size, mean, std, hidden=options.finetune.hidden),
        weights=run.explanandum_weights,
        options=options.finetune,
        seed=run.seed,
        data=[
            run.dataset,
            asdict(options.shapes) if run.dataset == "shapes" else None,
            datamodule.split_ids(),
            data.augment,
        ],
    )
    trainer = partial(
        make_trainer, options.machine, logger=TensorBoardLogger(folder.path, "tensorboard", "explanandum")
    )
    explanandum, metrics = ExplanandumCache(run.output / "explananda").obtain(
        request,
        datamodule.with_batch_size(options.finetune.batch_size),
        lambda callbacks, **more: trainer(callbacks=[*callbacks, progress_bar()], **more),
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


def train_explainer(
    options: TrainOptions, datamodule: ImageDataModule, explanandum: Explanandum, folder: RunFolder, config: str
) -> None:
    """Stage 2: the Explainer against the frozen explanandum."""
    module = make_module(options, explanandum)
    require_space(folder.path, CHECKPOINT_COPIES * sum(4 * weight.numel() for weight in module.network.parameters()))
    export = ExportBest(folder.explainer, {"classes": json.dumps(datamodule.classes)})
    panels = MaskPanels(datamodule.classes, explanandum.card.mean, explanandum.card.std)
    logger = TensorBoardLogger(folder.path, "tensorboard", "explainer", default_hp_metric=False)
    callbacks = [export, panels, *make_callbacks(options, folder)]
    trainer = make_trainer(options.machine, max_epochs=options.run.epochs, callbacks=callbacks, logger=logger)
    log_config(logger, config)
    started = time.perf_counter()
    trainer.fit(module, datamodule=datamodule, ckpt_path=str(folder.last) if folder.last.is_file() else None)
    if trainer.is_global_zero:
        hours = (time.perf_counter() - started) / 3600
        summary = {"epochs": trainer.current_epoch, "steps": trainer.global_step, "hours": round(hours, 4)}
        folder.summary.write_text(json.dumps(summary | {"best_val_loss": export.best}))
        module.network.load_state_dict(folder.load_explainer().state_dict())
        pictures = [picture for _, picture in panels.draw(trainer, module)]
        Image.fromarray(stack_panels(pictures)).save(folder.path / "masks.png")
        say_what_next(folder, trainer.current_epoch, hours, export.best)


def make_module(options: TrainOptions, explanandum: Explanandum) -> ExplainerModule:
    """The Explainer, freshly initialised from the seed, and the explanandum in the precision of the run."""
    run = options.run
    seed_everything(run.seed, workers=True, verbose=False)
    weights = None if run.encoder_weights == "none" else run.encoder_weights
    network = Explainer(explanandum.num_classes, run.encoder, weights, run.output_stride)
    if options.machine.compile:
        network.compile()
    if precision_of(options.machine) == "bf16-mixed":
        explanandum.store_in(torch.bfloat16)
    module = ExplainerModule(network, explanandum, options.loss, options.optimizer, run.seed)
    return module.to(memory_format=torch.channels_last)


def make_callbacks(options: TrainOptions, folder: RunFolder) -> list[Callback]:
    """Early stopping, scalars and checkpoints; Lightning runs the checkpoints after all other callbacks."""
    return [
        EarlyStopping("val_loss", min_delta=0.001, patience=options.run.patience),
        LearningRateMonitor("step"),
        Throughput(),
        MetricsFile(folder.path / "metrics.csv"),
        progress_bar(),
        ModelCheckpoint(
            folder.checkpoints,
            "best",
            monitor="val_loss",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]


def progress_bar() -> Callback:
    """Loss, images/s and time left; in a log file a line now and then instead of a moving bar."""
    return RichProgressBar(leave=True) if sys.stdout.isatty() else TQDMProgressBar(refresh_rate=50)


@rank_zero_only
def log_config(logger: TensorBoardLogger, config: str) -> None:
    """The options as text, and as hyper-parameters beside the best validation loss."""
    logger.experiment.add_text("config", f"```yaml\n{config}\n```")
    logger.log_hyperparams(flatten(yaml.safe_load(config)), {"hp/best_val_loss": float("nan")})


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options -> `group.name: value`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def say_what_next(folder: RunFolder, epochs: int, hours: float, best: float) -> None:
    """Print where everything lies."""
    print(
        f"Trained {epochs} epochs in {hours * 60:.1f} minutes; best validation loss {best:.4f}.\n"
        f"Masks:       {folder.path / 'masks.png'}\n"
        f"TensorBoard: tensorboard --logdir {folder.path}\n"
        f"Evaluate:    python evaluate.py --run {folder.path} --methods explainer grad_cam"
    )


if __name__ == "__main__":
    main()
