"""Two runs side by side: what is compared is what both scored, in the tables' units, and what is doubtful is told."""

import json
import time

import numpy as np
import pytest

from explainer.metrics.masking import class_specificity
from explainer.report.page import write_page
from explainer.report.page_compare import changes, differing, intervals, most_different
from explainer.report.page_content import comparison_of
from explainer.report.page_data import open_results
from explainer.report.tables import write_csv, write_table


def run(folder, table, rows, **facts):
    """A run's scores of single images, and how the table was made."""
    write_csv([{"classifier": None, "method": "a", **row} for row in rows], folder / f"{table}_per_image")
    write_table([{"method": "a"}], folder / table)
    (folder / f"{table}.json").write_text(json.dumps({"data": "shapes", "command": str(folder), **facts}))
    return folder


def found(tmp_path, table, before, after):
    folders = [run(tmp_path / name, table, rows) for name, rows in (("one", before), ("two", after))]
    return {change.measure: change for change in changes(*open_results(folders))}


def images(name, values, **more):
    return [{"image": f"i{place}", "class": None, **more, name: value} for place, value in enumerate(values)]


def test_every_table_that_was_made_differently_is_named_with_its_option(tmp_path):
    rows = images("over_all", [0.1, 0.2, 0.3])
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, step in ((one, 0.01), (two, 0.2)):
        run(folder, "insertion_deletion", rows, options={"step": step, "blur": {"sigma": 5}}, images=3)
        run(folder, "segmentation", rows, split="test", options={})
    run(two, "pointing", rows, options={})  # which is not compared
    assert comparison_of(*open_results([one, two])).warnings == ["step: 0.01 and 0.2 (insertion_deletion)"]
    run(two, "segmentation", rows, split="val", options={})
    run(two, "insertion_deletion", rows, split="val", options={})
    assert comparison_of(*open_results([one, two])).warnings == [
        "step: 0.01 and not known (insertion_deletion)",
        "blur.sigma: 5 and not known (insertion_deletion)",
        "split: not known and val (insertion_deletion)",
        "split: test and val (segmentation)",
    ]
    (two / "segmentation.json").unlink()
    assert "how it was made (segmentation)" in comparison_of(*open_results([one, two])).warnings[-1]


def test_shares_of_the_gallery_are_percent_and_its_photographs_do_not_hide_them(tmp_path):
    photograph = {"method": "photograph", "image": "i0", "class": None, "on_target": None}
    before, after = (
        [photograph, *images("on_target", [value, value], **{"class": "cat"})]  # as the gallery's rows have a class
        for value in (0.25, 0.5)
    )
    change = found(tmp_path, "gallery", before, after)["on_target"]
    assert (change.before, change.after, change.images) == (25, 50, 2)


def test_of_an_image_only_the_classes_that_both_runs_scored_are_compared(tmp_path):
    before = [{"image": "i0", "class": "cat", "iou": 0.2}, {"image": "i0", "class": "dog", "iou": 0.9}]
    after = [{"image": "i0", "class": "cat", "iou": 0.3}, {"image": "i1", "class": "cat", "iou": 0.9}]
    change = found(tmp_path, "segmentation", before, after)["iou"]
    assert (change.before, change.after, change.images) == (pytest.approx(20), pytest.approx(30), 1)


def test_hit_rates_are_the_mean_over_classes_and_over_maps_as_in_the_table(tmp_path):
    def rows(*hits):
        return [
            {"image": f"i{place}", "class": name, "hit": hit}
            for place, (name, hit) in enumerate(zip(("cat", "cat", "cat", "dog"), hits, strict=True))
        ]

    compared = found(tmp_path, "pointing", rows(1, 0, 0, 0), rows(1, 1, 1, 0))
    assert compared["over_maps"].before == 25 and compared["over_maps"].after == 75
    assert compared["hit_rate"].before == pytest.approx(100 / 6) and compared["hit_rate"].after == 50
    assert {row["measure"] for row in most_different(list(compared.values()))} == {"over_maps"}


