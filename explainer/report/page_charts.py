"""Charts of the report page, as Plotly draws them: bars with intervals, curves, layers, heat maps.

A figure is the plain data that `Plotly.newPlot` takes; as Plotly reads some HTML in texts, these are escaped. Methods
differ in colour and dash, or in place, never in colour alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from explainer.report.columns import groups, measured, top_of_scale, with_bounds
from explainer.report.names import names_in
from explainer.report.page_data import RUN, Result, merged
from explainer.report.page_sections import BETTER, REFERENCES
from explainer.report.plots import COLOURS, CURVES, MODES, SIMILARITIES
from explainer.report.tables import Row

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
"""Shares no divisor with the number of colours: 35 methods differ in one or the other."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star")
BAR, GREY = COLOURS[0], "#8a8f98"
BAND = 0.1
LETTERS = 26
"""Of a method's name at an axis; the whole name is shown when the pointer rests on its bar."""
LEGEND = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "font": {"size": 11}}
"""Below the chart, where a narrow window has room for it."""
ARROWS = {1: " ↑", -1: " ↓", 0: ""}

Figure = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A chart.

    Args:
        title: above it.
        figure: its traces (`data`) and `layout`.
        height: in pixels.
    """

    title: str
    figure: Figure
    height: int = 340


def charts_of(results: Sequence[Result], stem: str) -> list[Chart]:
    """The charts of a CSV file; none for files that no chart is made of, or of which it lacks a column."""
    rows = merged(results, stem)
    if not rows:
        return []
    draw = next((draw for needed, draw in KINDS.items() if set(needed) <= rows[0].keys()), None)
    return draw(rows) if draw is not None and not stem.endswith("_differences") else []


def bar_charts(rows: list[Row]) -> list[Chart]:
    """A chart for each measure: methods and their intervals, in the order of the table."""
    if any(name in rows[0] for name in ("class", "classifier", "image")):
        return []
    return [_bars(rows, name) for name in measured(rows)]


def _bars(rows: list[Row], name: str) -> Chart:
    kept = [row for row in rows if row[name] is not None]
    labels = _labels(kept)
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": list(range(len(kept))),
        "x": [row[name] for row in kept],
        "customdata": [
            [label, row[f"{name}_low"], row[f"{name}_high"]] for label, row in zip(labels, kept, strict=True)
        ],
        "hovertemplate": "%{customdata[0]}: %{x} [%{customdata[1]}, %{customdata[2]}]<extra></extra>",
        "marker": {"color": [GREY if str(row["method"]) in REFERENCES else BAR for row in kept]},
        "error_x": errors(kept, name),
    }
    places = {"tickvals": trace["y"], "ticktext": [escape(short(label)) for label in labels]}
    axis = {"autorange": "reversed", "zeroline": False, **places}
    figure = {"data": [trace], "layout": {"yaxis": axis, "bargap": 0.35, "xaxis": {"zeroline": True}}}
    return Chart(named(name), figure, 90 + 24 * len(kept))


def curve_charts(rows: list[Row]) -> list[Chart]:
    """Insertion and deletion: the target's probability over the fraction of changed pixels."""
    return [
        Chart(name, _lines(rows, "fraction", name, label, "probability of the target"), 420)
        for name, label in CURVES.items()
    ]


def sanity_charts(rows: list[Row]) -> list[Chart]:
    """How alike maps stay, layer by layer: a chart for each mode and measure, and for each classifier's layers."""
    charts = []
    for (mode,), of_mode in groups(rows, "mode").items():
        for runs, layers, part in _by_layers(of_mode):
            charts += _layer_charts(f"{mode}{runs}", MODES.get(mode, "random layer"), layers, part)
    return charts


def _layer_charts(of_what: str, across: str, layers: dict[int, str], rows: list[Row]) -> list[Chart]:
    charts = []
    for name, label in SIMILARITIES.items():
        figure = _lines(rows, "depth", name, across, label.replace("\n", " "), True)
        texts = [escape(layer) for layer in layers.values()]
        figure["layout"]["xaxis"] |= {"tickvals": list(layers), "ticktext": texts, "tickangle": -90}
        charts.append(Chart(f"{named(name)}, {of_what}", figure, 480))
    return charts


def _by_layers(rows: list[Row]) -> Iterator[tuple[str, dict[int, str], list[Row]]]:
    """Runs whose classifiers have the same layers, as words for a title, with these layers and the runs' rows."""
    layers = {
        run: {row["depth"]: str(row["layer"] or "none") for row in sorted(part, key=lambda row: row["depth"])}
        for run, part in _by_run(rows).items()
    }
    kinds = [kind for place, kind in enumerate(layers.values()) if kind not in list(layers.values())[:place]]
    for kind in kinds:
        runs = [run for run, of_run in layers.items() if of_run == kind]
        yield f" ({', '.join(runs)})" if len(kinds) > 1 else "", kind, [row for row in rows if row.get(RUN, "") in runs]


def ablation_charts(rows: list[Row]) -> list[Chart]:
    """A chart for each method, option and measure, over the option's values."""
    charts, names = [], names_in(rows)
    for (method, option), study in groups(rows, "method", "option").items():
        for name in measured(study):
            axis = {"type": "category", "title": {"text": escape(option)}}
            traces = [_points(part, name, run, index) for index, (run, part) in enumerate(_by_run(study).items())]
            figure = {"data": traces, "layout": {"xaxis": axis, "showlegend": len(traces) > 1}}
            charts.append(Chart(f"{names[method]}, {option}: {named(name)}", figure))
    return charts


