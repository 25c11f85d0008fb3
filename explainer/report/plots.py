"""Figures made from the CSV files of an evaluation.

matplotlib is imported where it is used: training must run without it. Methods differ in colour, line and marker, so
that they can be told apart with any colour vision and in grey. Lengths are in inches.
"""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from explainer.files import whole
from explainer.report.columns import Numbers, groups, measured, numbers, plain, read_rows, top_of_scale, with_bounds
from explainer.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette without its yellow, which is too light for lines on white."""
LINES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<", ">", "*", "p")
"""No two of the three counts share a divisor: 35 methods differ in colour or line, neighbours in both."""
SMALL = 8
"""Points of the text that is not a title."""
LETTER = 0.07
"""Width of a small letter, its height and a gap is twice that."""
LEGEND = 34
"""Letters after which a method's name goes on in the next line; options make names long."""
TICKS = 40
"""Most layer names on an axis; of more, only every second, third, … is written."""
DPI = 150
PIXELS = 8000
"""Longest side of a picture."""

CURVES = {"insertion": "fraction of pixels inserted", "deletion": "fraction of pixels deleted"}
SIMILARITIES = {"rank_correlation": "rank correlation\n(1: equal maps)", "ssim": "SSIM\n(1: equal maps)"}
MODES = {"cascading": "random from the output to this layer", "independent": "random in this layer only"}

Styles = dict[tuple[str, ...], dict[str, Any]]
"""How a method's line looks, by the tuple of its name."""


def plot_curves(csv_file: Path, picture_file: Path) -> None:
    """Insertion and deletion curves, a panel each: the target's probability over the fraction of changed pixels.

    Args:
        csv_file: columns method, fraction in [0, 1], insertion and deletion, each of the two with _low and _high; these
            lie in [0, 1], or in percent if any is greater than 1.
        picture_file: its suffix says what is written (png, pdf, svg).

    Raises:
        ValueError: If a column is missing, or there are no rows.
    """
    rows = read_rows(csv_file, ["method", "fraction", *with_bounds(CURVES)])
    methods = groups(rows, "method")
    styles, most = line_styles(methods), top_of_scale(rows, CURVES)
    figure, panels = _grid(1, 2, (3.6, 3.4), styles, sharey=True)
    for axes, (name, label) in zip(panels[0], CURVES.items(), strict=True):
        for method, group in methods.items():
            ordered = sorted(group, key=lambda row: row["fraction"])
            draw_line(axes, numbers(ordered, "fraction"), ordered, name, styles[method])
        axes.set(title=name, xlabel=label, xlim=(0, 1), ylim=(0, most))
    panels[0, 0].set_ylabel(probability_label(most))
    _save(figure, picture_file)


