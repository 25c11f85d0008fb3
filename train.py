"""Train an Explainer: recipe + command line -> data set, explanandum, Explainer -> run folder.

`python train.py --dataset voc --explanandum vgg16 --data_root DIR`
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from datamodules import ImageDataModule
from explainer.augmentation import fitting_explainer
from explainer.callbacks import ExportBest, MaskPanels, MetricsFile, Throughput
from explainer.checkpoints import PatientStopping, read_checkpoint
from explainer.distillation.lesson import Lesson
from explainer.distillation.prepare import attach, bytes_of_maps, describe, prepare_teachers
from explainer.distillation.teachers import teacher_specs, try_teachers
from explainer.entry import resume_hint, run_command, started_as
from explainer.explanandum import Explanandum
from explainer.files import write_whole
from explainer.machine import is_first_process, make_asking_trainer, make_trainer, precision_of
from explainer.module import ExplainerModule
from explainer.network import Explainer
from explainer.objective import Explain, Objective
from explainer.own_classifier import is_own
from explainer.progress import Stopwatch, progress
from explainer.report.panels import stack_panels
from explainer.rtis import Rtis
from explainer.run_folder import RunFolder, require_space, require_writable
from programs.classifier_options import named_architecture, require_known_classes
from programs.recipes import parse
from programs.train_explanandum import classifier_card, data_name, obtain_explanandum, try_own_classifier
from programs.train_folder import is_finished, needed_space, open_folder, write_down
from programs.train_options import TrainOptions, make_datamodule


def main(arguments: list[str] | None = None) -> RunFolder:
    """Run everything; returns the run folder."""
    options, config = parse(sys.argv[1:] if arguments is None else arguments)
    if options.distill.cache_info:
        print(describe(teacher_folder(options)))
        raise SystemExit(0)
    place = options.run.resume or options.run.output
    require_writable(place)
    # All that can be wrong with names, files and space is found before there is a folder to clean up.
    teacher_specs(options.distill)
    datamodule = prepared_datamodule(options)
    card = classifier_card(options, datamodule)
    if not options.run.resume:
        try_own_classifier(options, card)
    if options.distill.teachers:
        try_teachers(options.distill, card)
        require_writable(teacher_folder(options), "--distill.cache")
        cached = sum(file.stat().st_size for file in teacher_folder(options).glob("*/*"))  # maybe of these maps
        require_space(teacher_folder(options), bytes_of_maps(options.distill, datamodule) - cached, "--distill.cache")
    if not options.run.resume:  # a run that goes on has its files already
        require_space(place, needed_space(options, card))
        if options.finetune.run:
            fitting_explainer(options.finetune.run, card)
    folder = open_folder(options)
    if is_finished(options, folder):
        return folder
    with resume_hint(f"{started_as('train')} --resume {folder.path}{naming_code(options)}"):
        write_down(folder, config, datamodule)
        explanandum = obtain_explanandum(options, datamodule, folder)
        if options.run.stage in ("all", "teachers"):
            prepare_lessons(options, datamodule, explanandum)
        if options.run.stage == "all":
            train_explainer(options, datamodule, explanandum, folder, config)
    return folder


def prepared_datamodule(options: TrainOptions) -> ImageDataModule:
    """The data set, downloaded where it can be and opened; missing files are errors here, before any training."""
    options.data.seed = options.run.seed
    options.data.mean, options.data.std = options.classifier.normalisation(named_architecture(options.run.explanandum))
    options.data.class_names = tuple(options.classifier.class_names)
    datamodule = make_datamodule(options)
    datamodule.prepare_data()
    datamodule.setup("fit")
    require_known_classes(options.classifier, datamodule)
    return datamodule


def teacher_folder(options: TrainOptions) -> Path:
    """Of the kept maps of all teachers, whichever run asked for them."""
    return options.distill.cache or options.run.output / "teachers"


def prepare_lessons(options: TrainOptions, datamodule: ImageDataModule, explanandum: Explanandum) -> None:
    """Compute the maps of the teachers that are not kept yet, and give them to the images."""
    if not options.distill.teachers:
        return

    def trainer() -> Trainer:  # with a strategy of its own: Lightning's can't be used twice
        return make_asking_trainer(options.machine, callbacks=[progress("teacher maps")])

    precision = str(precision_of(options.machine))
    teachers = prepare_teachers(
        *(options.distill, teacher_folder(options), explanandum, datamodule, data_name(options), trainer, precision),
        again=options.run.stage == "teachers",
    )
    if options.run.stage == "all":
        attach(datamodule, teachers, options.distill)


def train_explainer(
    options: TrainOptions, datamodule: ImageDataModule, explanandum: Explanandum, folder: RunFolder, config: str
) -> None:
    """Stage 2: the Explainer against the frozen explanandum."""
    module = make_module(options, explanandum)
    export = ExportBest(folder.explainer, {"classes": json.dumps(datamodule.classes)})
    panels = MaskPanels(datamodule.classes, explanandum.card.mean, explanandum.card.std)
    logger = make_logger(folder, config)
    stopwatch = Stopwatch()
    callbacks = [export, panels, stopwatch, *make_callbacks(options, folder)]
    trainer = make_trainer(options.machine, max_epochs=options.run.epochs, callbacks=callbacks, logger=logger)
    trainer.fit(module, datamodule=datamodule, ckpt_path=str(folder.last) if folder.last.is_file() else None)
    if trainer.is_global_zero:
        hours = stopwatch.seconds / 3600
        module.network.load_state_dict(folder.load_explainer().state_dict())
        pictures = [picture for _, picture in panels.draw(trainer, module)]
        if pictures:  # none if every validation file has become unreadable since
            Image.fromarray(stack_panels(pictures)).save(folder.path / "masks.png")
        summary = {"epochs": trainer.current_epoch, "steps": trainer.global_step, "hours": round(hours, 4)}
        # The last file of a run: it says that all the others are there.
        stopped = {"stopped_early": trainer.should_stop, "patience": options.run.patience}
        write_whole(folder.summary, json.dumps(summary | stopped | {"best_val_loss": export.best}))
        say_what_next(folder, trainer.current_epoch, hours, export.best, naming_code(options))


def make_module(options: TrainOptions, explanandum: Explanandum) -> ExplainerModule:
    """The Explainer, freshly initialised from the seed, and the explanandum in the precision of the run."""
    run = options.run
    seed_everything(run.seed, workers=True, verbose=False)
    weights = None if run.encoder_weights == "none" else run.encoder_weights
    network = Explainer(explanandum.num_classes, run.encoder, weights, run.output_stride, run.decoder_channels)
    if options.machine.compile:
        network.compile()
    if precision_of(options.machine) == "bf16-mixed":
        explanandum.store_in(torch.bfloat16)
    module = ExplainerModule(
        network, explanandum, make_objective(options), options.optimizer, run.seed, make_lesson(options)
    )
    return module.to(memory_format=torch.channels_last)


def make_objective(options: TrainOptions) -> Objective:
    """The loss; pure imitation is judged by the paper's."""
    return Rtis(options.rtis) if options.run.objective == "rtis" else Explain(options.loss)


