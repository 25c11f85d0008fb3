"""Train an Explainer: recipe + command line -> data set, explanandum, Explainer -> run folder.

`python train.py --dataset voc --explanandum vgg16 --data_root DIR`
"""

import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
)
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from classifier_options import named_architecture, require_known_classes, require_single_labels
from command_line import TrainOptions, make_datamodule, parse
from datamodules import ImageDataModule
from explainer.augmentation import fitting_explainer
from explainer.callbacks import ExportBest, MaskPanels, MetricsFile, Throughput
from explainer.checkpoints import PatientStopping, read_checkpoint
from explainer.classifier_check import check_classifier
from explainer.classifiers import build_classifier
from explainer.distillation.lesson import Lesson
from explainer.distillation.prepare import attach, bytes_of_maps, describe, prepare_teachers
from explainer.distillation.teachers import teacher_specs, try_teachers
from explainer.entry import resume_hint, run_command, started_as
from explainer.explanandum import ClassifierCard, Explanandum, open_explanandum
from explainer.explanandum_cache import ClassifierRequest, ExplanandumCache
from explainer.files import write_whole
from explainer.keys import digest
from explainer.machine import MachineOptions, is_first_process, make_asking_trainer, make_trainer, precision_of
from explainer.module import ExplainerModule
from explainer.network import Explainer
from explainer.objective import Explain, Objective
from explainer.own_classifier import is_own, own_code, own_name
from explainer.progress import Stopwatch, progress
from explainer.report.panels import stack_panels
from explainer.rtis import Rtis
from explainer.run_folder import (
    RunFolder,
    choose_folder,
    environment,
    require_space,
    require_writable,
)

CHECKPOINT_COPIES = 3 * 3
"""Best and last checkpoint and the one being written, each with the weights and Adam's two moments."""

FOLDER_VARIABLE = "EXPLAINER_RUN_FOLDER"
"""Tells the processes that Lightning starts for further devices which folder the first one chose."""


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


def is_finished(options: TrainOptions, folder: RunFolder) -> bool:
    """Whether a resumed run has nothing left to do; says so."""
    if not (options.run.resume and folder.summary.is_file()):
        return False
    summary = json.loads(folder.summary.read_text())
    if summary["stopped_early"] and options.run.patience <= summary["patience"]:
        rank_zero_print(f"{folder.path} is finished: it stopped early; choose more --patience to go on.")
    elif not summary["stopped_early"] and options.run.epochs <= summary["epochs"]:
        rank_zero_print(f"{folder.path} is finished; choose more --epochs to go on.")
    else:
        return False
    return True


rank_zero_print = rank_zero_only(print)


def open_folder(options: TrainOptions) -> RunFolder:
    """The folder of a resumed run, or a new one, the same on all processes of the run."""
    if options.run.resume:
        return RunFolder(options.run.resume)
    classifier = own_name(options.run.explanandum)
    name = options.run.name or f"{options.run.dataset}_{classifier}".replace(":", "-").replace("/", "-")
    if starts_by_itself(options.machine):
        # All ranks start at once: none can tell the others of a numbered name, so the plain one must be free.
        return shared_folder(options.run.output / name)
    if FOLDER_VARIABLE in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":
        return RunFolder(Path(os.environ[FOLDER_VARIABLE]))
    folder = choose_folder(options.run.output, name)
    os.environ[FOLDER_VARIABLE] = str(folder.path)
    return folder


def starts_by_itself(machine: MachineOptions) -> bool:
    """Whether another program, such as torchrun, SLURM or a person at each of several nodes, starts this rank."""
    slurm = int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return "TORCHELASTIC_RUN_ID" in os.environ or slurm or machine.num_nodes > 1


def shared_folder(path: Path) -> RunFolder:
    """A new folder under torchrun or SLURM, where every rank comes here by itself."""
    if is_first_process() and os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")) == "0":
        if path.exists():
            raise FileExistsError(f"{path} is taken; choose another --name, or go on with --resume {path}.")
        path.mkdir()
    return RunFolder(path)


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


def needed_space(options: TrainOptions, card: ClassifierCard) -> int:
    """Bytes that the run will write at most; building both networks without memory also checks their names."""
    run, classes = options.run, len(card.classes)
    with torch.device("meta"):
        classifier, head = build_classifier(card.architecture, classes, "none", card.hidden, card.image_size)
        network = Explainer(classes, run.encoder, None, run.output_stride, run.decoder_channels)
    trained = classifier.get_submodule(head) if options.finetune.freeze else classifier
    explanandum = 2 * _size(classifier) + CHECKPOINT_COPIES * _size(trained)  # in the cache and in the run folder
    return explanandum + (1 + CHECKPOINT_COPIES) * _size(network) * (run.stage == "all")


def _size(network: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


@rank_zero_only
def write_down(folder: RunFolder, config: str, datamodule: ImageDataModule) -> None:
    """What the run is made of; a resumed run adds where it goes on."""
    write_whole(folder.config, config)
    earlier = folder.environment.read_text() + "\nresumed\n" if folder.environment.is_file() else ""
    write_whole(folder.environment, earlier + environment())
    write_whole(folder.path / "splits.json", json.dumps(datamodule.split_ids()))


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
