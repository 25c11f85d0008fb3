"""What teachers do for the Explainer: the same training with and without them, over seeds.

`python benchmarks/distillation.py --seeds 0 1 2 --output runs/distillation --limit 200 -- --dataset shapes`

Every variant of a seed explains the same classifier and takes the same steps; maps are computed once. Its Explainer is
then evaluated on the same images, beside the teachers themselves. Tables are written: `distillation.csv`, a row for
each seed and variant or teacher; `distillation.md`, its means and standard deviations over seeds; and
`convergence.csv`, the steps after which the IoU on validation images was first as high as each of `--ious`. Where those
have no outlines (as in VOC), `--after 2 4 8` gives the IoU on test images after so many epochs instead; let the
learning rate be constant then, so that shorter trainings are beginnings of the longer ones. Options of train.py follow
`--`. Started again with the same output folder, it goes on where it was stopped.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

from kept_runs import mean_and_spread, trained  # lies beside this file, whose folder is the first that Python looks in
from methods import Row, write

import evaluate
from explainer.files import write_whole
from explainer.report.tables import read_table
from explainer.run_folder import RunFolder

NUMBERS = {
    "segmentation": ("segmentation", ("acc", "iou", "sal", "mae")),
    "insertion_deletion": ("insertion_deletion", ("insertion", "deletion", "over_all")),
    "masking": ("masking_specificity", ("specificity",)),
    "timing": ("timing", ("seconds", "forward")),
}
"""Tables of an evaluation, the file of each, and the columns taken from it."""


def variants(teachers: Sequence[str], options: Sequence[str], imitations: str = "each") -> dict[str, list[str]]:
    """Options of train.py by name: without teachers, with each, with all, and imitation without the paper's losses.

    Args:
        teachers: methods.
        options: of distillation.
        imitations: of each teacher and all together, or of all alone.
    """
    taught = {teacher: [teacher] for teacher in teachers}
    taught |= {" + ".join(teachers): list(teachers)} if len(teachers) > 1 else {}
    chosen = {name: ["--distill.teachers", *names, *options] for name, names in taught.items()}
    imitated = chosen if imitations == "each" else dict(list(chosen.items())[-1:])
    alone = {f"imitation of {name}": [*words, "--objective", "distill"] for name, words in imitated.items()}
    return {"no teacher": [], **chosen, **alone}


def flags(prefix: str, items: Sequence[str]) -> list[str]:
    """`decay=0.5` as a command line has it: `--distill.decay 0.5`."""
    return [word for item in items for word in f"{prefix}{item}".split("=", 1)]


def evaluated(run: RunFolder, methods: Sequence[str], tables: Sequence[str], more: Sequence[str]) -> dict[str, Row]:
    """Numbers of each method."""
    output = run.path / "evaluation"
    evaluate.main(["--run", str(run.path), "--methods", *methods, "--tables", *tables, *more, "--output", str(output)])
    rows: dict[str, Row] = {method: {} for method in methods}
    for file, columns in map(NUMBERS.__getitem__, tables):
        for line in read_table(output / f"{file}.csv"):
            if line["method"] in rows:
                rows[line["method"]] |= {column: line[column] for column in columns}
    return rows


def steps_to(run: RunFolder, ious: Sequence[float]) -> Row:
    """The steps after which the validation IoU was first as high as each value; empty if it never was."""
    with run.metrics.open(newline="") as opened:
        lines = [line for line in csv.DictReader(opened) if line.get("segmentation/iou")]
    first = {iou: [line["step"] for line in lines if float(line["segmentation/iou"]) >= iou] for iou in ious}
    return {f"steps to {iou:g}": steps[0] if steps else "" for iou, steps in first.items()}


def ious_after(folder: RunFolder, options: Sequence[str], epochs: Sequence[int], more: Sequence[str]) -> Row:
    """Train in stretches; the IoU on the test images after each."""
    row: Row = {}
    for epoch in epochs:
        output = folder.path / f"evaluation_{epoch}"
        if not (output / "segmentation.csv").is_file():
            trained(folder, [*options, "--epochs", str(epoch)])
            given = ["--run", str(folder.path), "--methods", "explainer", "--tables", "segmentation"]
            evaluate.main([*given, *more, "--output", str(output)])
        row |= {f"iou after {epoch} epochs": line["iou"] for line in read_table(output / "segmentation.csv")[:1]}
    return row


def summary(rows: Sequence[Row]) -> str:
    """Means over seeds, and standard deviations where there are several: a Markdown table."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ("seed", "row")))
    lines = [f"| {' | '.join(['', *columns, 'seeds'])} |", f"|{' --- |' * (len(columns) + 2)}"]
    for name in dict.fromkeys(row["row"] for row in rows):
        chosen = [row for row in rows if row["row"] == name]
        cells = [mean_and_spread([float(str(row[name])) for row in chosen if row.get(name)]) for name in columns]
        lines.append(f"| {' | '.join([str(name), *cells, str(len(chosen))])} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Train and evaluate what is missing; write the tables after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teachers", nargs="+", default=["group_cam", "pami:second_run=false"])
    parser.add_argument("--distill", nargs="*", default=[], help="Options of distillation, e.g. decay=0.5 loss=l1.")
    parser.add_argument("--limit", type=int, help="Test images; all if not given.")
    parser.add_argument("--tables", nargs="+", choices=NUMBERS, default=list(NUMBERS), help="Of the evaluation.")
    parser.add_argument("--evaluate", nargs="*", default=[], help="Options of evaluate.py, e.g. batch_size=20.")
    parser.add_argument("--ious", type=float, nargs="+", default=[30.0, 40.0, 50.0, 55.0, 60.0])
    parser.add_argument("--after", type=int, nargs="*", default=[], help="Epochs after which test images are seen.")
    parser.add_argument("--imitations", choices=("each", "all"), default="each", help="Who is imitated alone.")
    parser.add_argument("--output", type=Path, default=Path("runs/distillation"), help="Folder of runs and tables.")
    parser.add_argument("options", nargs="*", help="Options of train.py, after --.")
    options = parser.parse_args(arguments)
    distill = flags("--distill.", options.distill)
    more = flags("--", options.evaluate)
    more += [] if options.limit is None else ["--limit", str(options.limit)]
    numbers: list[Row] = []
    steps: list[Row] = []
    for seed in options.seeds:
        for name, words in variants(options.teachers, distill, options.imitations).items():
            folder = RunFolder(options.output / f"{name}_{seed}".replace(" ", "_").replace(":", "-").replace("=", "-"))
            # Of variants that stop at different times it could not be said what the teachers do.
            recipe = [*options.options, "--patience", "1000000", "--seed", str(seed), *words]
            after = ious_after(folder, recipe, options.after, more)
            run = trained(folder, recipe)
            # The teachers' own rows are the same whatever was learned from them: once a seed is enough.
            others = options.teachers if name == "no teacher" else []
            for method, row in evaluated(run, ["explainer", *others], options.tables, more).items():
                numbers.append({"seed": seed, "row": name if method == "explainer" else f"teacher {method}"} | row)
            taken = json.loads(run.summary.read_text())["steps"]
            steps.append({"seed": seed, "row": name, "steps": taken} | steps_to(run, options.ious) | after)
            write(numbers, options.output / "distillation.csv")
            write_whole(options.output / "distillation.md", summary(numbers))
            write(steps, options.output / "convergence.csv")


if __name__ == "__main__":
    main()