def make_lesson(options: TrainOptions) -> Lesson | None:
    """What is learned from teachers."""
    alone = options.run.objective == "distill"
    return Lesson(options.distill, alone=alone) if options.distill.teachers else None


def make_callbacks(options: TrainOptions, folder: RunFolder) -> list[Callback]:
    """Early stopping, scalars and checkpoints; Lightning runs the checkpoints after all other callbacks."""
    return [
        PatientStopping("val_loss", min_delta=0.001, patience=options.run.patience),
        LearningRateMonitor("step"),
        Throughput(),
        MetricsFile(folder.metrics),
        progress(),
        ModelCheckpoint(
            folder.checkpoints,
            "best",
            monitor="val_loss",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]


def make_logger(folder: RunFolder, config: str) -> TensorBoardLogger:
    """TensorBoard, with the options as text and as hyper-parameters; a resumed run hides the steps that it repeats."""
    if folder.last.is_file():
        step = read_checkpoint(folder.last, mmap=True)["global_step"]
        return TensorBoardLogger(folder.path, "tensorboard", "explainer", default_hp_metric=False, purge_step=step)
    logger = TensorBoardLogger(folder.path, "tensorboard", "explainer", default_hp_metric=False)
    if is_first_process():
        logger.experiment.add_text("config", f"```yaml\n{config}\n```")
    logger.log_hyperparams(flatten(yaml.safe_load(config)), {"hp/best_val_loss": float("nan")})
    return logger


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options -> `group.name: value`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def naming_code(options: TrainOptions) -> str:
    """What every further command line needs where a user's own code makes the classifier."""
    return f" --explanandum {options.run.explanandum}" if is_own(options.run.explanandum) else ""


def say_what_next(folder: RunFolder, epochs: int, hours: float, best: float, code: str) -> None:
    """Print where everything lies."""
    print(
        f"Trained {epochs} epochs in {hours * 60:.1f} minutes; best validation loss {best:.4f}.\n"
        f"Masks:       {folder.path / 'masks.png'}\n"
        f"TensorBoard: tensorboard --logdir {folder.path}\n"
        f"Evaluate:    {started_as('evaluate')} --run {folder.path}{code} --methods explainer grad_cam\n"
        f"Explain:     {started_as('explain')} IMAGES --run {folder.path}{code}"
    )


if __name__ == "__main__":
    run_command(main)
