"""Ablations: what is read from a command line, and rows in the order of the values, tables side by side."""

import pytest
import torch
from toy_models import SIZE, SmallNet, freeze
from toy_tables import cells, make_images, noise, scores_of

from explainer.attribution.spec import parse_method, split_options
from explainer.evaluation.options import TABLES, Setting, TableOptions, make_table
from explainer.evaluation.records import MethodScores
from explainer.evaluation.tables import (
    InsertionDeletionOptions,
    InsertionDeletionTable,
    MaskingOptions,
    MaskingTable,
    SegmentationOptions,
    SegmentationTable,
    SplitFacts,
)
from explainer.evaluation.tables.ablation import Ablation, ablation_differences, ablation_rows, parse_ablation

RISE = ("rise:masks=9", "rise:masks=3", "rise:masks=27")


@pytest.mark.parametrize(
    "text, method, option, variants",
    [
        (
            "group_cam:groups=1,16,4",
            "group_cam", "groups", {"1": "group_cam:groups=1", "16": "group_cam:groups=16", "4": "group_cam:groups=4"},
        ),
        (
            "pami_window:step=12,radius=20,40",  # as the error has it
            "pami_window:step=12", "radius",
            {"20": "pami_window:step=12,radius=20", "40": "pami_window:step=12,radius=40"},
        ),
        (
            "extremal:areas=[0.1,0.2],score=logit,probability",
            "extremal:areas=[0.1,0.2]", "score",
            {
                "logit": "extremal:areas=[0.1,0.2],score=logit",
                "probability": "extremal:areas=[0.1,0.2],score=probability",
            },
        ),
        (
            "extremal:areas=[0.1,0.2],[0.05]",
            "extremal", "areas", {"[0.1,0.2]": "extremal:areas=[0.1,0.2]", "[0.05]": "extremal:areas=[0.05]"},
        ),
        (
            "aop:base=(rise:masks=8,cells=5),(rise:masks=9)",
            "aop", "base",
            {
                "(rise:masks=8,cells=5)": "aop:base=(rise:masks=8,cells=5)",
                "(rise:masks=9)": "aop:base=(rise:masks=9)",
            },
        ),
        (
            "aop:base=grad_cam,rise:masks=9",
            "aop", "base", {"grad_cam": "aop:base=grad_cam", "rise:masks=9": "aop:base=rise:masks=9"},
        ),
        (
            "aop:base=(rise:masks=8,cells=5),optimiser=(i_gos),(mask)",
            "aop:base=(rise:masks=8,cells=5)", "optimiser",
            {
                "(i_gos)": "aop:base=(rise:masks=8,cells=5),optimiser=(i_gos)",
                "(mask)": "aop:base=(rise:masks=8,cells=5),optimiser=(mask)",
            },
        ),
    ],
)  # fmt: skip
def test_the_last_option_has_several_values(text, method, option, variants):
    found = parse_ablation(text)
    assert found == Ablation(method, option, variants)
    assert list(found.variants) == list(variants)
    for variant in variants.values():
        assert option in parse_method(variant).options


