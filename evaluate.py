"""Evaluate attribution methods: methods × tables -> CSV, Markdown, LaTeX and figures.

`python evaluate.py --run RUN --methods explainer grad_cam --tables all --split test --output DIR`, or without a run
`python evaluate.py --dataset NAME --explanandum NAME --explanandum_weights FILE --methods grad_cam rise --tables all`.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from command_line import TrainOptions, make_datamodule, parse
from datamodules import ImageDataModule, ShapesDataModule
from datamodules.batch import Batch
from datamodules.sample import Split
from evaluate_options import ALL, EvaluateOptions, Wishes, parse_evaluation
from explainer.attribution import AttributionMethod
from explainer.attribution.spec import parse_method
from explainer.classifiers import normalisation
from explainer.entry import run_command
from explainer.evaluation import Evaluation, Job, MapCache, NamedMethod, Records, named_method
from explainer.evaluation.maps import MapSource
from explainer.evaluation.options import TABLES, Setting, make_table
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables import SplitFacts, Table
from explainer.evaluation.tables.ablation import NAME as ABLATION
from explainer.evaluation.tables.ablation import Ablation, ablation_rows
from explainer.evaluation.tables.base import Files
from explainer.explanandum import ClassifierCard, Explanandum, OutputKind, open_explanandum
from explainer.machine import MachineOptions, make_trainer, precision_of
from explainer.network import Explainer
from explainer.progress import progress
from explainer.report.evaluation import write_figures, write_files
from explainer.report.tables import markdown, write_csv
from explainer.run_folder import RunFolder, environment, require_writable, write_whole

PAPERS_CLASSES = ("bottle", "car", "cat", "dog", "person")
"""NN-Explainer, Table 1."""
FREQUENT_CLASSES = 5
SHOWN = 3
"""Failures of a method on the console; all are in failures.csv."""


Ablated = list[tuple[Ablation, dict[Table, list[Job]]]]
"""For each ablation the tables that it looks at, with a row for each variant."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A classifier under examination, with its images.

    Args:
        name: for tables that compare several.
        explanandum: the classifier.
        datamodule: its images, prepared as it wants them.
        precision: of the computation, as Lightning names it.
        network: the trained Explainer, if there is a run.
        training_hours: that it took.
    """

    name: str
    explanandum: Explanandum
    datamodule: ImageDataModule
    precision: str
    network: Explainer | None = None
    training_hours: float | None = None
    built: dict[tuple[str, str], NamedMethod] = field(default_factory=dict, init=False)

    def build(self, text: str, explanandum: Explanandum) -> AttributionMethod:
        """The method that a text names, for this classifier or a changed one."""
        return parse_method(text).build(explanandum, **self.resources(text))

    def method(self, text: str, classifier: str = "") -> NamedMethod:
        """The same, as a row of a table; built once, since its key takes a look at all weights."""
        if (text, classifier) not in self.built:
            resources = self.resources(text)
            self.built[text, classifier] = named_method(text, self.explanandum, self.precision, classifier, **resources)
        return self.built[text, classifier]

    def resources(self, text: str) -> dict[str, Any]:
        """What a method is handed besides the classifier."""
        if needs_network(text) and self.network is None:
            raise ValueError(f"The method '{text}' is trained; name a run that did so with --run.")
        return {"workers": self.datamodule.options.workers, "network": self.network}


def needs_network(text: str) -> bool:
    """Whether a method is a trained one."""
    return parse_method(text).takes("network")


def main(arguments: list[str] | None = None) -> Path:
    """Make the tables; returns their folder."""
    options, wishes, machine = parse_evaluation(sys.argv[1:] if arguments is None else arguments)
    subject = open_subject(options, machine)
    output = output_of(options)
    require_writable(output)
    if precision_of(machine) == "32-true":
        torch.backends.cudnn.allow_tf32 = False  # PyTorch's default rounds convolutions to 10 bits on recent GPUs
    setting = make_setting(options, wishes, subject)
    tables, skipped = make_tables(wishes, setting)
    rows = {table: rows_of(table, wishes, subject) for table in tables}
    if options.other_run:
        add_other_run(rows, open_subject(replace(options, run=options.other_run), machine), wishes, subject)
    ablated = ablation_jobs(wishes, tables, setting, subject)
    jobs = [job for of_table in (*rows.values(), *(flat(groups) for _, groups in ablated)) for job in of_table]
    maps = MapCache((options.maps or output / "maps") if options.keep_maps else None)
    image_ids = subject.datamodule.dataset(options.split).image_ids
    evaluation = Evaluation(
        subject.explanandum,
        list(dict.fromkeys(jobs)),
        MapSource(maps),
        Records(output / "scores"),
        image_ids,
        subject.precision,
    ).to(memory_format=torch.channels_last)
    trainer = make_trainer(machine, inference_mode=False, callbacks=[progress()])
    trainer.test(evaluation, datamodule=OneSplit(subject.datamodule, options.split), verbose=False)
    if trainer.is_global_zero:
        report(evaluation, rows, ablated, skipped, output)
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


def open_subject(options: EvaluateOptions, machine: MachineOptions) -> Subject:
    """Load what is to be examined, from a run or from the names of a data set and a classifier."""
    precision = precision_of(machine)
    if options.run is not None:
        folder = RunFolder(options.run)
        folder.read_config()  # its error says what a run folder is
        explanandum = folder.load_explanandum()
        datamodule = run_data(options, folder, explanandum.card)
        network, hours = None, None
        if folder.explainer.is_file():
            network, hours = folder.load_explainer(), training_hours(folder)
        subject = Subject(folder.path.name, explanandum, datamodule, precision, network, hours)
    else:
        trained, card = requested(options)
        datamodule = open_data(options, trained, card)
        output: OutputKind = "single_label" if datamodule.single_label else "multi_label"
        card = replace(card, classes=datamodule.classes, output=output)
        explanandum = open_explanandum(options.explanandum_weights, card)
        datamodule = open_data(options, trained, explanandum.card)  # a file of ours says how it wants its images
        subject = Subject(card.architecture, explanandum, datamodule, precision)
    if subject.datamodule.classes != explanandum.card.classes:
        raise ValueError(
            f"The run's explanandum has {explanandum.num_classes} classes, the data set at "
            f"{datamodule.options.data_root} has {datamodule.num_classes}, or other names; evaluate on the data set "
            "that the run was trained on."
        )
    if precision == "bf16-mixed":
        explanandum.store_in(torch.bfloat16)
    return subject


def run_data(options: EvaluateOptions, folder: RunFolder, card: ClassifierCard) -> ImageDataModule:
    """A run's data set, its images prepared as its classifier wants them."""
    trained, _ = parse(["--config", str(folder.config)])
    return open_data(options, trained, card)