def plot_sanity(csv_file: Path, picture_file: Path) -> None:
    """How alike maps stay when layers get random weights (Adebayo et al., 2018): a row a measure, a column a mode.

    Args:
        csv_file: columns method, mode, depth (number of the layer counted from the output; 0 if none is random), layer
            (its name), and rank_correlation and ssim in [-1, 1], each with _low and _high.
        picture_file: as in `plot_curves`.

    Raises:
        ValueError: If a column is missing, or there are no rows.
    """
    rows = read_rows(csv_file, ["method", "mode", "depth", "layer", *with_bounds(SIMILARITIES)])
    modes, lines = groups(rows, "mode"), groups(rows, "mode", "method")
    styles = line_styles(groups(rows, "method"), MARKERS)
    layers = {row["depth"]: plain(row["layer"]) if row["depth"] else "none" for row in rows}
    depths = sorted(layers)
    longest = max(map(len, layers.values()))
    size = (min(max(1 + 0.2 * len(depths), 3.4), 9), 2.2 + LETTER * longest / len(SIMILARITIES))
    figure, panels = _grid(len(SIMILARITIES), len(modes), size, styles, sharex=True, sharey="row")
    for down, (name, label) in enumerate(SIMILARITIES.items()):
        panels[down, 0].set_ylabel(label)
        for axes, (mode,) in zip(panels[down], modes, strict=True):
            axes.axhline(0, color="silver", linewidth=0.8, zorder=0)
            for method, style in styles.items():
                ordered = sorted(lines.get((mode, *method), []), key=lambda row: row["depth"])
                places = np.searchsorted(depths, numbers(ordered, "depth")).astype(np.float64)
                draw_line(axes, places, ordered, name, style)
    step = -(-len(depths) // TICKS)
    for (mode,), top, bottom in zip(modes, panels[0], panels[-1], strict=True):
        top.set_title(plain(mode))
        bottom.set_xlabel(MODES.get(mode, "random layer"))
        bottom.set_xticks(range(0, len(depths), step), [layers[depth] for depth in depths[::step]], rotation=90)
    _save(figure, picture_file)


def plot_ablation(csv_file: Path, picture_file: Path) -> None:
    """Each measure over the values of an option, with its interval: a row a (method, option), a column a measure.

    Args:
        csv_file: columns method, option, value (in the order of the axis), and measures, each with _low and _high;
            other columns are left out.
        picture_file: as in `plot_curves`.

    Raises:
        ValueError: If a column is missing, or there are no rows.
    """
    keys = ["method", "option", "value"]
    rows = read_rows(csv_file, keys)
    measures = measured(rows)
    if not measures:
        raise ValueError(f"{csv_file} has no column with its bounds beside it, as in iou, iou_low, iou_high.")
    studies = groups(rows, "method", "option")
    most = max(len(study) for study in studies.values())
    longest = max(len(plain(row["value"])) for row in rows)
    size = (max(2.6, 0.9 + 0.3 * most), 2.4 + (LETTER * longest if longest > 4 else 0))
    figure, panels = _grid(len(studies), len(measures), size)
    for ((method, option), study), row_of_panels in zip(studies.items(), panels, strict=True):
        ticks = [plain(row["value"]) for row in study]
        places, rotation = range(len(study)), 90 if max(map(len, ticks)) > 4 else 0
        for axes, measure in zip(row_of_panels, measures, strict=True):
            draw_values(axes, study, measure)
            axes.set_xticks(places, ticks, rotation=rotation)
            axes.set(title=_wrapped(method), xlabel=plain(option), ylabel=plain(measure.replace("_", " ")))
    _save(figure, picture_file)


def plot_masking(csv_file: Path, picture_file: Path) -> None:
    """Table 1 of NN-Explainer as a heat map a method: the target's mean probability under the mask of each class.

    Args:
        csv_file: columns method, target, images, none (no mask) and one for each class, each from `none` on with _low
            and _high; these lie in [0, 1], or in percent if any is greater than 1.
        picture_file: as in `plot_curves`.

    Raises:
        ValueError: If a column is missing, or there are no rows.
    """
    rows = read_rows(csv_file, ["method", "target", "images", *with_bounds(["none"])])
    masks = measured(rows)
    methods = groups(rows, "method")
    most = top_of_scale(rows, masks)
    longest = max(len(name) for name in [*masks, *(plain(row["target"]) for row in rows)])
    targets = max(map(len, methods.values()))
    across = int(np.ceil(np.sqrt(len(methods))))
    size = (0.75 * len(masks) + LETTER * (longest + 6) + 0.4, 0.42 * targets + LETTER * longest + 1.0)
    figure, panels = _grid(-(-len(methods) // across), across, size)
    used = panels.ravel().tolist()[: len(methods)]
    for axes in panels.flat[len(methods) :]:
        axes.remove()
    for axes, ((method,), members) in zip(used, methods.items(), strict=True):
        image = _heat_map(axes, members, masks, most)
        axes.set_title(_wrapped(method))
    figure.supxlabel("class of the mask", fontsize=SMALL + 1)
    figure.supylabel("target (images)", fontsize=SMALL + 1)
    figure.colorbar(image, ax=used, label=probability_label(most), shrink=0.6)
    _save(figure, picture_file)


def _heat_map(axes: "Axes", rows: list[Row], masks: list[str], most: int) -> "AxesImage":
    """One method's matrix, colours from 0 to `most`; grey where there is no number."""
    values, low, high = (
        np.stack([numbers(rows, f"{name}{bound}") for name in masks], axis=1) for bound in ("", "_low", "_high")
    )
    image = axes.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=most, aspect="auto")
    axes.set_facecolor("lightgrey")
    axes.axvline(0.5, color="white", linewidth=3)  # `none` is no class
    axes.set_xticks(range(len(masks)), [plain(name) for name in masks], rotation=90)
    axes.set_yticks(range(len(rows)), [f"{plain(row['target'])} ({plain(row['images'])})" for row in rows])
    decimals = 2 if most == 1 else 1
    for (down, across), value in np.ndenumerate(values):
        colour = "white" if value < most / 2 else "black"
        number = "–" if np.isnan(value) else f"{value:.{decimals}f}"
        bounds = [f"{bound[down, across]:.{decimals}f}" for bound in (low, high) if not np.isnan(bound[down, across])]
        interval = f"[{', '.join(bounds)}]" if len(bounds) == 2 else ""
        place: dict[str, Any] = {"ha": "center", "color": colour}
        axes.text(across, down, number, va="bottom" if interval else "center", fontsize=SMALL, **place)
        axes.text(across, down + 0.05, interval, va="top", fontsize=0.7 * SMALL, **place)
    return image


def draw_values(axes: "Axes", study: list[Row], measure: str) -> None:
    """A measure over the values of an option, at equal distances, with the intervals as bars."""
    values, low, high = (numbers(study, name) for name in with_bounds([measure]))
    axes.plot(range(len(study)), values, color=COLOURS[0], linestyle=":", linewidth=0.8, marker="o", markersize=4)
    for place, (bottom, top) in enumerate(zip(low, high, strict=True)):
        axes.plot([place, place], [bottom, top], color=COLOURS[0], marker="_", linewidth=1.2)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlim(-0.5, len(study) - 0.5)


def draw_line(axes: "Axes", places: Numbers, rows: list[Row], name: str, style: dict[str, Any]) -> None:
    """A method's values, their interval as a light band."""
    values, low, high = (numbers(rows, column) for column in with_bounds([name]))
    axes.plot(places, values, **style)
    axes.fill_between(places, low, high, color=style["color"], alpha=0.12, linewidth=0)


def probability_label(most: int) -> str:
    """Of an axis that ends at 1, or at 100."""
    return "probability of the target" + (" in %" if most == 100 else "")


def line_styles(methods: Iterable[tuple[str, ...]], markers: Sequence[str] = ("",)) -> Styles:
    """How the lines of methods look, by their names: neighbours differ in colour and line."""
    return {
        method: {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": LINES[index % len(LINES)],
            "marker": markers[index % len(markers)],
            "linewidth": 1.4,
            "markersize": 4,
        }
        for index, method in enumerate(methods)
    }


def _grid(
    rows: int, columns: int, size: tuple[float, float], legend: Styles | None = None, **sharing: Any
) -> tuple["Figure", NDArray[Any]]:
    """A figure with panels [rows,columns], each `size` wide and high, and the legend beside them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = [_wrapped(name) for name, *_ in legend or {}]
    lines = [line for name in names for line in name.split("\n")]
    beside = LETTER * max(map(len, lines)) + 0.8 if lines else 0
    height = max(rows * size[1], 2 * LETTER * (len(lines) + 0.4 * len(names)) + 0.2)
    figure = Figure((columns * size[0] + beside, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, **sharing)
    if legend:
        handles = [Line2D([], [], **style) for style in legend.values()]
        figure.legend(handles, names, loc="outside right upper", fontsize=SMALL, handlelength=3.5, frameon=False)
    return figure, panels


def _save(figure: "Figure", picture_file: Path) -> None:
    """Write the picture, whole or not at all."""
    for axes in figure.axes:
        axes.tick_params(labelsize=SMALL)
        for text, points in ((axes.title, SMALL + 1), (axes.xaxis.label, SMALL), (axes.yaxis.label, SMALL)):
            text.set_fontsize(points)
    with whole(picture_file) as temporary:
        figure.savefig(temporary, dpi=min(DPI, PIXELS / max(figure.get_size_inches())))


def _wrapped(method: str) -> str:
    """A method's name with its options on as many lines as they need."""
    return textwrap.fill(plain(method.replace(",", ", ").replace(":", ": ")), LEGEND)
