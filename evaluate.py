"""Evaluate attribution methods: methods × tables -> CSV, Markdown, LaTeX and figures.

`python evaluate.py --run RUN --methods explainer grad_cam --tables all --split test --output DIR`, or without a run
`python evaluate.py --dataset NAME --explanandum NAME --explanandum_weights FILE --methods grad_cam rise --tables all`.
"""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader

from datamodules import ImageDataModule
from datamodules.batch import Batch
from datamodules.sample import Split
from evaluate_options import EvaluateOptions, Wishes, parse_evaluation
from evaluate_plan import make_plan
from evaluate_subject import open_subject
from explainer.entry import resume_hint, run_command
from explainer.evaluation import Evaluation, MapCache, Records
from explainer.evaluation.maps import MapSource
from explainer.evaluation.reporting import report
from explainer.machine import MachineOptions, make_asking_trainer, precision_of
from explainer.own_classifier import own_name
from explainer.progress import progress
from explainer.report.figures import write_figures
from explainer.report.page import write_page
from explainer.report.page_data import distinct_names
from explainer.report.tensorboard import log_evaluation
from explainer.run_folder import require_writable


def main(arguments: list[str] | None = None) -> Path:
    """Make the tables; returns their folder, of several runs that of their page."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options, wishes, machine = parse_evaluation(arguments)
    command = shlex.join(["python", "evaluate.py", *arguments])
    if options.runs:
        return evaluate_runs(options, wishes, machine, command)
    output = evaluate(options, wishes, machine, command)
    if options.report:
        write_report([output], output / "report")
    return output


def evaluate_runs(options: EvaluateOptions, wishes: Wishes, machine: MachineOptions, command: str) -> Path:
    """The tables of several runs, and a page with all of them; returns its folder."""
    names = distinct_names([run.resolve() for run in options.runs])
    folders = []
    for run, name in zip(options.runs, names, strict=True):
        output, log = (folder / name if folder else None for folder in (options.output, options.tensorboard))
        own = replace(options, run=run, runs=(), output=output, tensorboard=log)
        folders.append(evaluate(own, wishes, machine, command))
    page = (options.output or Path("evaluation") / "_and_".join(names).replace("/", "-")) / "report"
    write_report(folders, page)
    return page


@rank_zero_only
def write_report(folders: list[Path], output: Path) -> None:
    """The page, and where it is."""
    print(f"Page: {write_page(folders, output)}")


def evaluate(options: EvaluateOptions, wishes: Wishes, machine: MachineOptions, command: str) -> Path:
    """The tables of one run or classifier; returns their folder."""
    subject = open_subject(options, machine)
    output = output_of(options)
    require_writable(output)
    if precision_of(machine) == "32-true":
        torch.backends.cudnn.allow_tf32 = False  # PyTorch's default rounds convolutions to 10 bits on recent GPUs
    plan = make_plan(options, wishes, machine, subject, command)
    maps = MapCache((options.maps or output / "maps") if options.keep_maps else None)
    evaluation = Evaluation(
        subject.explanandum,
        plan.jobs,
        MapSource(maps),
        Records(output / "scores"),
        subject.datamodule.dataset(options.split).image_ids,
        subject.precision,
    ).to(memory_format=torch.channels_last)
    trainer = make_asking_trainer(machine, callbacks=[progress()])
    with resume_hint("the same command: what is scored is not computed again"):
        trainer.test(evaluation, datamodule=OneSplit(subject.datamodule, options.split), verbose=False)
    if trainer.is_global_zero:
        report(evaluation, plan, output)
        if options.figures:
            write_figures(output)
        if options.tensorboard:
            print(f"In TensorBoard: {log_evaluation(output, options.tensorboard)}")
    return output


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


def output_of(options: EvaluateOptions) -> Path:
    """Where the tables go."""
    if options.output is not None:
        return options.output
    if options.run is not None:
        return options.run / "evaluation"
    return Path("evaluation") / f"{options.dataset}_{own_name(str(options.explanandum))}".replace(":", "-").replace(
        "/", "-"
    )


if __name__ == "__main__":
    run_command(main)
