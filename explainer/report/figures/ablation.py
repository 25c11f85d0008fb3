"""A measure over the values of an option (Group-CAM, Fig. 5; PAMI, Fig. 4; SIGCAM, Table 1).

Lengths are in inches.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explainer.report.columns import groups, measured, plain, read_rows
from explainer.report.figures.results import result_file
from explainer.report.figures.sheet import POINTS, Choice, new_figure, styled, text_width
from explainer.report.names import measure_name, method_names
from explainer.report.plots import draw_values
from explainer.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 3
"""Most panels side by side: deletion, insertion and over-all score in Fig. 5."""
HEIGHT = 1.6


def ablation_curves(folder: Path, choice: Choice | None = None) -> "Figure":
    """Each measure of the table over the values of each option under test, with 95 % intervals.

    Values stand at equal distances, in the order in which they were asked for.

    Args:
        folder: of an evaluation with the table `ablation`.
        choice: what is drawn; its methods are those under test, its images don't count.

    Raises:
        ValueError: If the table or a column is not there, or what is chosen is not in it.
    """
    choice = choice or Choice()
    file = result_file(folder, "ablation", "ablation (with --ablate METHOD:OPTION=VALUE,VALUE)")
    rows = read_rows(file, ["method", "option", "value"])
    measures = measured(rows)
    if not measures:
        raise ValueError(f"{file} has no column with its bounds beside it, as in iou, iou_low, iou_high.")
    methods = choice.of_methods(dict.fromkeys(str(row["method"]) for row in rows))
    names = method_names(methods)
    studies = {key: rows for key, rows in groups(rows, "method", "option").items() if key[0] in methods}
    across = min(ACROSS, len(measures))
    down = -(-len(measures) // across)
    with styled():
        figure = new_figure(choice.width, HEIGHT * down * len(studies), layout="constrained")
        panels = figure.subplots(down * len(studies), across, squeeze=False).reshape(len(studies), -1)
        for of_study, ((method, option), study) in zip(panels, studies.items(), strict=True):
            for axes, measure in zip(of_study, measures, strict=False):
                _panel(axes, study, measure, f"{names[method]}: {option}", choice.width / across)
            for axes in of_study[len(measures) :]:
                axes.remove()
        return figure


def _panel(axes: "Axes", study: Sequence[Row], measure: str, label: str, width: float) -> None:
    draw_values(axes, list(study), measure)
    ticks = [plain(row["value"]) for row in study]
    crowded = sum(text_width(tick) + POINTS / 72 for tick in ticks) > width - 0.6
    axes.set_xticks(range(len(study)), ticks, rotation=90 if crowded else 0)
    axes.set(xlabel=plain(label), ylabel=plain(measure_name(measure)))