def requested(options: EvaluateOptions) -> tuple[TrainOptions, ClassifierCard]:
    """Options as train.py would have them for the same names, and the classifier's card, its classes unknown yet."""
    names = ["--dataset", str(options.dataset), "--explanandum", str(options.explanandum)]
    given = ["--image_size", str(options.image_size)] if options.image_size else []
    trained, _ = parse([*names, *given])
    name = trained.run.explanandum
    return trained, ClassifierCard(
        name, (), trained.data.image_size, *normalisation(name), hidden=trained.finetune.hidden
    )


def open_data(options: EvaluateOptions, trained: TrainOptions, card: ClassifierCard) -> ImageDataModule:
    """The data set, its images prepared as the classifier wants them."""
    names = ("batch_size", "data_root", "workers", "on_bad_image")
    changes: dict[str, Any] = {name: getattr(options, name) for name in names}
    changes[f"limit_{options.split}"] = options.limit
    given = {name: value for name, value in changes.items() if value is not None}
    data = replace(trained.data, mean=card.mean, std=card.std, image_size=card.image_size, **given)
    shapes = trained.shapes
    if options.shortcut_class:
        shapes = replace(shapes, shortcut_class=options.shortcut_class)
    datamodule = make_datamodule(replace(trained, data=data, shapes=shapes))
    datamodule.prepare_data()
    datamodule.dataset(options.split)  # a missing split is an error now
    return datamodule


