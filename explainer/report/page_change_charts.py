"""Charts of the differences between two runs."""

from html import escape

from explainer.report.columns import groups
from explainer.report.names import names_in
from explainer.report.page_charts import GREY, LEGEND, SYMBOLS, Chart, Figure, errors, named, short
from explainer.report.plots import COLOURS
from explainer.report.tables import Row

VERDICTS = {"better": COLOURS[0], "worse": COLOURS[1], "undecided": GREY}


def change_charts(rows: list[Row]) -> list[Chart]:
    """A chart for each table and measure: the difference of two runs, by method, with its interval."""
    charts, names = [], names_in(rows)
    for (table, measure), part in groups(rows, "table", "measure").items():
        traces = [_changes(part, verdict, index) for index, verdict in enumerate(VERDICTS)]
        methods = [escape(short(names[row["method"]])) for row in part]
        axis = {"autorange": "reversed", "zeroline": False, "tickvals": list(range(len(part))), "ticktext": methods}
        zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 1}}
        layout = {"yaxis": axis, "shapes": [zero], "showlegend": True, "legend": LEGEND}
        title = f"{table.replace('_', ' ')}: {named(measure)}"
        charts.append(
            Chart(title, {"data": [trace for trace in traces if trace["y"]], "layout": layout}, 150 + 26 * len(part))
        )
    return charts


def _changes(rows: list[Row], verdict: str, index: int) -> Figure:
    """The methods with that verdict, at their places among all."""
    chosen = [(place, row) for place, row in enumerate(rows) if row["verdict"] == verdict]
    kept = [row for _, row in chosen]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": verdict,
        "y": [place for place, _ in chosen],
        "x": [row["difference"] for row in kept],
        "error_x": errors(kept, "difference"),
        "customdata": [escape(str(row["method"])) for row in kept],
        "hovertemplate": "%{customdata}: %{x}<extra></extra>",
        "marker": {"size": 10, "symbol": SYMBOLS[index], "color": VERDICTS[verdict]},
    }
