"""A method's option over a list of values (Group-CAM, Table 2 and Fig. 5; SIGCAM, Table 1; PAMI, Fig. 4 and 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from explainer.attribution.spec import parse_method, split_options
from explainer.evaluation.measures import columns_of
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Table

NAME = "ablation"
COUNTS = ("images", "failed", "maps")
"""Columns that each table has for itself."""


@dataclass(frozen=True)
class Ablation:
    """One option under test.

    Args:
        method: its name with the options that stay, as `--methods` has them.
        option: that varies.
        variants: the method's full text, by value of the option.
    """

    method: str
    option: str
    variants: dict[str, str]


def parse_ablation(text: str) -> Ablation:
    """Read `name:fixed=value,option=first,second,…`: the last option has several values.

    A value with commas of its own stands in brackets or parentheses: `areas=[0.1,0.2],[0.05]`.

    Raises:
        ValueError: for an unknown method or option; where no option, or another than the last one, has several values;
            and for a value that comes twice.
    """
    name, _, rest = text.partition(":")
    options: list[tuple[str, list[str]]] = []
    for item in split_options(rest):
        option, equals, value = item.partition("=")
        if equals and option.isidentifier():  # else a method with options: `base=rise:masks=8,rise:masks=9`
            options.append((option, [value]))
        elif options:
            options[-1][1].append(item)
        else:
            raise _unreadable(text)
    if not options or len(options[-1][1]) < 2 or any(len(values) > 1 for _, values in options[:-1]):
        raise _unreadable(text)
    fixed = [f"{option}={values[0]}" for option, values in options[:-1]]
    option, values = options[-1]
    if len(set(values)) < len(values):
        raise ValueError(f"The ablation '{text}' has a value twice; give each once.")
    variants = {value: f"{name}:{','.join([*fixed, f'{option}={value}'])}" for value in values}
    for variant in variants.values():
        parse_method(variant)
    return Ablation(":".join(filter(None, [name, ",".join(fixed)])), option, variants)


def _unreadable(text: str) -> ValueError:
    return ValueError(
        f"Can't read the ablation '{text}'; write the values of one option at the end, e.g. "
        "group_cam:groups=1,4,8,16,32 or pami_window:step=12,radius=20,40."
    )


def ablation_rows(ablation: Ablation, tables: Mapping[Table, Sequence[MethodScores]]) -> list[Row]:
    """A row for each value, in their order: the main numbers of the tables, side by side.

    The number of images and of failures is that of each table; if there are several, its name stands before them.

    Args:
        ablation: what varied.
        tables: scores of all variants, in each table.
    """
    cells: dict[str, Row] = {variant: {} for variant in ablation.variants.values()}
    for table, scores in tables.items():
        for row in table.main_rows(scores):
            cells[row["method"]] |= {
                f"{table.name}_{name}" if name in COUNTS and len(tables) > 1 else name: value
                for name, value in row.items()
                if name not in ("method", "classifier")
            }
    return [
        {"method": ablation.method, "option": ablation.option, "value": value, **cells[variant]}
        for value, variant in ablation.variants.items()
    ]


def ablation_differences(ablation: Ablation, tables: Mapping[Table, Sequence[MethodScores]]) -> list[Row]:
    """How the values differ, on the same images: for each two, table and measure the first minus the other.

    Args:
        ablation: what varied.
        tables: scores of all variants, in each table; one that compares no methods has no rows.
    """
    values = {variant: value for value, variant in ablation.variants.items()}
    return [
        {
            "method": ablation.method,
            "option": ablation.option,
            "value": values[row["method"]],
            "other": values[row["other"]],
            "table": table.name,
            **{name: row[name] for name in ("measure", *columns_of("difference"), "images")},
        }
        for table, scores in tables.items()
        for row in table.summarise(scores).get(f"{table.name}_differences", [])
    ]