@pytest.mark.parametrize(
    "text, message",
    [
        ("rise", "Can't read the ablation 'rise'; write the values of one option at the end"),
        ("rise:", "Can't read"),
        ("rise:masks=5", "Can't read"),
        ("rise:5,masks=1,2", "Can't read"),
        ("rise:masks=1,2,seed=3", "Can't read"),
        ("rise:masks=1,2,seed=3,4", "Can't read"),
        ("extremal:areas=[0.1,0.2]", "Can't read"),
        ("rise:masks=5,5", "has a value twice"),
        ("risse:masks=5,6", "Unknown method 'risse'"),
        ("rise:mask=5,6", "Unknown option 'mask=5' of method 'rise'"),
        ("rise:mask=5,masks=1,2", "Unknown option 'mask=5' of method 'rise'"),
    ],
)
def test_what_is_no_ablation_is_refused_with_the_reason(text, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_ablation(text)


def scenes(explanandum):
    mask = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    mask[:, :8] = 1
    return make_images(explanandum, noise(2, 3, SIZE, SIZE), [[0], [0, 1]], mask=mask)


def made(table, images):
    """Scores of three variants, in another order than that of the values."""
    return [scores_of(table, images, noise(2, 3, SIZE, SIZE, seed=len(text)), text) for text in sorted(RISE)]


def test_the_rows_have_the_order_of_the_values_and_the_tables_main_numbers():
    explanandum = freeze(SmallNet())
    table, images = InsertionDeletionTable(explanandum, InsertionDeletionOptions(step=0.25)), scenes(explanandum)
    rows = ablation_rows(parse_ablation("rise:masks=9,3,27"), {table: made(table, images)})
    assert [cells(row, "method", "option", "value") for row in rows] == [
        ["rise", "masks", value] for value in ("9", "3", "27")
    ]
    main = {row["method"]: row for row in table.main_rows(made(table, images))}
    for row, text in zip(rows, RISE, strict=True):
        names = [name for name in main[text] if name != "method"]
        assert cells(row, *names) == cells(main[text], *names)
    assert list(rows[0])[:4] == ["method", "option", "value", "insertion"]
    assert list(rows[0])[-3:] == ["images", "failed", "maps"]


def test_several_tables_stand_side_by_side_each_with_its_own_counts():
    explanandum = freeze(SmallNet())
    images = scenes(explanandum)
    tables = [
        SegmentationTable(explanandum, SegmentationOptions()),
        MaskingTable(explanandum, MaskingOptions(("dog", "cat"))),
    ]
    scores = {table: made(table, images) for table in tables}
    failed = scores[tables[0]][0]
    failed.failed["image0"] = "why"
    del failed.rows["image0"]
    rows = ablation_rows(parse_ablation("rise:masks=9,3,27"), scores)
    assert len({tuple(row) for row in rows}) == 1
    for row, text in zip(rows, RISE, strict=True):
        segmentation, masking = (
            next(row for row in table.main_rows(scores[table]) if row["method"] == text) for table in tables
        )
        assert row["iou"] == segmentation["iou"]
        # One number a method, not a row of its matrix.
        assert row["specificity"] == masking["specificity"]
        assert row["segmentation_images"] == segmentation["images"]
        assert row["masking_images"] == 2
    assert [row["segmentation_failed"] for row in rows] == [int(text == sorted(RISE)[0]) for text in RISE]


def test_values_are_compared_as_each_table_compares_methods():
    explanandum = freeze(SmallNet())
    images = scenes(explanandum)
    tables = [
        SegmentationTable(explanandum, SegmentationOptions()),
        MaskingTable(explanandum, MaskingOptions(("dog", "cat"))),
    ]
    scores = {table: made(table, images) for table in tables}
    ablation = parse_ablation("rise:masks=9,3,27")
    rows = ablation_differences(ablation, scores)
    assert list(rows[0]) == [
        "method", "option", "value", "other", "table", "measure",
        "difference", "difference_low", "difference_high", "images",
    ]  # fmt: skip
    assert len({tuple(row) for row in rows}) == 1
    expected = [
        [ablation.variants[row["value"]], ablation.variants[row["other"]], row["measure"], row["difference"]]
        for row in rows
    ]
    assert expected == [
        cells(row, "method", "other", "measure", "difference")
        for table in tables
        for row in table.summarise(scores[table])[f"{table.name}_differences"]
    ]
    assert {row["table"] for row in rows} == {"segmentation", "masking"}
    assert [cells(row, "method", "option", "images") for row in rows] == [["rise", "masks", 2]] * 15


def test_a_variant_that_failed_throughout_keeps_its_row():
    explanandum = freeze(SmallNet())
    table, images = InsertionDeletionTable(explanandum, InsertionDeletionOptions(step=0.25)), scenes(explanandum)
    scores = made(table, images)
    scores[0] = MethodScores(scores[0].method, {}, {"image0": "why", "image1": "why"})
    rows = ablation_rows(parse_ablation("rise:masks=9,3,27"), {table: scores})
    assert [cells(row, "value", "images", "failed") for row in rows] == [["9", 2, 0], ["3", 2, 0], ["27", 0, 2]]
    assert rows[2]["insertion"] is None
    assert len({tuple(row) for row in rows}) == 1


def setting_of(**changes):
    explanandum = freeze(SmallNet())
    facts = {"split": SplitFacts(True, True, True), "masking_classes": lambda: ("cat", "dog"), "shortcut_class": "cat"}
    given = {"explanandum": explanandum, "training_hours": {}, "rebuild": lambda *_: None, **facts, **changes}
    return Setting(**given)


@pytest.mark.parametrize("name", list(TABLES))
def test_every_table_has_one_main_row_a_method_also_for_one_without_a_score(name):
    """Or it could not be ablated: `ablation_rows` takes any."""
    table = make_table(name, TableOptions(), setting_of())
    rows = table.main_rows([MethodScores("a", {}, {"image0": "why"}), MethodScores("b", {}, {})])
    assert [cells(row, "method", "images", "failed") for row in rows] == [["a", 0, 1], ["b", 0, 0]]


def test_every_table_is_made_by_its_name_with_its_own_options():
    options = TableOptions()
    options.segmentation = SegmentationOptions(void="foreground")
    for name, kind in TABLES.items():
        table = make_table(name, options, setting_of())
        assert type(table) is kind
        assert table.name == name
    assert make_table("segmentation", options, setting_of()).options.void == "foreground"
    assert make_table("timing", options, setting_of(training_hours={"explainer": 2.0})).training_hours == {
        "explainer": 2.0
    }


def test_a_table_that_the_split_does_not_allow_and_an_unknown_one_are_errors_with_the_reason():
    setting = setting_of(split=SplitFacts(False, False, False))
    with pytest.raises(ValueError, match="'segmentation' can't be made: no image of the split has a segmentation mask"):
        make_table("segmentation", TableOptions(), setting)
    with pytest.raises(ValueError, match="Unknown table 'segmentations'; choose one of: segmentation, masking"):
        make_table("segmentations", TableOptions(), setting)


def test_tables_with_other_options_have_other_keys_and_equal_ones_equal_keys():
    """By the key a score is found again: the wrong one would be taken for a table's that it does not belong to."""
    settings, plain = setting_of(), TableOptions()
    changed = TableOptions()
    changed.segmentation = SegmentationOptions(void="foreground")
    keys = [make_table(name, plain, settings).key for name in TABLES]
    assert len(set(keys)) == len(TABLES)
    assert keys == [make_table(name, TableOptions(), settings).key for name in TABLES]
    assert make_table("segmentation", changed, settings).key not in keys


def test_brackets_within_brackets_part_no_options():
    assert split_options("base=(rise:masks=8,cells=[5,5]),theta=0.1") == [
        "base=(rise:masks=8,cells=[5,5])",
        "theta=0.1",
    ]
    with pytest.raises(ValueError, match="brackets of 'a=\\[1,2' don't match"):
        split_options("a=[1,2")
