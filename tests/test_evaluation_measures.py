"""A table's numbers are means of its scores, with the intervals of explainer.bootstrap."""

import numpy as np
import pytest

from explainer.bootstrap import bootstrap_interval, bootstrap_mean, paired_difference
from explainer.evaluation.measures import Measure, columns_of, differences, mean_of, measured, summary
from explainer.evaluation.records import MethodScores
from explainer.resampling import mean_ratio

IOU = [mean_of("iou")]


def scores_of(name, values, failed=(), first=0):
    """One row an image, whose names count from `first`."""
    rows = {f"image{index}": [{"iou": value}] for index, value in enumerate(values, start=first)}
    return MethodScores(name, rows, dict.fromkeys(failed, "ValueError"))


@pytest.fixture
def values():
    """Of 30 images by two methods."""
    return np.random.default_rng(0).random((2, 30))


def interval_of(row, name="iou"):
    return [row[column] for column in columns_of(name)]


def test_a_number_is_the_mean_of_the_scores_with_the_bootstrap_s_interval(values):
    rows = summary([scores_of("rise", values[0]), scores_of("mask", values[1], failed=["x", "y"])], IOU)
    assert [(row["method"], row["images"], row["failed"]) for row in rows] == [("rise", 30, 0), ("mask", 30, 2)]
    for row, column in zip(rows, values, strict=True):
        expected = bootstrap_interval(column)
        assert row["iou"] == pytest.approx(np.mean(column), rel=1e-12)
        assert interval_of(row) == pytest.approx([float(bound) for bound in expected[:3]], rel=1e-12)
        assert row["iou_low"] < row["iou"] < row["iou_high"]


def test_a_mean_over_classes_resamples_images_not_rows():
    random = np.random.default_rng(1)
    counts = random.integers(1, 4, 25)
    rows = {f"image{index:02}": [{"iou": value} for value in random.random(n)] for index, n in enumerate(counts)}
    flat = [row["iou"] for of_image in rows.values() for row in of_image]
    expected = bootstrap_mean(flat, np.repeat(sorted(rows), counts))
    found = measured(MethodScores("rise", rows, {}), IOU)
    assert interval_of(found) == pytest.approx([float(bound) for bound in expected[:3]], rel=1e-12)
    assert found["iou"] == pytest.approx(np.mean(flat), rel=1e-12)


def test_each_of_several_measures_is_what_it_is_by_itself(values):
    rows = {f"{index}": [{"iou": a, "mae": b}] for index, (a, b) in enumerate(values.T)}
    scores = MethodScores("rise", rows, {})
    measures = [mean_of("iou"), mean_of("mae", 100, name="error"), mean_of("iou", of=lambda row: row["mae"] > 0.5)]
    together = measured(scores, measures[:2])
    assert together == measured(scores, measures[:1]) | measured(scores, measures[1:2])
    assert list(together) == ["iou", "iou_low", "iou_high", "error", "error_low", "error_high"]
    assert together["error"] == pytest.approx(100 * np.mean(values[1]))
    chosen = measured(scores, measures[2:])["iou"]
    assert chosen == pytest.approx(values[0][values[1] > 0.5].mean())


def test_values_that_are_missing_do_not_count(values):
    column = [None if index % 3 == 0 else value for index, value in enumerate(values[0])]
    present = [value for value in column if value is not None]
    row = summary([scores_of("rise", column)], IOU)[0]
    assert row["iou"] == pytest.approx(np.mean(present))
    assert row["iou_low"] < row["iou"] < row["iou_high"]
    rows = {"a": [{"other": 1}], "b": []}
    assert interval_of(measured(MethodScores("rise", rows, {}), IOU)) == [None, None, None]


def test_a_score_that_is_no_number_is_missing_and_an_infinite_one_an_error_that_names_its_column(values):
    holes = [None if index % 3 == 0 else value for index, value in enumerate(values[0])]
    with_nan = [np.nan if value is None else value for value in holes]
    assert measured(scores_of("rise", with_nan), IOU) == measured(scores_of("rise", holes), IOU)
    with pytest.raises(ValueError, match="column 'iou' holds an infinite value"):
        measured(scores_of("rise", [0.5, -np.inf]), [mean_of("iou", name="error")])


def test_without_rows_there_is_a_row_that_says_so():
    row = summary([scores_of("rise", [], failed=["a", "b"])], [mean_of("iou"), mean_of("mae")])[0]
    assert row == dict.fromkeys([*columns_of("iou"), *columns_of("mae")]) | {"method": "rise", "images": 0, "failed": 2}
    assert list(row)[0] == "method"
    assert summary([], IOU) == []
    assert differences([], IOU) == []
    assert differences([scores_of("rise", []), scores_of("mask", [])], IOU) == []


@pytest.mark.parametrize("values", [[0.25], [0.25, None, None], [None, 0.25]])
def test_one_value_has_no_interval(values):
    assert interval_of(measured(scores_of("rise", values), IOU)) == [0.25, None, None]
    found = differences([scores_of("rise", values), scores_of("mask", [1.0, 1.0, 1.0])], IOU)[0]
    assert interval_of(found, "difference") == [-0.75, None, None]


def test_equal_scores_have_an_interval_without_width():
    assert interval_of(measured(scores_of("rise", [0.5] * 10), IOU)) == [0.5, 0.5, 0.5]


# Differences.


def test_differences_are_paired_and_named(values):
    found = differences([scores_of("rise", values[0]), scores_of("mask", values[1])], IOU)
    assert [(row["method"], row["other"], row["measure"], row["images"]) for row in found] == [
        ("rise", "mask", "iou", 30)
    ]
    expected = paired_difference(values[0], values[1])
    assert interval_of(found[0], "difference") == pytest.approx([float(bound) for bound in expected[:3]], rel=1e-9)


