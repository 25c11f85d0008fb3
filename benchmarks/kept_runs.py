"""Runs of train.py over seeds that a benchmark makes, and finds again when it is started again."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the programs and their parts lie

import train
from explainer.run_folder import RunFolder


def trained(folder: RunFolder, options: Sequence[str]) -> RunFolder:
    """The run of that folder, made or gone on with.

    Raises:
        ValueError: if it is of other options.
    """
    if folder.config.is_file():
        return train.main(["--resume", str(folder.path), *options])
    return train.main([*options, "--output", str(folder.path.parent), "--name", folder.path.name])


def mean_and_spread(values: Sequence[float]) -> str:
    """`mean ± standard deviation` over seeds; the mean alone of one value, nothing of none."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"
