"""The CSV is the truth: what is read back is what was written, and the other tables show that and nothing else."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from explainer.report.tables import latex, markdown, read_table, write_table

ROWS = [
    {"method": "grad_cam", "iou": 61.7424, "iou_low": 60.1, "iou_high": 63.2, "images": 400, "note": "a|b"},
    {"method": "rise:masks=5,seed=0", "iou": None, "iou_low": None, "iou_high": None, "images": 7, "note": None},
]


def column(text, index):
    """The cells of a Markdown table's column, below its header."""
    return [line.split("|")[index + 1].strip() for line in text.splitlines()[2:]]


def test_what_is_read_back_is_what_was_written_with_its_type(tmp_path):
    write_table(ROWS, tmp_path / "table")
    found = read_table(tmp_path / "table.csv")
    assert found == ROWS
    assert [type(value) for value in found[0].values()] == [str, float, float, float, int, str]


@pytest.mark.parametrize(
    "value, cell",
    [
        (1 / 3, "0.333333"),
        (1234567.8, "1.23457e+06"),
        (-1.2e-7, "-1.2e-07"),
        (2.0, "2"),
        (123456789, "123456789"),
        (np.float32(0.1), "0.1"),
        (np.int64(5), "5"),
        (math.nan, ""),
        (np.float64("nan"), ""),
        (None, ""),
        (-math.inf, "-inf"),
        ("2007_000033", "2007_000033"),
        ("0012", "0012"),
        ("nan", "nan"),
        ("1e3x", "1e3x"),
        ("zwölf", "zwölf"),
        (True, "True"),
    ],
)
def test_numbers_keep_six_digits_and_names_stay_names(tmp_path, value, cell):
    write_table([{"method": "x", "value": value}], tmp_path / "table")
    assert (tmp_path / "table.csv").read_bytes().decode() == f"method,value\nx,{cell}\n"
    (row,) = read_table(tmp_path / "table.csv")
    if cell == "":
        assert row["value"] is None
    elif isinstance(value, str | bool):
        assert row["value"] == cell
    else:
        assert row["value"] == pytest.approx(float(value), rel=1e-5)


def test_commas_quotes_and_line_breaks_survive(tmp_path):
    rows = [{"method": 'a:b=1,c="x"', "note": "two\nlines\r\n"}]
    write_table(rows, tmp_path / "table")
    assert read_table(tmp_path / "table.csv") == rows


def test_markdown_and_latex_are_those_of_the_csv(tmp_path):
    rows = [{"method": "a", "x": 1 / 3, "y": np.float64(2), "z": math.nan}, {"method": "", "x": 1e-9, "y": 3, "z": 1.5}]
    write_table(rows, tmp_path / "table")
    from_csv = read_table(tmp_path / "table.csv")
    for show, suffix in ((markdown, "md"), (latex, "tex")):
        assert (tmp_path / f"table.{suffix}").read_text() == show(from_csv) == show(rows)


def test_a_dot_in_the_name_is_no_suffix(tmp_path):
    write_table(ROWS, tmp_path / "new" / "vgg16_v1.5")
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert names == {"vgg16_v1.5.csv", "vgg16_v1.5.md", "vgg16_v1.5.tex"}


def test_rows_with_other_columns_are_an_error_that_names_them_and_nothing_is_written(tmp_path):
    rows = [{"method": "a", "iou": 1.0}, {"method": "b", "sal": 2.0}]
    for refused in (lambda: write_table(rows, tmp_path / "table"), lambda: markdown(rows), lambda: latex(rows)):
        with pytest.raises(ValueError, match="Row 2 lacks iou and has sal besides"):
            refused()
    assert not list(tmp_path.iterdir())


def test_the_order_of_the_first_rows_keys_is_that_of_the_columns(tmp_path):
    write_table([{"b": 1, "a": 2}, {"a": 4, "b": 3}], tmp_path / "table")
    assert (tmp_path / "table.csv").read_text() == "b,a\n1,2\n3,4\n"


def test_a_table_without_rows_is_an_error(tmp_path):
    for refused in (lambda: write_table([], tmp_path / "table"), lambda: markdown([]), lambda: latex([])):
        with pytest.raises(ValueError, match="no rows"):
            refused()