def test_a_shift_of_all_images_is_certain_however_much_they_vary(values):
    first, second = scores_of("rise", values[0] + 0.01), scores_of("mask", values[0])
    assert interval_of(differences([first, second], IOU)[0], "difference") == pytest.approx([0.01] * 3)
    high, low = (interval_of(measured(one, IOU)) for one in (first, second))
    assert high[1] < low[2], "The two intervals by themselves overlap."


def test_only_images_that_both_have_are_compared_in_whatever_order(values):
    first = scores_of("rise", values[0], failed=["image40"])
    second = scores_of("mask", values[1][:20], first=10)  # image10 … image29
    second.rows = dict(reversed(second.rows.items()))
    found = differences([first, second], IOU)[0]
    expected = paired_difference(values[0][10:], values[1][:20])
    assert found["images"] == 20
    assert interval_of(found, "difference") == pytest.approx([float(bound) for bound in expected[:3]], rel=1e-9)


def test_an_image_without_a_value_by_one_method_has_no_part_in_the_difference():
    first = scores_of("rise", [0.5, 0.5, None, 0.5])
    second = scores_of("mask", [0.5, 0.5, 0.9, 0.5])
    found = differences([first, second], IOU)[0]
    assert interval_of(found, "difference") == [0, 0, 0]
    assert found["images"] == 3
    nothing = differences([scores_of("rise", [None, 1]), scores_of("mask", [1, None])], IOU)[0]
    assert (interval_of(nothing, "difference"), nothing["images"]) == ([None] * 3, 0)


def test_every_two_methods_with_common_images_have_a_row_for_each_measure(values):
    all_scores = [
        scores_of("rise", values[0]),
        scores_of("mask", [], failed=["image0"]),
        scores_of("center", values[1]),
        scores_of("random", values[1], first=20),
    ]
    found = differences(all_scores, [mean_of("iou"), mean_of("iou", 100, name="percent")])
    assert [(row["method"], row["other"], row["measure"]) for row in found] == [
        (first, second, measure)
        for first, second in (("rise", "center"), ("rise", "random"), ("center", "random"))
        for measure in ("iou", "percent")
    ]
    for small, large in zip(found[::2], found[1::2], strict=True):
        assert large["difference"] == pytest.approx(100 * small["difference"])


def test_a_measure_that_counts_takes_an_image_without_counts_as_it_is():
    """Unlike a mean, whose value is then missing: an image of which nothing was found is not left out."""

    def sums(rows):
        return [sum(row["right"] for row in rows), sum(not row["right"] for row in rows)]

    share = Measure("share", 2, sums, lambda totals: totals[:, 0] - totals[:, 1])
    first = MethodScores("rise", {"a": [], "b": [{"right": 1}]}, {})
    second = MethodScores("mask", {"a": [{"right": 0}], "b": [{"right": 1}]}, {})
    found = differences([first, second], [share])[0]
    assert (found["difference"], found["images"]) == (1, 2)


def test_a_mean_over_classes_is_weighted_by_class_not_by_image():
    rows = {str(index): [{"class": "cat", "hit": 1.0}] for index in range(9)}
    rows["9"] = [{"class": "dog", "hit": 0.0}]

    def sums(of_image):
        return [sum(row["hit"] for row in of_image if row["class"] == name) for name in ("cat", "dog")] + [
            sum(row["class"] == name for row in of_image) for name in ("cat", "dog")
        ]

    found = measured(MethodScores("rise", rows, {}), [Measure("rate", 4, sums, mean_ratio), mean_of("hit")])
    assert (found["rate"], found["hit"]) == (0.5, 0.9)


# Scale.


def test_measures_with_the_same_sums_share_them_and_are_what_they_are_by_themselves(values):
    asked = []

    def sums(rows):
        asked.append(rows)
        return {1: rows[0]["iou"], 0: 1.0}

    parts = [
        Measure("mean", 2, sums, lambda totals: totals[:, 1] / totals[:, 0]),
        mean_of("iou"),
        Measure("total", 2, sums, lambda totals: totals[:, 1]),
    ]
    together = measured(scores_of("rise", values[0]), parts)
    assert len(asked) == 30, "Each image is asked once, for both measures."
    assert together == {
        name: value for part in parts for name, value in measured(scores_of("rise", values[0]), [part]).items()
    }
    assert together["mean"] == pytest.approx(together["iou"])
    assert together["total"] == pytest.approx(30 * together["iou"])


def test_each_method_is_drawn_once_not_in_each_of_its_pairs(values):
    """Of 12 methods there are 66 pairs; equal seeds draw equal images, so nothing is lost."""
    seen = []

    def statistic(totals):
        seen.append(len(totals))
        return totals[:, 0] / totals[:, 1]

    mean = Measure("iou", 2, mean_of("iou").sums, statistic, may_lack=True)
    methods = [scores_of(f"{index}", values[0] + index / 10) for index in range(5)]
    found = differences(methods, [mean])
    assert len(found) == 10
    assert len(seen) == 2 * len(methods), "Each method's total, and its draws."
    assert found == differences(methods, IOU)
    assert [row for row in found if row["other"] == "4"][2:3] == differences(methods[2::2], [mean])


def test_a_method_that_lacks_an_image_changes_the_pairs_that_it_is_in_alone(values):
    whole = [scores_of(name, values[index], failed=()) for index, name in enumerate(("rise", "mask"))]
    lacking = scores_of("center", values[0][:20] ** 2, failed=["image20"])
    found = differences([*whole, lacking], IOU)
    assert [row["images"] for row in found] == [30, 20, 20]
    for pair, row in zip(([0, 1], [0, 2], [1, 2]), found, strict=True):
        assert differences([[*whole, lacking][index] for index in pair], IOU) == [row]
