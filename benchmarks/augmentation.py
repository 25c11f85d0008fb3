"""What saliency-based augmentation does to a classifier: its scores before and after, over seeds.

`python benchmarks/augmentation.py --seeds 0 1 2 --output runs/augmentation`

For each seed train.py makes a run, whose classifier is "before". From its weights, head included, the classifier is
fine-tuned once more with each `--finetune.augment`; `none` is what more training alone does. All other options, given
after `--`, go to train.py. Started again with the same output folder, it goes on where it was stopped.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from kept_runs import mean_and_spread, trained  # lies beside this file, whose folder is the first that Python looks in
from methods import Row, write

from explainer.augmentation import AugmentName
from explainer.run_folder import RunFolder
from explainer.weights import read_metadata

BEFORE = "before"


def scores(seed: int, output: Path, options: Sequence[str]) -> list[Row]:
    """One row for the classifier before and one for each augmentation."""
    seeded = [*options, "--seed", str(seed)]
    before = trained(RunFolder(output / f"{BEFORE}_{seed}"), seeded)
    runs = {BEFORE: before}
    for name in get_args(AugmentName):
        again = [*seeded, "--stage", "explanandum", "--explanandum_weights", str(before.explanandum)]
        again += ["--finetune.augment", name]
        again += ["--finetune.run", str(before.path)] if name == "explainer" else []
        runs[name] = trained(RunFolder(output / f"{name}_{seed}"), again)
    return [
        {"augment": name, "seed": seed} | json.loads(read_metadata(run.explanandum)["metrics"])
        for name, run in runs.items()
    ]


def summary(rows: list[Row]) -> list[str]:
    """Mean and standard deviation over seeds of every test score, a line an augmentation."""
    names = [name for name in rows[0] if name.startswith("test/")]
    lines = []
    for augment in dict.fromkeys(row["augment"] for row in rows):
        values = {name: [float(str(row[name])) for row in rows if row["augment"] == augment] for name in names}
        texts = [f"{name} {mean_and_spread(each)}" for name, each in values.items()]
        lines.append(f"{augment:10} " + ", ".join(texts))
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, write the table, print its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/augmentation"), help="Folder of runs and table.")
    parser.add_argument("options", nargs="*", help="Options of train.py, after --.")
    options = parser.parse_args(arguments)
    rows = [row for seed in options.seeds for row in scores(seed, options.output, options.options)]
    write(rows, options.output / "augmentation.csv")
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
