"""What the pages say is true of the code: links, Python, names of curves, messages, columns."""

import ast
import csv
import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest
from documented import PAGES, ROOT, anchors, blocks, command_lines, links, name_of, prose, spans
from PIL import Image

from explainer.attribution import METHODS
from explainer.evaluation.options import TABLES, TableOptions
from explainer.evaluation.tables import masking, on_target, recognition, sanity, segmentation, shortcut
from explainer.evaluation.tables.insertion_deletion import MEASURES as CURVES
from explainer.evaluation.tables.timing import MEASURES as COSTS

EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)
DOCS = ROOT / "docs"
PARTS = ("explainer", "datamodules", "programs")
"""Packages of ours."""


@EACH_PAGE
def test_every_link_leads_to_a_file_and_a_heading_there(page):
    for target, anchor in links(page):
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), f"{target}#{anchor}"


def test_links_and_headings_are_found():
    contributing = ROOT / "CONTRIBUTING.md"
    assert "add-a-data-set" in anchors(contributing)
    assert ("docs/reproduction.md", "not-run") in links(ROOT / "README.md")


@EACH_PAGE
def test_every_block_says_what_it_is(page):
    known = {"sh", "python", "py", "yaml", "text"}
    assert {block.language for block in blocks(page)} <= known


RUNNABLE = [page for page in PAGES if any(block.language == "python" and not block.title for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_the_python_of_a_page_runs_from_its_beginning_to_its_end(page, small_run, tmp_path, capsys):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "photo.jpg")
    code = "\n".join(block.content for block in blocks(page) if block.language == "python" and not block.title)
    code = code.replace('"runs/demo"', repr(str(small_run))).replace("photo.jpg", (tmp_path / "photo.jpg").as_posix())
    exec(compile(code, name_of(page), "exec"), {"__name__": "__main__"})
    if page.stem == "python":
        printed = capsys.readouterr().out
        assert "'disc': '0." in printed
        assert "torch.Size([2, 32, 32])" in printed


@EACH_PAGE
def test_fragments_of_python_are_python(page):
    for block in blocks(page):
        if block.language in ("py", "python"):
            ast.parse(block.content)


CURVE = re.compile(r"^(?:train|val|f_score|segmentation|agreement)/[\w/]+$|^(?:images/s|val_loss|train_loss)$")


@EACH_PAGE
def test_every_curve_that_a_page_names_is_logged(page, small_run):
    with (small_run / "metrics.csv").open(newline="") as opened:
        logged = set(next(csv.reader(opened)))
    named = {span for span in spans(page) if CURVE.match(span) and not span.endswith("/TEACHER")}
    folders = {span for span in named if "/" not in span.rstrip("/") or span.endswith("/")}
    assert named - folders <= logged


def test_troubleshooting_names_curves():
    assert {"val/area_target", "f_score/val_masked", "images/s"} <= set(spans(DOCS / "troubleshooting.md"))


def texts_of_the_code():
    """Every text in the source, the values that are filled in left out."""
    files = [*ROOT.glob("*.py"), *(file for part in PARTS for file in (ROOT / part).rglob("*.py"))]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_every_message_of_the_troubleshooting_page_is_one_of_ours():
    table = prose(DOCS / "troubleshooting.md").partition("## Messages")[2].partition("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    assert len(messages) >= 15
    ours = texts_of_the_code()
    for message in messages:
        for part in message.split("…"):
            assert part.strip() in ours, message


def section(page, heading):
    """The text below a heading of the second level."""
    _, found, rest = f"\n{page.read_text()}".partition(f"\n## {heading}\n")
    assert found, f"no section '{heading}'"
    return rest.partition("\n## ")[0]


COLUMNS = {
    "segmentation": [one.name for one in segmentation.MEASURES] + [*segmentation.SegmentationTable.own_rows],
    "masking": [masking.NONE, masking.specificity(("a", "b")).name],
    "insertion_deletion": [one.name for one in CURVES] + ["fraction"],
    "pointing": ["hit_rate", "over_maps", "hit", *("random", "center")],
    "recognition": [one.name for one in recognition.measures_of([])] + ["threshold", recognition.PLAIN],
    "timing": [one.name for one in COSTS] + ["median_seconds", "classes", "training_hours", "device"],
    "sanity": [*sanity.SIMILARITIES, "depth", "layer", "not_finite"],
    "shortcut": [*shortcut.PARTS, "empty", shortcut.UNIFORM],
}
"""Of the tables with numbers to compare."""


@pytest.mark.parametrize("table", COLUMNS)
def test_every_number_of_a_table_is_defined_with_its_table(table):
    text = section(DOCS / "metrics.md", table)
    assert [name for name in COLUMNS[table] if f"`{name}`" not in text] == []
    assert f"--tables {table}" in text


@pytest.mark.parametrize("table", COLUMNS)
def test_every_option_of_a_table_is_told_with_its_numbers(table):
    options = next((item.default_factory for item in fields(TableOptions) if item.name == table), None)
    names = [item.name for item in fields(options)] if options else []
    text = section(DOCS / "metrics.md", table)
    assert [name for name in names if f"--{table}.{name}" not in text] == []


def test_every_table_has_its_place_on_both_pages():
    pictures = section(DOCS / "metrics.md", "Tables with pictures")
    for table in TABLES:
        assert table in COLUMNS or f"`{table}`" in pictures
        assert f"| `{table}` |" in (DOCS / "evaluation.md").read_text()
    assert on_target.shares_on_target.__doc__ and "`on_target`" in pictures


def test_the_pages_of_the_documentation_are_all_in_its_index():
    index = {target for target, _ in links(DOCS / "README.md")}
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("**/*.md")} - {"README.md"}
    assert pages <= index


def test_the_readme_stays_short():
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 60
    assert [command_lines(block.content) for block in blocks(readme)] == [[["make", "demo"], ["make", "test"]]]
    assert len(re.findall(r"!\[", prose(readme))) == 2  # of the demo, and of its report


DOCTESTED = [file for folder in PARTS for file in sorted((ROOT / folder).rglob("*.py")) if ">>>" in file.read_text()]


@pytest.mark.parametrize("file", DOCTESTED, ids=name_of)
def test_the_examples_of_docstrings_give_what_they_say(file):
    doctest = importlib.import_module("doctest")
    module = importlib.import_module(".".join(Path(name_of(file)).with_suffix("").parts))
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.attempted and not found.failed


def test_there_are_examples():
    assert len(DOCTESTED) >= 5


def test_every_method_is_named_on_its_pages():
    overview, page = spans(DOCS / "attribution.md"), (DOCS / "api" / "attribution.md").read_text()
    assert [name for name in METHODS if name not in overview] == []
    assert [name for name, method in METHODS.items() if f"{method.__module__}.{method.__qualname__}" not in page] == []
