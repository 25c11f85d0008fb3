"""The shortcut table: shares of mass that are known, for several classifiers, and empty maps that have none.

H×W pixels.
"""

import pytest
import torch
from toy_models import SIZE, SmallNet, freeze
from toy_tables import cells, have_equal_columns, make_images, noise, own_scores, scores_of

from explainer.evaluation.options import Setting, TableOptions, make_table
from explainer.evaluation.tables import ShortcutOptions, ShortcutTable, SplitFacts

PARTS = ("object", "cue", "rest")
DOG = 1


def table_of():
    explanandum = freeze(SmallNet())
    return ShortcutTable(explanandum, ShortcutOptions("dog")), explanandum


def scenes(explanandum, labels=((1,), (0, 1))):
    """A dog on the upper half, a cue on an eighth below it, and, where there is one, a cat on the last row."""
    count = len(labels)
    mask = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    cue = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    for index, classes in enumerate(labels):
        if DOG in classes:
            mask[index, : SIZE // 2] = DOG + 1
        if 0 in classes:
            mask[index, -1] = 1
        cue[index, SIZE // 2 : SIZE // 2 + SIZE // 8] = True
    return make_images(explanandum, noise(count, 3, SIZE, SIZE), list(map(list, labels)), mask=mask, cue_mask=cue)


def shown(table, *scores):
    return [cells(row, *PARTS) for row in table.summarise(scores)["shortcut"]]


@pytest.mark.parametrize("part", range(3))
def test_a_map_on_one_part_has_all_of_its_mass_there(part):
    table, explanandum = table_of()
    images = scenes(explanandum)
    dog = images.batch.mask == DOG + 1
    region = (dog, images.batch.cue_mask, ~dog & ~images.batch.cue_mask)[part]
    maps = region[:, None].float().expand(-1, 3, -1, -1)
    expected = [100 if index == part else 0 for index in range(3)]
    assert shown(table, scores_of(table, images, maps, unit_range=True)) == [pytest.approx(expected)]
    assert shown(table, scores_of(table, images, 7 * maps - 3)) == [pytest.approx(expected)]


def test_the_uniform_row_shows_the_shares_of_the_image():
    table, explanandum = table_of()
    assert shown(table, own_scores(table, scenes(explanandum), "uniform")) == [pytest.approx([50, 12.5, 37.5])]


def test_a_random_map_is_close_to_uniform():
    table, explanandum = table_of()
    found = shown(table, scores_of(table, scenes(explanandum), noise(2, 3, SIZE, SIZE)))
    assert found == [pytest.approx([50, 12.5, 37.5], abs=2)]


def test_what_covers_the_object_is_the_cue():
    table, explanandum = table_of()
    images = scenes(explanandum, [[1]])
    images.batch.cue_mask[:] = images.batch.mask == DOG + 1
    assert shown(table, own_scores(table, images, "uniform")) == [pytest.approx([0, 50, 50])]


def test_only_images_with_the_class_and_its_cue_count():
    table, explanandum = table_of()
    images = scenes(explanandum, [[1], [0], [1], [], [0, 1, 2]])
    images.batch.cue_mask[2] = False
    reason = "without both the class that is given away and its cue"
    assert table.left_out(images) == ["", reason, reason, reason, ""]
    assert table.asks(images).nonzero().tolist() == [[0, DOG], [4, DOG]]
    assert list(own_scores(table, images, "uniform").rows) == ["image0", "image4"]


@pytest.mark.parametrize("value", [0.0, -1.0, 0.4])
def test_an_empty_map_has_no_share_and_is_counted(value):
    table, explanandum = table_of()
    images = scenes(explanandum)
    maps = images.batch.cue_mask[:, None].float().repeat(1, 3, 1, 1)
    maps[1] = value  # a flat map is an empty one
    scores = scores_of(table, images, maps)
    assert cells(scores.rows["image1"][0], *PARTS) == [None] * 3
    (row,) = table.summarise([scores])["shortcut"]
    assert cells(row, *PARTS, "images", "empty") == [0, 100, 0, 2, 1]
    all_empty = scores_of(table, images, torch.zeros(2, 3, SIZE, SIZE))
    (row,) = table.summarise([all_empty])["shortcut"]
    assert cells(row, *PARTS, "images", "empty") == [None, None, None, 2, 2]


def test_classifiers_stand_side_by_side_and_only_methods_of_the_same_one_are_compared():
    table, explanandum = table_of()
    images = scenes(explanandum)
    cue = images.batch.cue_mask[:, None].float().expand(-1, 3, -1, -1)
    dog = (images.batch.mask == DOG + 1)[:, None].float().expand(-1, 3, -1, -1)
    scores = [
        scores_of(table, images, cue, "a", classifier="fooled"),
        scores_of(table, images, dog, "b", classifier="fooled"),
        own_scores(table, images, "uniform"),
        scores_of(table, images, dog, "a", classifier="honest"),
    ]
    files = table.summarise(scores)
    assert [cells(row, "classifier", "method", "cue") for row in files["shortcut"]] == [
        ["fooled", "a", 100], ["fooled", "b", 0], ["", "uniform", 12.5], ["honest", "a", 0],
    ]  # fmt: skip
    found = [
        cells(row, "classifier", "method", "other", "measure", "difference") for row in files["shortcut_differences"]
    ]
    assert found == [["fooled", "a", "b", part, value] for part, value in zip(PARTS, (-100, 100, 0), strict=True)]
    between = [
        cells(row, "method", "classifier", "other", "measure", "difference") for row in files["shortcut_classifiers"]
    ]
    assert between == [
        ["a", "fooled", "honest", part, value] for part, value in zip(PARTS, (-100, 100, 0), strict=True)
    ]
    assert list(files["shortcut_classifiers"][0])[:3] == ["method", "classifier", "other"]
    assert have_equal_columns(*scores)


def test_classifiers_are_compared_on_the_same_images_pair_by_pair():
    """Images differ much more than the classifiers do; each by itself would hide the difference."""
    table, explanandum = table_of()
    images = scenes(explanandum, [[1]] * 6)
    cue = images.batch.cue_mask[:, None].float()
    share = torch.linspace(0.2, 0.8, 6)[:, None, None, None]

    def of(shift, classifier):
        dog = (images.batch.mask == DOG + 1)[:, None].float()
        maps = (share + shift) * cue / cue.sum(dim=(2, 3), keepdim=True)
        maps = maps + (1 - share - shift) * dog / dog.sum(dim=(2, 3), keepdim=True)
        return scores_of(table, images, maps.expand(-1, 3, -1, -1), unit_range=True, classifier=classifier)

    files = table.summarise([of(0.1, "fooled"), of(0.0, "honest")])
    row = next(row for row in files["shortcut_classifiers"] if row["measure"] == "cue")
    assert cells(row, "difference", "difference_low", "difference_high") == pytest.approx([10, 10, 10], abs=1e-3)
    low, high = (row["cue_low" if row["classifier"] == "fooled" else "cue_high"] for row in files["shortcut"])
    assert low < high, "The two intervals by themselves overlap."
    assert row["images"] == 6


def test_an_unknown_class_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="no class 'cow' that a cue could give away; choose one of: cat, dog, hen"):
        ShortcutTable(freeze(SmallNet()), ShortcutOptions("cow"))


@pytest.mark.parametrize("cue, has_cues, made", [("dog", True, True), (None, True, False), ("dog", False, False)])
def test_without_a_cue_there_is_no_table(cue, has_cues, made):
    setting = Setting(freeze(SmallNet()), SplitFacts(True, False, has_cues), tuple, cue, {}, lambda *_: None)
    if made:
        assert isinstance(make_table("shortcut", TableOptions(), setting), ShortcutTable)
    else:
        with pytest.raises(ValueError, match="'shortcut' can't be made: no shortcut is planted in the split"):
            make_table("shortcut", TableOptions(), setting)
