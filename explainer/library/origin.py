"""Where an Explainer comes from, as its model card tells: how it was trained, and how good it became."""

import csv
import json
from dataclasses import dataclass, field

from explainer.run_folder import RunFolder
from explainer.weights import read_metadata

EXPLAINER_METRICS = (
    *("val_loss", "segmentation/acc", "segmentation/iou", "f_score/val_masked", "f_score/val_unmasked"),
    *("agreement/rank_correlation", "agreement/iou"),
)
"""Columns of a run's metrics.csv that say how good an Explainer is; those of teachers end in the teacher's name."""


@dataclass(frozen=True)
class Origin:
    """How an Explainer was trained; everything is empty for one that was not trained by a run.

    Args:
        command: that trained it.
        metrics: of the Explainer, on the validation images, at the epoch that was kept.
        classifier_metrics: of the classifier.
    """

    command: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    classifier_metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_run(cls, folder: RunFolder) -> "Origin":
        """What the files of a run say."""
        return cls(
            _command(folder),
            _metrics(folder),
            json.loads(read_metadata(folder.explanandum).get("metrics", "{}")),
        )


def _command(folder: RunFolder) -> str:
    """The first one; a resumed run has several."""
    lines = folder.environment.read_text().splitlines() if folder.environment.is_file() else []
    found = [line.removeprefix("command: ") for line in lines if line.startswith("command: ")]
    return f"python {found[0]}" if found else ""


def _metrics(folder: RunFolder) -> dict[str, float]:
    """The row of metrics.csv of the epoch whose weights were kept."""
    if not folder.metrics.is_file():
        return {}
    epoch = read_metadata(folder.explainer).get("epoch")
    with folder.metrics.open(newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row["epoch"] == epoch]
    row = rows[0] if rows else {}
    return {name: float(value) for name, value in row.items() if name.startswith(EXPLAINER_METRICS) and value}
