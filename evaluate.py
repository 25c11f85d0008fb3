"""Evaluate attribution methods: methods × tables -> CSV, Markdown, LaTeX and figures.

`python evaluate.py --run RUN --methods explainer grad_cam --tables all --split test --output DIR`, or without a run
`python evaluate.py --dataset NAME --explanandum NAME --explanandum_weights FILE --methods grad_cam rise --tables all`.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader

from datamodules import ImageDataModule
from datamodules.batch import Batch
from datamodules.sample import Split
from explainer.entry import resume_hint, run_command
from explainer.evaluation import Evaluation, Job, MapCache, Records
from explainer.evaluation.maps import MapSource
from explainer.evaluation.options import make_table
from explainer.evaluation.reporting import report, report_pictures
from explainer.evaluation.tables import GalleryTable
from explainer.machine import (
    MachineOptions,
    from_first_process,
    is_first_process,
    make_asking_trainer,
    precision_of,
    say,
)
from explainer.own_classifier import own_name
from explainer.progress import progress
from explainer.report.figures import write_figures
from explainer.report.page import write_page
from explainer.report.page_compare import differing
from explainer.report.page_data import PER_IMAGE, distinct_names, open_results
from explainer.report.tensorboard import log_evaluation
from explainer.run_folder import require_writable
from programs.evaluate_options import EvaluateOptions, Wishes, parse_evaluation
from programs.evaluate_plan import make_plan, make_setting, rows_of
from programs.evaluate_subject import Subject, open_subject


def main(arguments: list[str] | None = None) -> Path:
    """Make the tables; returns their folder, of several runs that of their page."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options, wishes, machine = parse_evaluation(arguments)
    command = shlex.join(["python", "evaluate.py", *arguments])
    if options.runs:
        return evaluate_runs(options, wishes, machine, command)
    output = evaluate(options, wishes, machine, command)
    show(options, output)
    if options.report:
        write_report([output], output / "report")
    return output


def evaluate_runs(options: EvaluateOptions, wishes: Wishes, machine: MachineOptions, command: str) -> Path:
    """The tables of several runs, and a page with all of them; returns its folder."""
    names = distinct_names([run.resolve() for run in options.runs])
    every = []
    for run, name in zip(options.runs, names, strict=True):
        output, log = (folder / name if folder else None for folder in (options.output, options.tensorboard))
        every.append(replace(options, run=run, runs=(), output=output, tensorboard=log))
    folders = [evaluate(own, wishes, machine, command) for own in every]
    further = from_first_process(partial(not_in_galleries, folders, options.differing))
    if further:
        say(f"\n{len(further)} image(s) in which the runs differ most come into their galleries.")
    for own in every if further else ():
        add_to_gallery(own, wishes, machine, further)
    for own, folder in zip(every, folders, strict=True):
        show(own, folder)
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
    plan = make_plan(options, wishes, machine, subject, command)
    evaluation = scored(plan.jobs, options, machine, subject)
    if is_first_process():
        report(evaluation, plan, output)
    return output


@rank_zero_only
def show(options: EvaluateOptions, output: Path) -> None:
    """Figures, and what TensorBoard reads, of the tables and the gallery as they are now."""
    if options.figures:
        write_figures(output)
    if options.tensorboard:
        print(f"In TensorBoard: {log_evaluation(output, options.tensorboard)}")


def not_in_galleries(folders: list[Path], most: int) -> list[str]:
    """Of the images in which runs differ most those that a gallery lacks, before any was added."""
    results = open_results(folders)
    galleries = [{str(row["image"]) for row in one.table(f"{GalleryTable.name}{PER_IMAGE}")} for one in results]
    return [name for name in differing(results, most) if not all(name in gallery for gallery in galleries)]


def add_to_gallery(options: EvaluateOptions, wishes: Wishes, machine: MachineOptions, further: list[str]) -> None:
    """Give the gallery of a run that was evaluated further images, as far as its data set has them."""
    subject = open_subject(options, machine)
    names = [name for name in subject.datamodule.dataset(options.split).image_ids if name in further]
    if names:
        table = make_table(GalleryTable.name, wishes.table, make_setting(options, wishes, subject))
        evaluation = scored(rows_of(table, wishes, subject), options, machine, subject, names)
        if is_first_process():
            report_pictures(evaluation, output_of(options))


def scored(
    jobs: Sequence[Job],
    options: EvaluateOptions,
    machine: MachineOptions,
    subject: Subject,
    further: Sequence[str] = (),
) -> Evaluation:
    """The rows, scored; what is scored already is not computed again.

    Args:
        jobs: rows to make.
        options: which split, and where scores and maps are kept.
        machine: that computes.
        subject: what is examined.
        further: the only images to be scored, which come to those that each table has scored; all if there are none.
    """
    if precision_of(machine) == "32-true":
        torch.backends.cudnn.allow_tf32 = False  # PyTorch's default rounds convolutions to 10 bits on recent GPUs
    output = output_of(options)
    evaluation = Evaluation(
        subject.explanandum,
        jobs,
        MapSource(MapCache((options.maps or output / "maps") if options.keep_maps else None)),
        Records(output / "scores"),
        subject.datamodule.dataset(options.split).image_ids,
        subject.precision,
        further,
    ).to(memory_format=torch.channels_last)
    trainer = make_asking_trainer(machine, callbacks=[progress()])
    with resume_hint("the same command: what is scored is not computed again"):
        trainer.test(evaluation, datamodule=OneSplit(subject.datamodule, options.split, further), verbose=False)
    return evaluation


class OneSplit(LightningDataModule):
    """A split, or a part of it, as what `Trainer.test` tests.

    Its loader is made when Lightning asks for it: only then is it known which share of the images is this process's.

    Args:
        data: the data set.
        split: of it.
        names: of the only images that are wanted; all if there are none.
    """

    def __init__(self, data: ImageDataModule, split: Split, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.data = data
        self.split: Split = split
        self.names = names
        data.dataset(split)  # a missing split is an error now

    def test_dataloader(self) -> DataLoader[Batch]:
        """This process's share of the images, in order."""
        if not self.names:
            return self.data.dataloader(self.split)
        assert self.trainer is not None  # it asks
        # Where there are more processes than images, several take the same one: all must come to the end together.
        first = self.trainer.global_rank % len(self.names)
        return self.data.part(self.split, self.names[first :: self.trainer.world_size])


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
