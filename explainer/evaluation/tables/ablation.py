"""A method's option over a list of values (Group-CAM, Table 2 and Fig. 5; SIGCAM, Table 1; PAMI, Fig. 4 and 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from explainer.attribution.spec import COMMA, parse_method
from explainer.evaluation.records import MethodScores, Row
from explainer.evaluation.tables.base import Files, Table

NAME = "ablation"


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

    Raises:
        ValueError: for an unknown method or option, and where no option, or not the last one, has several values.
    """
    name, _, rest = text.partition(":")
    options: list[tuple[str, list[str]]] = []
    for item in filter(None, COMMA.split(rest)):
        option, equals, value = item.partition("=")
        if equals:
            options.append((option, [value]))
        elif options:
            options[-1][1].append(item)
    if not options or len(options[-1][1]) < 2 or any(len(values) > 1 for _, values in options[:-1]):
        raise ValueError(
            f"Can't read the ablation '{text}'; write the values of one option at the end, e.g. "
            "group_cam:groups=1,4,8,16,32 or pami:second_run=false,radius=10,20."
        )
    fixed = [f"{option}={values[0]}" for option, values in options[:-1]]
    option, values = options[-1]
    variants = {value: f"{name}:{','.join([*fixed, f'{option}={value}'])}" for value in values}
    for variant in variants.values():
        parse_method(variant)
    return Ablation(":".join(filter(None, [name, ",".join(fixed)])), option, variants)


def ablation_rows(ablation: Ablation, tables: dict[Table, Sequence[MethodScores]]) -> list[Row]:
    """A row for each value: the main numbers of some tables.

    Args:
        ablation: what varied.
        tables: scores of its variants, in each table.
    """
    found: dict[str, Row] = {}
    for table, scores in tables.items():
        for row in table.summarise(scores)[table.name]:
            found.setdefault(row["method"], {}).update(row)
    return [
        {"method": ablation.method, "option": ablation.option, "value": value}
        | {name: cell for name, cell in found[text].items() if name != "method"}
        for value, text in ablation.variants.items()
        if text in found
    ]


def ablation_files(rows: list[Row]) -> Files:
    """The table's one file."""
    return {NAME: rows}
