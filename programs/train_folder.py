"""The folder of a run of train.py: which one, whether there is space, and what is written before any training."""

import json
import os
from pathlib import Path

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from datamodules import ImageDataModule
from explainer.classifiers import build_classifier
from explainer.explanandum import ClassifierCard
from explainer.files import write_whole
from explainer.machine import MachineOptions, is_first_process, say
from explainer.network import Explainer
from explainer.own_classifier import own_name
from explainer.run_folder import RunFolder, choose_folder, environment
from programs.train_options import TrainOptions

CHECKPOINT_COPIES = 3 * 3
"""Best and last checkpoint and the one being written, each with the weights and Adam's two moments."""
FOLDER_VARIABLE = "EXPLAINER_RUN_FOLDER"
"""Tells the processes that Lightning starts for further devices which folder the first one chose."""


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


def is_finished(options: TrainOptions, folder: RunFolder) -> bool:
    """Whether a resumed run has nothing left to do; says so."""
    if not (options.run.resume and folder.summary.is_file()):
        return False
    summary = json.loads(folder.summary.read_text())
    if summary["stopped_early"] and options.run.patience <= summary["patience"]:
        say(f"{folder.path} is finished: it stopped early; choose more --patience to go on.")
    elif not summary["stopped_early"] and options.run.epochs <= summary["epochs"]:
        say(f"{folder.path} is finished; choose more --epochs to go on.")
    else:
        return False
    return True


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
