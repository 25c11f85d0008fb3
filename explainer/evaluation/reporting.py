"""From the scores of a finished evaluation to its files and to the console."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from explainer.evaluation.module import Evaluation, Job
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.ablation import NAME as ABLATION
from explainer.evaluation.tables.ablation import Ablation, ablation_differences, ablation_rows
from explainer.evaluation.tables.base import Files, Table
from explainer.files import write_whole
from explainer.report.evaluation import write_files, write_plots
from explainer.report.page_data import TILES
from explainer.report.tables import markdown, read_table, write_csv
from explainer.run_folder import environment

SHOWN = 3
"""Failures on the console; all are in failures.csv."""


@dataclass(frozen=True)
class Plan:
    """What an evaluation is to make.

    Args:
        rows: of each table, in order.
        ablations: each with the tables that it looks at, and there a row for each value.
        facts: what else the numbers depend on, for the record: data set, split, classifier, precision.
    """

    rows: dict[Table, list[Job]]
    ablations: list[tuple[Ablation, dict[Table, list[Job]]]]
    facts: dict[str, Any]

    @property
    def jobs(self) -> list[Job]:
        """All rows, each once."""
        groups = [self.rows, *(tables for _, tables in self.ablations)]
        return list(dict.fromkeys(job for tables in groups for jobs in tables.values() for job in jobs))


def report(evaluation: Evaluation, plan: Plan, output: Path) -> None:
    """Write all files, print the main ones, and say what is missing.

    Raises:
        ValueError: if not a single score is there.
    """
    write_whole(output / "environment.txt", environment())
    scores = {table: [evaluation.scores(job) for job in jobs] for table, jobs in plan.rows.items()}
    for table, of_table in scores.items():
        report_table(table, of_table, evaluation.left_out(table), output)
        write_facts(table.name, plan.facts | {"options": options_of(table)}, output)
    ablations = [
        (ablation, {table: [evaluation.scores(job) for job in jobs] for table, jobs in tables.items()})
        for ablation, tables in plan.ablations
    ]
    if ablations:
        report_ablations(ablations, output)
        options = {table.name: options_of(table) for table in ablations[0][1]}
        write_facts(ABLATION, plan.facts | {"options": options}, output)
    groups = [scores, *(tables for _, tables in ablations)]
    everything = [(table.name, one) for tables in groups for table, of_table in tables.items() for one in of_table]
    report_failures(everything, output)
    write_plots(output)
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


def report_ablations(ablations: Sequence[tuple[Ablation, dict[Table, list[MethodScores]]]], output: Path) -> None:
    """The table of all options under test."""
    files = {
        ABLATION: [row for one in ablations for row in ablation_rows(*one)],
        "ablation_differences": [row for one in ablations for row in ablation_differences(*one)],
    }
    write_and_print(ABLATION, files, output)


def write_and_print(name: str, files: Files, output: Path) -> None:
    """All files, and the main one on the console."""
    write_files(files, output)
    print(f"\n{name}\n\n{markdown(files[name])}")


def write_scores(name: str, scores: Sequence[MethodScores], output: Path) -> None:
    """What every image got, for questions that the tables don't answer; what is no number stays in the records."""
    write_csv(
        [
            {"classifier": one.classifier, "method": one.method}
            | {column: value for column, value in row.items() if not column.endswith(("_curve", "tile"))}
            for one in scores
            for row in one.flat
        ],
        output / f"{name}_per_image",
    )


def options_of(table: Table) -> Any:
    """A table's options as plain values."""
    return None if table.options is None else asdict(table.options)


def write_facts(name: str, facts: Mapping[str, Any], output: Path) -> None:
    """How a table was made."""
    write_whole(output / f"{name}.json", json.dumps(facts, indent=1, default=str) + "\n")


def report_pictures(evaluation: Evaluation, output: Path) -> None:
    """Write a table's pictures anew, those of further images among them, and on which of these a method failed.

    Its numbers stay those of its own images: what others were chosen for would be in the numbers.
    """
    table = evaluation.jobs[0].table
    scores = [evaluation.scores(job) for job in evaluation.jobs]
    tiles = f"{table.name}{TILES}"
    write_files({tiles: table.summarise(scores)[tiles]}, output)
    file = output / "failures.csv"
    others = [row for row in read_table(file) if row["table"] != table.name] if file.is_file() else []
    write_files({file.stem: [*others, *failure_rows([(table.name, one) for one in scores])]}, output)


def failure_rows(scores: Sequence[tuple[str, MethodScores]]) -> list[Row]:
    """A row for each image that a method failed on; scores stand with the name of their table."""
    return [
        {"table": name, "method": one.method, "image": image, "reason": reason}
        for name, one in scores
        for image, reason in one.failed.items()
    ]


def report_failures(scores: Sequence[tuple[str, MethodScores]], output: Path) -> None:
    """Which methods failed on which images, and why."""
    failures = failure_rows(scores)
    write_files({"failures": failures}, output)
    if failures:
        print(
            f"{len(failures)} score(s) are missing because a method failed (failures.csv); means of methods with "
            "failures are over other images than those of others, the differences over the same. For example:"
        )
    for row in failures[:SHOWN]:
        print(f"    {row['method']} on {row['image']} ({row['table']}): {row['reason']}")
