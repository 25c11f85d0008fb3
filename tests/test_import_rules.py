"""Who imports whom: the rules that keep the parts apart, checked in the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = {"train", "evaluate", "explain"}
PARTS = (
    "classifier_options",
    "command_line",
    "evaluate_options",
    "evaluate_plan",
    "evaluate_subject",
    "explain_options",
    "explain_subject",
)
"""Of the programs, which they share or which make their files shorter."""
OURS = {"explainer", "datamodules", "benchmarks", *PARTS, *PROGRAMS}
OPTIONAL = {"cv2", "matplotlib", "skimage", "captum", "pycocotools", "plotly"}
OPTIONAL |= {"gradio", "fastapi", "starlette", "uvicorn"}
"""Not needed for training a classifier and an Explainer, so importing the packages must not need them either."""
SHARED_BY_METHODS = {
    "backward",
    "base",
    "catalogue",
    "spec",
    "perturb",
    "cam",
    "checks",
    "constants",
    "capture",
    "graph",
    "mask_optimisation",
    "pami_parts",
    "relevance",
    "superpixels",
    "__init__",
}
"""Files of explainer/attribution that hold no method, or every method's name."""


def sources(*folders):
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


LIBRARY = sources("explainer", "datamodules")
TOP_LEVEL = (*PARTS, *sorted(PROGRAMS))
EVERYTHING = [*LIBRARY, *sources("benchmarks"), *(ROOT / f"{name}.py" for name in TOP_LEVEL)]


def name_of(file):
    """explainer/attribution/base.py -> explainer.attribution.base."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree, package=""):
    """Every module that is imported, as `a.b`; of `from a.b import c` also `a.b.c`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: -node.level or None], base]).strip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_by(file):
    return set(imports(ast.parse(file.read_text()), name_of(file)))


def ours(names):
    return {name for name in names if name.split(".")[0] in OURS}


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def named(file):
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", EVERYTHING, ids=named)
def test_nothing_imports_the_programs(file):
    heads = {name.split(".")[0] for name in imported_by(file)}
    if not named(file).startswith("benchmarks"):  # they time what the programs do
        assert not heads & PROGRAMS
    assert "benchmarks" not in heads
    assert "tests" not in heads


@pytest.mark.parametrize("file", sources("datamodules"), ids=named)
def test_data_modules_import_nothing_else_of_ours(file):
    assert all(within(name, "datamodules") for name in ours(imported_by(file)))


@pytest.mark.parametrize("file", sources("explainer/report"), ids=named)
def test_reports_import_nothing_else_of_ours(file):
    assert all(within(name, "explainer.report") for name in ours(imported_by(file)))


@pytest.mark.parametrize("file", sources("explainer"), ids=named)
def test_the_library_takes_only_the_batch_and_the_preparation_of_images_from_the_data_modules(file):
    taken = {name for name in ours(imported_by(file)) if not within(name, "explainer")}
    allowed = ["batch"]
    if file.name == "explaining.py":  # photographs that are no data set's, prepared as a data set's are
        allowed += ["images", "sample", "transforms"]
    assert all(any(within(name, f"datamodules.{part}") for part in allowed) for name in taken)


METHOD_FILES = [file for file in sources("explainer/attribution") if file.stem not in SHARED_BY_METHODS]


@pytest.mark.parametrize("file", METHOD_FILES, ids=named)
def test_methods_never_import_each_other(file):
    others = {name_of(other) for other in METHOD_FILES if other != file}
    taken = imported_by(file)
    assert not [name for name in taken for other in others if within(name, other)]
    assert not [name for name in taken if name == "explainer.attribution" or name.endswith(".METHODS")]


@pytest.mark.parametrize("file", sources("explainer/attribution", "explainer/metrics"), ids=named)
def test_methods_and_metrics_know_the_classifier_and_masks_but_no_training(file):
    allowed = ["attribution", "metrics", "capture", "explanandum", "masking", "network"]
    for name in ours(imported_by(file)) - {"explainer"}:
        assert any(within(name, f"explainer.{part}") for part in allowed), name


@pytest.mark.parametrize("file", sources("explainer/sequences"), ids=named)
def test_sequences_take_only_what_knows_no_images(file):
    allowed = ["sequences", "attribution.pami_parts", "attribution.checks"]
    for name in ours(imported_by(file)) - {"explainer", "explainer.attribution"}:
        assert any(within(name, f"explainer.{part}") for part in allowed), name


@pytest.mark.parametrize("file", LIBRARY, ids=named)
def test_what_training_does_not_need_is_imported_where_it_is_used(file):
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    assert not {name.split(".")[0] for name in imports(tree)} & OPTIONAL


def test_the_rules_see_what_they_should():
    tree = ast.parse("from . import a\nfrom .b import c\nimport d.e\nfrom f import g\ndef h():\n    import cv2")
    found = set(imports(tree, "explainer.attribution.x"))
    assert {"explainer.attribution.a", "explainer.attribution.b.c", "d.e", "f.g", "cv2"} <= found
    assert METHOD_FILES
    assert len(EVERYTHING) > 30
