"""Evaluate attribution methods on a trained run: methods × metrics -> tables.

`python evaluate.py --run RUN --methods explainer grad_cam --tables segmentation --split test --output DIR`
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader

from command_line import HelpFormatter, Parser, make_datamodule, parse, to_dataclass
from datamodules import ImageDataModule
from datamodules.batch import Batch
from datamodules.sample import Split
from explainer.attribution.spec import method_rows, parse_method
from explainer.entry import run_command
from explainer.evaluation import SegmentationTable, VoidRule
from explainer.explanandum import Explanandum
from explainer.machine import MachineOptions, make_trainer, precision_of
from explainer.progress import progress
from explainer.report.tables import markdown, write_table
from explainer.run_folder import RunFolder, require_writable

TABLES = ("segmentation",)


@dataclass
class EvaluateOptions:
    """What is evaluated.

    Args:
        run: Folder that train.py made.
        methods: Attribution methods, each as NAME or NAME:option=value,option=value.
        tables: Tables to make.
        split: Split of the run's data set.
        output: Folder of the tables; RUN/evaluation if not given.
        void: Leave the ground truth's void pixels out, or count them as object (as the authors' code does).
        limit: Use only so many images, evenly spaced over the split.
        batch_size: Images a batch, on each device; the run's if not given.
        data_root: Folder of the data set, if it has moved since the run.
        workers: Processes that load images; the run's if not given.
    """

    run: Path
    methods: list[str]
    tables: list[str]
    split: Literal["train", "val", "test"] = "test"
    output: Path | None = None
    void: VoidRule = "ignore"
    limit: int | None = None
    batch_size: int | None = None
    data_root: Path | None = None
    workers: int | None = None


def main(arguments: list[str] | None = None) -> Path:
    """Make the tables; returns their folder."""
    options, machine = parse_evaluation(sys.argv[1:] if arguments is None else arguments)
    folder = RunFolder(options.run)
    folder.read_config()  # its error says what a run folder is
    specs = {text: parse_method(text) for text in options.methods}
    output = options.output or folder.path / "evaluation"
    explanandum = folder.load_explanandum()
    datamodule = run_datamodule(options, folder, explanandum)
    resources: dict[str, Any] = {"workers": datamodule.options.workers}
    if any(spec.takes("network") for spec in specs.values()):
        resources["network"] = folder.load_explainer()
    methods = {text: spec.build(explanandum, **resources) for text, spec in specs.items()}
    require_writable(output)
    if precision_of(machine) == "bf16-mixed":
        explanandum.store_in(torch.bfloat16)
    if precision_of(machine) == "32-true":
        torch.backends.cudnn.allow_tf32 = False  # PyTorch's default rounds convolutions to 10 bits on recent GPUs
    table = SegmentationTable(explanandum, methods, options.void).to(memory_format=torch.channels_last)
    trainer = make_trainer(machine, inference_mode=False, callbacks=[progress()])
    trainer.test(table, datamodule=OneSplit(datamodule, options.split), verbose=False)
    report(table, output)
    return output


class ListMethods(argparse.Action):
    """Print what --methods takes, and exit: like --help, whatever else is on the command line."""

    def __init__(self, option_strings: list[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=keywords["help"])

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Exit with status 0."""
        for row in method_rows():
            name, *facts = row.items()
            print(name[1])
            print("".join(f"    {title + ':':18}{fact}\n" for title, fact in facts if fact), end="")
        parser.exit()


class OneSplit(LightningDataModule):
    """A split as what `Trainer.test` tests.

    Its loader is made when Lightning asks for it: only then is it known which share of the images is this process's.

    Args:
        data: the data set.
        split: of it.
    """

    def __init__(self, data: ImageDataModule, split: Split) -> None:
        super().__init__()
        self.data = data
        self.split: Split = split
        data.dataset(split)  # a missing split is an error now

    def test_dataloader(self) -> DataLoader[Batch]:
        """This process's share of the images, in order."""
        return self.data.dataloader(self.split)


def parse_evaluation(arguments: list[str]) -> tuple[EvaluateOptions, MachineOptions]:
    """Command line -> options; float32 unless another precision is asked for: a result must not depend on hardware."""
    parser = Parser(
        prog="evaluate.py",
        usage="python evaluate.py --run RUN [--methods NAME ...] [options]",
        description="Evaluate attribution methods on a trained run.",
        formatter_class=HelpFormatter,
    )
    parser.add_class_arguments(EvaluateOptions, None, skip={"methods", "tables"})
    parser.add_argument(
        "--methods",
        nargs="+",
        type=str,
        default=["explainer", "grad_cam"],
        help="Attribution methods, each as NAME or NAME:option=value,option=value.",
    )
    parser.add_argument("--list_methods", action=ListMethods, help="Print every method, its paper and cost, and exit.")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="Tables to make.")
    parser.add_class_arguments(MachineOptions, None, default={"precision": "32-true"}, skip={"compile"})
    namespace = parser.parse_args(arguments)
    return to_dataclass(EvaluateOptions, namespace), to_dataclass(MachineOptions, namespace)


def run_datamodule(options: EvaluateOptions, folder: RunFolder, explanandum: Explanandum) -> ImageDataModule:
    """The run's data set, its images prepared as the explanandum wants them."""
    trained, _ = parse(["--config", str(folder.config)])
    card = explanandum.card
    changes = {"batch_size": options.batch_size, "data_root": options.data_root, "workers": options.workers}
    changes[f"limit_{options.split}"] = options.limit
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    data = replace(trained.data, mean=card.mean, std=card.std, image_size=card.image_size, **given)
    datamodule = make_datamodule(replace(trained, data=data))
    datamodule.prepare_data()
    if datamodule.classes != card.classes:
        raise ValueError(
            f"The run's explanandum has {len(card.classes)} classes, {options.data_root or data.data_root} has "
            f"{datamodule.num_classes}, or other names; evaluate on the data set that the run was trained on."
        )
    return datamodule


@rank_zero_only
def report(table: SegmentationTable, output: Path) -> None:
    """Write the table and print it."""
    if not table.rows or not table.rows[0]["images"]:
        raise ValueError("No image of the split has both a class and a segmentation mask; choose another --split.")
    write_table(table.rows, output / "segmentation")
    print(markdown(table.rows))
    if table.total_skipped:
        print(
            "Not in the table: " + ", ".join(f"{count} {why}" for why, count in table.left_out.items() if count) + "."
        )
    print(f"Written to {output / 'segmentation'}.csv, .json and .md")


if __name__ == "__main__":
    run_command(main)
