"""Which rows of which tables evaluate.py makes of what it examines."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

from datamodules import ImageDataModule, ShapesDataModule
from datamodules.sample import Split
from explainer.attribution.spec import parse_method
from explainer.evaluation import Job
from explainer.evaluation.options import TABLES, Setting, UnsuitedError, make_table
from explainer.evaluation.reporting import Plan
from explainer.evaluation.tables import SplitFacts, Table
from explainer.evaluation.tables.ablation import NAME as ABLATION
from explainer.evaluation.tables.ablation import Ablation
from explainer.machine import MachineOptions, say
from programs.evaluate_options import ALL, EvaluateOptions, Wishes
from programs.evaluate_subject import Subject, open_subject

PAPERS_CLASSES = ("bottle", "car", "cat", "dog", "person")
"""NN-Explainer, Table 1."""
FREQUENT_CLASSES = 5


def make_plan(
    options: EvaluateOptions, wishes: Wishes, machine: MachineOptions, subject: Subject, command: str
) -> Plan:
    """Which rows of which tables are to be made."""
    setting = make_setting(options, wishes, subject)
    tables = make_tables(wishes, setting)
    rows = {table: jobs for table in tables if (jobs := rows_of(table, wishes, subject))}
    if options.other_run:
        add_other_run(rows, open_subject(replace(options, run=options.other_run), machine), wishes, subject)
    facts = {
        "data": type(subject.datamodule).__name__,
        "split": options.split,
        "images": len(subject.datamodule.dataset(options.split)),
        "explanandum": subject.explanandum.card.architecture,
        "fingerprint": subject.explanandum.fingerprint,
        "image_size": subject.explanandum.card.image_size,
        "precision": subject.precision,
        "command": command,
    }
    return Plan(rows, ablated_rows(wishes, tables, setting, subject), facts)


def make_setting(options: EvaluateOptions, wishes: Wishes, subject: Subject) -> Setting:
    """What tables must know of the classifier and the images."""
    datamodule = subject.datamodule
    source = datamodule.dataset(options.split).source
    split = SplitFacts(source.has_masks, source.has_boxes, source.has_cues)
    hours = {text: subject.training_hours for text in wishes.methods if parse_method(text).is_trained}
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


def make_tables(wishes: Wishes, setting: Setting) -> list[Table]:
    """The tables asked for; of `all` those that can be made of the data set, and a line for each of the others."""
    every = ALL in wishes.tables
    names = list(TABLES) if every else [name for name in wishes.tables if name != ABLATION]
    tables = []
    for name in dict.fromkeys(names):
        try:
            tables.append(make_table(name, wishes.table, setting))
        except UnsuitedError as error:
            if not every:
                raise
            say(f"Skipped: {error}")
    return tables


def rows_of(table: Table, wishes: Wishes, subject: Subject) -> list[Job]:
    """A table's rows, in order.

    Raises:
        ValueError: if it would have none; of `all` tables such a one has no rows.
    """
    refused = {text: table.refuses(is_trained=parse_method(text).is_trained) for text in wishes.methods}
    texts = [text for text, reason in refused.items() if not reason]
    for reason in dict.fromkeys(filter(None, refused.values())):
        left_out = ", ".join(text for text in refused if refused[text] == reason)
        if not texts and ALL not in wishes.tables:
            raise ValueError(f"The table '{table.name}' has no row for {left_out}: {reason}. Name other --methods.")
        say(f"Skipped: {left_out} in the table '{table.name}': {reason}.")
    if not texts:
        return []
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


def ablated_rows(
    wishes: Wishes, tables: Sequence[Table], setting: Setting, subject: Subject
) -> list[tuple[Ablation, dict[Table, list[Job]]]]:
    """For each ablation the tables that it looks at, with a row for each value of its option."""
    made = {table.name: table for table in tables}
    if not wishes.ablations:
        return []
    looked_at = [made.get(name) or make_table(name, wishes.table, setting) for name in wishes.ablation_tables]
    return [
        (one, {table: [Job(table, subject.method(text)) for text in one.variants.values()] for table in looked_at})
        for one in wishes.ablations
    ]