def training_hours(folder: RunFolder) -> float | None:
    """Of the Explainer; unknown while it is still being trained."""
    return float(json.loads(folder.summary.read_text())["hours"]) if folder.summary.is_file() else None


def output_of(options: EvaluateOptions) -> Path:
    """Where the tables go."""
    if options.output is not None:
        return options.output
    if options.run is not None:
        return options.run / "evaluation"
    return Path("evaluation") / f"{options.dataset}_{options.explanandum}".replace(":", "-").replace("/", "-")


def make_setting(options: EvaluateOptions, wishes: Wishes, subject: Subject) -> Setting:
    """What tables must know of the classifier and the images."""
    datamodule = subject.datamodule
    source = datamodule.dataset(options.split).source
    split = SplitFacts(source.has_masks, source.has_boxes, source.has_cues)
    hours = {text: subject.training_hours for text in wishes.methods if needs_network(text)}
    return Setting(
        subject.explanandum,
        split,
        partial(masking_classes, datamodule, options.split),
        datamodule.shapes.shortcut_class if isinstance(datamodule, ShapesDataModule) else None,
        {text: value for text, value in hours.items() if value is not None},
        subject.build,
    )


def masking_classes(datamodule: ImageDataModule, split: Split) -> tuple[str, ...]:
    """Table 1's classes where the data set has them all, else the split's most frequent ones."""
    if set(PAPERS_CLASSES) <= set(datamodule.classes):
        return PAPERS_CLASSES
    counts = Counter(label for labels in datamodule.dataset(split).labels() for label in labels)
    frequent = sorted(range(datamodule.num_classes), key=lambda index: (-counts[index], index))[:FREQUENT_CLASSES]
    return tuple(datamodule.classes[index] for index in sorted(frequent))


def make_tables(wishes: Wishes, setting: Setting) -> tuple[list[Table], dict[str, str]]:
    """The tables asked for; of `all` those that can be made, and why the others can't."""
    names = list(TABLES) if ALL in wishes.tables else [name for name in wishes.tables if name != ABLATION]
    tables, skipped = [], {}
    for name in dict.fromkeys(names):
        try:
            tables.append(make_table(name, wishes.table, setting))
        except ValueError as error:
            if ALL not in wishes.tables:
                raise
            skipped[name] = str(error)
    return tables, skipped


def rows_of(table: Table, wishes: Wishes, subject: Subject) -> list[Job]:
    """A table's rows, in order."""
    texts = [text for text in wishes.methods if table.name != "sanity" or not needs_network(text)]
    classifier = subject.name if table.name == "shortcut" else ""
    methods = [subject.method(text, classifier) for text in dict.fromkeys([*texts, *table.extra_methods])]
    return [*(Job(table, method) for method in methods), *(Job(table, own_row=name) for name in table.own_rows)]


def add_other_run(rows: dict[Table, list[Job]], other: Subject, wishes: Wishes, subject: Subject) -> None:
    """Rows of a second classifier, on the same images, in the shortcut table.

    Raises:
        ValueError: if there is no such table, or the classifier wants its images prepared otherwise.
    """
    chosen = [table for table in rows if table.name == "shortcut"]
    if not chosen:
        raise ValueError("--other_run is for the table 'shortcut'; plant one with --shortcut_class, on shapes.")
    first, second = (
        {key: asdict(one.explanandum.card)[key] for key in ("classes", "image_size", "mean", "std")}
        for one in (subject, other)
    )
    if first != second:
        different = [key for key in first if first[key] != second[key]]
        raise ValueError(f"The classifiers of the two runs differ in {', '.join(different)}; they must share images.")
    name = other.name if other.name != subject.name else f"{other.name} (other run)"
    for table in chosen:
        rows[table] += [Job(table, other.method(text, name)) for text in wishes.methods]