@pytest.mark.parametrize(("owner", "failing"), [(Path, "replace"), (os, "fsync")], ids=["moving", "writing"])
def test_a_table_that_can_not_be_written_leaves_the_old_one_whole(tmp_path, monkeypatch, owner, failing):
    write_table(ROWS, tmp_path / "table")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, failing, full)
        with pytest.raises(OSError, match="No space"):
            write_table([{"method": "other"}], tmp_path / "table")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("text, message", [("", "is empty"), ("a,b\n1\n", "Row 1 .* 1 cells, its header 2")])
def test_a_damaged_file_is_an_error_that_says_where(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "table.csv")


def test_markdown_folds_intervals_aligns_numbers_and_escapes_pipes():
    assert markdown(ROWS).splitlines() == [
        "| method | iou | images | note |",
        "| --- | ---: | ---: | --- |",
        r"| grad_cam | 61.74 [60.10, 63.20] | 400 | a\|b |",
        "| rise:masks=5,seed=0 | – | 7 | – |",
    ]


def test_a_pipe_that_is_escaped_already_stays_so():
    assert r"| a\|b |" in markdown([{"x": r"a\|b"}])


def test_a_value_without_bounds_stands_alone_and_half_an_interval_is_not_folded():
    alone = [{"method": "a", "x": 0.5, "x_low": None, "x_high": None}]
    assert markdown(alone).splitlines()[2] == "| a | 0.500 |"
    half = [{"method": "a", "x": 0.5, "x_low": 0.25}]
    assert markdown(half).splitlines()[0] == "| method | x | x_low |"


@pytest.mark.parametrize(
    "values, shown",
    [
        ([61.7424, 5.0, 100.0], ["61.74", "5.00", "100.00"]),
        ([0.61742, 0.5], ["0.617", "0.500"]),
        ([0.031234, 0.04], ["0.0312", "0.0400"]),
        ([0.0012345, 0.0023], ["0.0012", "0.0023"]),
        ([1.2345e-5, -2e-6, 0.0], ["1.2e-05", "-2.0e-06", "0"]),
        ([512.34, 100.0], ["512.3", "100.0"]),
        ([51234.5, 40000.0], ["51234", "40000"]),
        ([61.7, 0.00001234, -0.0], ["61.70", "1.2e-05", "0.00"]),
        ([3, 40000], ["3", "40000"]),
        ([1.0, 2.0], ["1", "2"]),
        ([math.inf, 0.25], ["inf", "0.250"]),
    ],
)
def test_the_typical_number_of_a_column_shows_three_or_four_digits(values, shown):
    assert column(markdown([{"x": value} for value in values]), 0) == shown


def test_bounds_have_the_decimals_of_their_value_and_no_negative_zero():
    rows = [{"x": 100, "x_low": 99.5, "x_high": 100}, {"x": 0.0, "x_low": -1e-9, "x_high": 12.25}]
    assert column(markdown(rows), 0) == ["100.00 [99.50, 100.00]", "0.00 [0.00, 12.25]"]


def test_a_column_with_a_word_in_it_is_text():
    lines = markdown([{"value": 0.001}, {"value": "auto"}, {"value": None}]).splitlines()
    assert lines[1:] == ["| --- |", "| 0.001 |", "| auto |", "| – |"]


def test_latex_is_a_whole_booktabs_table():
    assert latex(ROWS).splitlines() == [
        r"% Needs \usepackage{booktabs} in the preamble.",
        r"\begin{tabular}{lrrl}",
        r"\toprule",
        r"method & iou & images & note \\",
        r"\midrule",
        r"grad\_cam & 61.74 {\scriptsize [60.10, 63.20]} & 400 & a\textbar{}b \\",
        r"rise:masks=5,seed=0 & -- & 7 & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_escapes_what_it_would_read_as_commands():
    text = latex([{"a_b": r"_&%#{}~^\$[<", "value": 1}])
    assert r"a\_b & value \\" in text
    escaped = r"\_\&\%\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\${[}\textless{}"
    assert escaped + r" & 1 \\" in text.splitlines()


def test_latex_numbers_have_minus_signs_and_powers_of_ten():
    assert r"$-$1.56 {\scriptsize [$-$2.00, 0.50]} \\" in latex([{"sal": -1.56, "sal_low": -2.0, "sal_high": 0.5}])
    assert r"$-1.2 \cdot 10^{-5}$ \\" in latex([{"x": -1.2e-5}])
    assert r"i-gos \\" in latex([{"x": "i-gos"}])
