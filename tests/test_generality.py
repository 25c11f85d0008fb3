"""Every method explains every kind of backbone or says why it can't, and docs/generality.md has it right.

The families are narrow ones (`small_families.py`): what a method can or can't do with a classifier depends on what it
is made of, not on how wide it is. The page's data come from the nine at full size.
"""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from small_families import FAMILIES, small_explanandum
from toy_models import state_of

from docs import generality_page as page
from explainer.attribution import METHODS
from explainer.report.tables import read_table, write_csv

DOCS = Path(page.__file__).parent
AGAIN = "make the page again: python docs/generality_page.py"
TRANSFORMERS = {"ConvNeXt-T", "ViT-B/16", "Swin-T"}
"""And what is made of the same steps: LayerNorm and GELU instead of BatchNorm and ReLU."""
CANNOT = {
    "full_grad": (
        {"SE-ResNet-50", *TRANSFORMERS},
        r"linear pieces, which this one does not have, because of \w+Backward",
    ),
    "guided_backprop": (TRANSFORMERS, "no ReLU to guide"),
    "lrp": (TRANSFORMERS, "no rule for 'layer_norm'"),
}
"""All that can't be explained: by which method, which families, and why."""

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


@cache
def subject(family):
    """The explanandum and two images; not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        explanandum = small_explanandum(family, page.BACKBONES[family].small)
    return explanandum, page.settle(explanandum)


@cache
def reason(family, method):
    """Why the method can't explain the family; None if its maps are finite, of the images' size and not flat."""
    explanandum, image = subject(family)
    return page.reason_against(method, explanandum, [image])


@cache
def committed(name):
    """The rows of a file of the page's data."""
    return read_table(DOCS / f"{name}.csv")


def without_numbers(text):
    """The names of layers, whatever the depth of the classifier."""
    return re.sub(r"\d+", "", text)


def without_steps(text):
    """A reason without the names that this version of PyTorch, on this processor, has for its steps."""
    return re.sub(r"because of .*?;", "because of …;", text or "")


@EVERY_FAMILY
@EVERY_METHOD
def test_every_method_gives_maps_or_the_right_reason(method, family):
    families, expected = CANNOT.get(method, ((), ""))
    found = reason(family, method)
    if family in families:
        assert re.search(expected, found or "it gives maps")
    else:
        assert found is None


@EVERY_FAMILY
def test_no_method_leaves_a_trace_in_a_real_architecture(family):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untouched = small_explanandum(family, page.BACKBONES[family].small)
    page.settle(untouched)
    for method in METHODS:
        reason(family, method)
    assert state_of(subject(family)[0]) == state_of(untouched)


@EVERY_FAMILY
def test_the_page_says_of_the_full_backbone_what_holds_for_its_family(family):
    written = {
        row["method"]: without_steps(row["reason"]) for row in committed("generality") if row["backbone"] == family
    }
    assert written == {method: without_steps(reason(family, method)) for method in METHODS}, AGAIN


@EVERY_FAMILY
def test_the_target_layer_is_found_and_is_the_page_s(family):
    explanandum, image = subject(family)
    (row,) = [row for row in committed("generality_layers") if row["backbone"] == family]
    layer = page.layer_of(explanandum)
    assert without_numbers(layer["target layer"]) == without_numbers(row["target layer"]), AGAIN
    assert layer["cells"] == ("4 × 4" if family == "ViT-B/16" else "2 × 2")
    assert len(layer["output"].split(" × ")) == len(row["output"].split(" × "))  # tokens are tokens in both


@pytest.mark.parametrize("backbone", ["DenseNet-121", "ResNet-50"])
def test_the_page_s_row_of_a_target_layer_is_what_is_found_at_full_size(backbone):
    assert page.layer_row(backbone) in committed("generality_layers"), AGAIN


def test_the_page_is_made_from_its_data():
    assert (DOCS / "generality.md").read_text() == page.page_text(DOCS), AGAIN


def test_some_are_looked_at_again_and_the_rest_is_kept(tmp_path):
    wrong = [row | {"reason": "wrong"} for row in committed("generality")]
    write_csv(wrong, tmp_path / "generality")
    write_csv(committed("generality_layers"), tmp_path / "generality_layers")
    some = ("guided_backprop", "grad_cam", "center")
    arguments = ["--backbones", "RegNet-X", "--methods", *some, "--output", str(tmp_path)]
    assert page.main(arguments) == tmp_path / "generality.md"
    expected = [
        right if right["backbone"] == "RegNet-X" and right["method"] in some else row
        for row, right in zip(wrong, committed("generality"), strict=True)
    ]
    assert read_table(tmp_path / "generality.csv") == expected, AGAIN
    assert read_table(tmp_path / "generality_layers.csv") == committed("generality_layers")


def test_a_reason_stands_in_one_note_that_all_its_cells_name(tmp_path):
    data = [("VGG-16", "a", None), ("VGG-16", "b", "no way"), ("Swin-T", "a", "not so"), ("Swin-T", "b", "no way")]
    rows = [dict(zip(("backbone", "method", "reason"), row, strict=True)) for row in [*data, ("Swin-T", "c", None)]]
    write_csv(rows, tmp_path / "generality")
    write_csv(committed("generality_layers"), tmp_path / "generality_layers")
    assert page.page_text(tmp_path).endswith(
        "| method | VGG-16 | Swin-T |\n| --- | --- | --- |\n"
        "| `a` | ✓ | no [^1] |\n| `b` | no [^2] | no [^2] |\n| `c` | – | ✓ |\n\n[^1]: not so\n[^2]: no way\n"
    )


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(2, 64, 64), "'center' says nothing"),
        (torch.full((2, 64, 64), float("nan")), "'center' gives"),
        (torch.rand(2, 32, 32), r"'center' gives \[2, 32, 32\]"),
    ],
    ids=["flat", "nan", "small"],
)
def test_the_page_takes_no_bad_map_for_one(maps, message, monkeypatch):
    monkeypatch.setattr(METHODS["center"], "__call__", lambda *_: maps)
    explanandum, image = subject("ViT-B/16")
    with pytest.raises(ValueError, match=message):
        page.reason_against("center", explanandum, [image])


def test_an_unknown_backbone_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        page.main(["--backbones", "AlexNet"])
    assert re.search(r"AlexNet.*VGG-16.*Swin-T", capsys.readouterr().err)