def ablation_jobs(wishes: Wishes, tables: Sequence[Table], setting: Setting, subject: Subject) -> Ablated:
    """For each ablation the tables that it looks at, with a row for each variant."""
    if not wishes.ablations or not {ABLATION, ALL} & set(wishes.tables):
        return []
    made = {table.name: table for table in tables}
    looked_at = [made.get(name) or make_table(name, wishes.table, setting) for name in wishes.ablation_tables]
    return [
        (one, {table: [Job(table, subject.method(text)) for text in one.variants.values()] for table in looked_at})
        for one in wishes.ablations
    ]


def flat(groups: dict[Table, list[Job]]) -> list[Job]:
    """The jobs of all tables."""
    return [job for jobs in groups.values() for job in jobs]


def report(
    evaluation: Evaluation, rows: dict[Table, list[Job]], ablated: Ablated, skipped: dict[str, str], output: Path
) -> None:
    """Write all files, print the main ones, and say what is missing.

    Raises:
        ValueError: if not a single score is there.
    """
    write_whole(output / "environment.txt", environment())
    scores = {table: [evaluation.scores(job) for job in jobs] for table, jobs in rows.items()}
    for table, of_table in scores.items():
        report_table(table, of_table, evaluation.left_out(table), output)
    variants = [
        (ablation, {table: [evaluation.scores(job) for job in jobs] for table, jobs in groups.items()})
        for ablation, groups in ablated
    ]
    write_and_print(ABLATION, {ABLATION: [row for one in variants for row in ablation_rows(*one)]}, output)
    everything = [
        (table.name, one)
        for group in (scores, *(groups for _, groups in variants))
        for table in group
        for one in group[table]
    ]
    report_failures(everything, output)
    write_figures(output)
    for reason in skipped.values():
        print(f"Skipped: {reason}")
    if not any(one.rows for _, one in everything):
        raise ValueError("No image could be scored; the lines above say why. Choose another --split or other --tables.")
    print(f"Written to {output}")


def report_table(table: Table, scores: list[MethodScores], left_out: Counter[str], output: Path) -> None:
    """A table's files, and what it has no place for."""
    if any(one.rows for one in scores):
        write_and_print(table.name, table.summarise(scores), output)
        write_scores(table.name, scores, output)
    else:
        print(f"\n{table.name}: no image could be scored.")
    if left_out:
        print("Not in the table: " + ", ".join(f"{count} {why}" for why, count in left_out.items()) + ".")


def write_and_print(name: str, files: Files, output: Path) -> None:
    """All files, and the main one on the console."""
    write_files(files, output)
    if files[name]:
        print(f"\n{name}\n\n{markdown(files[name])}")


def write_scores(name: str, scores: Sequence[MethodScores], output: Path) -> None:
    """What every image got, for questions that the tables don't answer; curves stay in the records."""
    write_csv(
        [
            {"classifier": one.classifier, "method": one.method}
            | {column: value for column, value in row.items() if not column.endswith("_curve")}
            for one in scores
            for row in one.flat
        ],
        output / f"{name}_per_image",
    )


def report_failures(scores: Sequence[tuple[str, MethodScores]], output: Path) -> None:
    """Which methods failed on which images, and why."""
    failures: list[Row] = [
        {"table": name, "method": one.method, "image": image, "reason": reason}
        for name, one in scores
        for image, reason in one.failed.items()
    ]
    write_files({"failures": failures}, output)
    if failures:
        print(f"{len(failures)} score(s) are missing because a method failed, for example:")
    for row in failures[:SHOWN]:
        print(f"    {row['method']} on {row['image']} ({row['table']}): {row['reason']}")


if __name__ == "__main__":
    run_command(main)