def test_the_specificity_is_that_of_the_masking_table(tmp_path):
    import torch

    random = np.random.default_rng(0)
    names = ("cat", "dog", "hen")
    targets = ("cat", "cat", "dog", "hen", "hen")

    def rows(values):
        return [
            {"image": f"i{place}", "target": target, "none": 0.5, **dict(zip(names, row, strict=True))}
            for place, (target, row) in enumerate(zip(targets, values, strict=True))
        ]

    before, after = np.round(random.random((2, 5, 3)), 4)
    change = found(tmp_path, "masking", rows(before), rows(after))["specificity"]
    matrix = np.stack([before[[target == name for target in targets]].mean(axis=0) for name in names])
    assert change.before == pytest.approx(100 * class_specificity(torch.from_numpy(matrix)).item())


def test_recognition_is_compared_by_its_outcomes(tmp_path):
    def rows(*outcomes):
        return [{"image": f"i{place}", "class": "cat", "outcome": one} for place, one in enumerate(outcomes)]

    compared = found(tmp_path, "recognition", rows("tp", "fn", "fp", "tp"), rows("tp", "tp", "fp", "tp"))
    expected = {"precision": (200 / 3, 75), "recall": (200 / 3, 100), "f_score": (200 / 3, 600 / 7)}
    assert {name: (one.before, one.after) for name, one in compared.items()} == {
        name: pytest.approx(values) for name, values in expected.items()
    }


def test_what_is_not_compared_is_said(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        run(folder, "segmentation", images("iou", [0.1, 0.2]))
        run(folder, "sanity", images("ssim", [0.1, 0.2]))
    assert comparison_of(*open_results(folders)).left_out == ["sanity"]
    assert "which more or less is better: sanity." in " ".join(write_page(folders).read_text().split())


def test_ten_thousand_images_are_compared_in_seconds():
    random = np.random.default_rng(0)
    sums = random.random((10_000, 4, 1))
    sums[:, (1, 3)] = 1
    start = time.process_time()
    (low, high), *_ = intervals([sums] * 40)
    assert time.process_time() - start < 40  # it took 2.4 s for each measure
    difference = (sums[:, 2] - sums[:, 0]).ravel()
    error = difference.std() / 100
    assert (low, high) == pytest.approx(
        (difference.mean() - 1.96 * error, difference.mean() + 1.96 * error), abs=0.2 * error
    )


def test_each_measure_in_turn_gives_its_image_of_the_largest_difference(tmp_path):
    first = [{"image": f"i{place}", "class": None, "iou": 0.0, "acc": 0.0} for place in range(4)]
    changed = [(0.4, 0.3), (0.3, 0.1), (0.2, 0.2), (0.0, 0.0)]  # i0 is the first of both
    second = [row | {"iou": iou, "acc": acc} for row, (iou, acc) in zip(first, changed, strict=True)]
    one, two = (run(tmp_path / name, "segmentation", rows) for name, rows in (("one", first), ("two", second)))
    results = open_results([one, two])
    lists = {}
    for row in most_different(changes(*results)):
        lists.setdefault(row["measure"], []).append(row["image"])
    assert lists == {"acc": ["i0", "i2", "i1"], "iou": ["i0", "i1", "i2"]}  # in i3 they do not differ
    assert differing(results, 2) == ["i0", "i2"]
    assert differing(results, 9) == ["i0", "i2", "i1"]
    assert differing(results, 0) == []
    assert differing(open_results([one]), 9) == []


def test_of_three_runs_each_neighbour_has_its_images(tmp_path):
    rows = [images("iou", values) for values in ([0, 0, 0], [0.9, 0.1, 0], [0.9, 0.1, 0.5])]
    folders = [run(tmp_path / name, "segmentation", one) for name, one in zip("abc", rows, strict=True)]
    assert differing(open_results(folders), 1) == ["i0", "i2"]


def test_what_is_infinite_has_no_interval_and_leaves_the_others_theirs(tmp_path):
    rows = {"one": [0.1, float("inf"), 0.3], "two": [0.2, 0.3, 0.5]}
    other = images("acc", [0.1, 0.2, 0.3]), images("acc", [0.2, 0.4, 0.5])
    folders = []
    for (name, values), accuracy in zip(rows.items(), other, strict=True):
        both = [{**one, **two} for one, two in zip(images("iou", values), accuracy, strict=True)]
        folders.append(run(tmp_path / name, "segmentation", both))
    compared = {change.measure: change for change in changes(*open_results(folders))}
    assert compared["acc"].low is not None
    assert compared["iou"].low is None and compared["iou"].verdict == "undecided"