def _points(rows: list[Row], name: str, run: str, index: int) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(run),
        "x": [escape(str(row["value"])) for row in rows],
        "y": [row[name] for row in rows],
        "error_y": errors(rows, name),
        "line": {"dash": "dot", "width": 1, "color": _colour(index)},
        "marker": {"size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)]},
    }


def masking_charts(rows: list[Row]) -> list[Chart]:
    """A heat map for each method: the target's mean probability under the mask of each class."""
    masks = measured(rows)
    most = top_of_scale(rows, masks)
    by_label = groups(_labelled(rows), "_label")
    return [Chart(label, _heat_map(part, masks, most), 130 + 34 * len(part)) for (label,), part in by_label.items()]


def _heat_map(rows: list[Row], masks: list[str], most: int) -> Figure:
    trace = {
        "type": "heatmap",
        "x": [escape(name) for name in masks],
        "y": [escape(str(row["target"])) for row in rows],
        "z": [[row[name] for name in masks] for row in rows],
        "customdata": [[[row[f"{name}_low"], row[f"{name}_high"]] for name in masks] for row in rows],
        "hovertemplate": "%{y} under %{x}: %{z} [%{customdata[0]}, %{customdata[1]}]<extra></extra>",
        "texttemplate": "%{z:.0f}" if most == 100 else "%{z:.2f}",
        "colorscale": "Cividis",
        "zmin": 0,
        "zmax": most,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
    }
    axes = {
        "yaxis": {"autorange": "reversed", "automargin": True, "title": {"text": "target"}, "type": "category"},
        "xaxis": {"title": {"text": "class of the mask"}, "automargin": True, "type": "category"},
    }
    return {"data": [trace], "layout": axes}


def _lines(rows: list[Row], across: str, name: str, x_title: str, y_title: str, markers: bool = False) -> Figure:
    """A line for each method with its interval as a light band; both come and go by the legend."""
    traces: list[Figure] = []
    for index, ((label,), part) in enumerate(groups(_labelled(rows), "_label").items()):
        ordered = sorted((row for row in part if row[name] is not None), key=lambda row: row[across])
        traces += _line(ordered, across, name, label, index, markers)
    axes = {"xaxis": {"title": {"text": x_title}}, "yaxis": {"title": {"text": y_title}}}
    return {"data": traces, "layout": {**axes, "legend": LEGEND, "showlegend": True}}


def _line(rows: list[Row], across: str, name: str, label: str, index: int, markers: bool) -> list[Figure]:
    places, colour = [row[across] for row in rows], _colour(index)
    common: Figure = {"type": "scatter", "legendgroup": label}
    bounded = [row for row in rows if row[f"{name}_low"] is not None and row[f"{name}_high"] is not None]
    around = [row[across] for row in bounded]
    band = {
        "x": [*around, *reversed(around)],
        "y": [row[f"{name}_low"] for row in bounded] + [row[f"{name}_high"] for row in reversed(bounded)],
        "fill": "toself",
        "fillcolor": _with_alpha(colour, BAND),
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
    }
    line = {
        "x": places,
        "y": [row[name] for row in rows],
        "name": escape(short(label)),
        "meta": escape(label),
        "mode": "lines+markers" if markers else "lines",
        "line": {"color": colour, "dash": DASHES[index % len(DASHES)], "width": 2},
        "marker": {"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 6},
        "hovertemplate": "%{meta}: %{x}, %{y}<extra></extra>",
    }
    return [common | band, common | line]


KINDS: Mapping[tuple[str, ...], Callable[[list[Row]], list[Chart]]] = {
    ("method", "fraction", *with_bounds(CURVES)): curve_charts,
    ("method", "mode", "depth", "layer", *with_bounds(SIMILARITIES)): sanity_charts,
    ("method", "option", "value"): ablation_charts,
    ("method", "target", "images"): masking_charts,
    ("method",): bar_charts,
}
"""What is drawn of a table with these columns; the first that fits."""


def _by_run(rows: list[Row]) -> dict[str, list[Row]]:
    return {run: part for (run,), part in groups([{RUN: "", **row} for row in rows], RUN).items()}


def named(measure: str) -> str:
    """A measure, and which way it is better."""
    return measure.replace("_", " ") + ARROWS[BETTER.get(measure, 0)]


def _labels(rows: list[Row]) -> list[str]:
    """Each row's method, and whose it is where there are several runs."""
    names = names_in(rows)
    return [
        " · ".join(str(names.get(row[name], row[name])) for name in (RUN, "method") if row.get(name) is not None)
        for row in rows
    ]


def _labelled(rows: list[Row]) -> list[Row]:
    return [{"_label": label, **row} for label, row in zip(_labels(rows), rows, strict=True)]


def short(text: str) -> str:
    """Its beginning, if it is too long for an axis."""
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"


def errors(rows: list[Row], name: str) -> Figure:
    """From the value to its bounds; none where there are none."""
    up = [None if row[f"{name}_high"] is None else row[f"{name}_high"] - row[name] for row in rows]
    down = [None if row[f"{name}_low"] is None else row[name] - row[f"{name}_low"] for row in rows]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 3}


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _with_alpha(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
