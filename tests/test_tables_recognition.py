"""Table 4: counts kept per image add up to the scores of the metric, on plain images and on masked ones.

C classes, H×W pixels.
"""

import tracemalloc

import pytest
import torch
from toy_models import SIZE, WindowNet, freeze
from toy_tables import have_equal_columns, make_images, noise, own_scores, scores_of, together

from explainer.evaluation.measures import differences
from explainer.evaluation.records import MethodScores
from explainer.evaluation.tables import RecognitionOptions, RecognitionTable
from explainer.evaluation.tables.recognition import measures_of
from explainer.masking import apply_mask
from explainer.metrics.recognition import Recognition, scores_from_counts
from explainer.resampling import CHUNK_BYTES

LABELS = [[0], [1, 2], [0, 2], [1], [0, 1, 2], [2]]
NAMES = ("precision", "recall", "f_score")


class Spread(WindowNet):
    """Logits from -5 to 5, by the brightness of each class's window."""

    def forward(self, image):
        return 10 * super().forward(image) - 5


def table_of(net=None, output="multi_label", **options):
    explanandum = freeze(net or Spread(side=4), output=output)
    return RecognitionTable(explanandum, RecognitionOptions(**options)), explanandum


def scenes(explanandum, labels=LABELS, seed=0):
    # Bright and dark patches, so that the classes' windows differ.
    patches = noise(len(labels), 1, 8, 8, seed=seed).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    return make_images(explanandum, patches.expand(-1, 3, -1, -1).contiguous(), labels)


def expected_row(explanandum, logits, labels, threshold, output):
    metric = Recognition(explanandum.num_classes, threshold, output)
    metric.update(logits, labels)
    values = metric.compute()
    micro = {name: 100 * values[f"micro_{name}"] for name in NAMES}
    return micro | {f"macro_{name}": 100 * values[f"macro_{name}"] for name in NAMES}


def row_of(table, scores):
    (row,) = table.summarise([scores])["recognition"]
    return {name: row[name] for name in (*NAMES, *(f"macro_{name}" for name in NAMES))}, row["threshold"]


@pytest.mark.parametrize("output", ["multi_label", "single_label"])
def test_both_averages_are_the_metrics_on_the_same_logits_over_several_batches(output):
    labels = LABELS if output == "multi_label" else [[0], [1], [2], [1], [0], [2]]
    table, explanandum = table_of(output=output)
    images, maps = scenes(explanandum, labels), noise(6, 3, SIZE, SIZE, seed=1)
    batches = [images.subset([0, 1]), images.subset([2, 3, 4]), images.subset([5])]

    plain, threshold = row_of(table, together(*(own_scores(table, batch, "plain") for batch in batches)))
    assert plain == pytest.approx(expected_row(explanandum, images.logits, images.labels, 0.0, output))
    assert threshold == (0 if output == "multi_label" else None)

    parts = [scores_of(table, batches[0], maps[:2]), scores_of(table, batches[1], maps[2:5])]
    masked, threshold = row_of(table, together(*parts, scores_of(table, batches[2], maps[5:])))
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    present = images.labels[:, :, None, None]
    merged = torch.where(present, (maps - low) / (high - low), torch.zeros(())).amax(dim=1)
    logits = explanandum(apply_mask(images.image, merged))
    assert masked == pytest.approx(expected_row(explanandum, logits, images.labels, -1.0, output))
    assert threshold == (-1 if output == "multi_label" else None)
    assert all(0 < value < 100 for value in plain.values())  # the toy tells the scores apart
    assert plain != masked


@pytest.mark.parametrize("threshold", [-4.0, -1.0, 1.5])
def test_each_threshold_is_that_of_its_own_kind_of_images(threshold):
    table, explanandum = table_of(plain_threshold=threshold)
    images = scenes(explanandum)
    found, shown = row_of(table, own_scores(table, images, "plain"))
    assert found == pytest.approx(expected_row(explanandum, images.logits, images.labels, threshold, "multi_label"))
    assert shown == threshold
    ones = torch.ones(6, 3, SIZE, SIZE)
    table, _ = table_of(masked_threshold=threshold)
    found, shown = row_of(table, scores_of(table, images, ones, unit_range=True))
    assert found == pytest.approx(expected_row(explanandum, images.logits, images.labels, threshold, "multi_label"))
    assert shown == threshold


def test_the_default_thresholds_are_the_authors():
    assert RecognitionOptions() == RecognitionOptions(plain_threshold=0.0, masked_threshold=-1.0)


def test_the_rows_of_an_image_name_each_class_that_is_there_or_recognised():
    table, explanandum = table_of(Spread())
    image = torch.zeros(1, 3, SIZE, SIZE)
    image[0] = explanandum.model.windows.windows[[0, 1]].sum(dim=0)  # cat and dog are seen; dog and hen are there
    images = make_images(explanandum, image, [[1, 2]])
    rows = own_scores(table, images, "plain").rows["image0"]
    assert sorted((row["class"], row["outcome"]) for row in rows) == [("cat", "fp"), ("dog", "tp"), ("hen", "fn")]


def test_a_class_that_neither_occurs_nor_is_recognised_does_not_count_though_another_method_recognises_it():
    """Rows share one list of classes; a false alarm of one of them must not change the mean of the other."""
    table, explanandum = table_of(Spread())
    windows = explanandum.model.windows.windows
    image = (windows[0] + windows[2]).expand(1, 3, -1, -1)
    images = make_images(explanandum, image, [[0]])
    cat_only, everything = windows[0].expand(1, 3, -1, -1), torch.ones(1, 3, SIZE, SIZE)
    good = scores_of(table, images, cat_only, "good", unit_range=True)
    bad = scores_of(table, images, everything, "bad", unit_range=True)
    rows = {row["method"]: row for row in table.summarise([good, bad])["recognition"]}
    assert [rows["good"][f"macro_{name}"] for name in NAMES] == [100, 100, 100]
    assert [rows["bad"][f"macro_{name}"] for name in NAMES] == [50, 50, 50]
    assert rows["bad"]["precision"] == 50
    assert rows["bad"]["recall"] == 100
    counts = {"tp": torch.tensor([1, 0, 0]), "fp": torch.tensor([0, 0, 1]), "fn": torch.tensor([0, 0, 0])}
    assert 100 * scores_from_counts(**counts)["macro_f_score"] == rows["bad"]["macro_f_score"]
    difference = {row["measure"]: row for row in table.summarise([good, bad])["recognition_differences"]}
    assert difference["precision"]["difference"] == 50


def test_nothing_recognised_scores_zero_and_not_nothing():
    table, explanandum = table_of(plain_threshold=100.0)
    found, _ = row_of(table, own_scores(table, scenes(explanandum), "plain"))
    assert set(found.values()) == {0}


def test_false_alarms_on_images_without_a_class_count_for_the_plain_row_and_for_every_method():
    """Table 4 is over the whole test set; without them precision would rise. No map is asked, so the mask is empty."""
    table, explanandum = table_of(Spread())
    image = torch.zeros(3, 3, SIZE, SIZE)
    image[:2] = explanandum.model.windows.windows[0]
    images = make_images(explanandum, image, [[0], [], []])
    assert table.left_out(images) == ["", "", ""]
    assert table.asks(images).nonzero().tolist() == [[0, 0]]
    plain = own_scores(table, images, "plain")
    assert plain.rows["image1"] == [{"class": "cat", "outcome": "fp"}]
    assert plain.rows["image2"] == []
    assert row_of(table, plain)[0]["precision"] == 50

    masked = scores_of(table, images, torch.ones(3, 3, SIZE, SIZE), unit_range=True)
    assert masked.rows["image1"] == [], "An empty mask leaves nothing to be seen."
    assert row_of(table, masked)[0]["precision"] == 100
    (row,) = table.summarise([masked])["recognition"]
    assert row["images"] == 3
    assert have_equal_columns(masked, plain)
    table, _ = table_of(Spread(), masked_threshold=-5.0)  # logits of nothing: every class is seen everywhere
    masked = scores_of(table, images, torch.ones(3, 3, SIZE, SIZE), unit_range=True)
    assert row_of(table, masked)[0]["precision"] == pytest.approx(100 / 9)


def test_without_a_class_that_occurs_or_is_recognised_there_is_no_score():
    table, explanandum = table_of(plain_threshold=100.0)
    found, _ = row_of(table, own_scores(table, scenes(explanandum, [[], []]), "plain"))
    assert set(found.values()) == {None}
    assert table.own_rows == ("plain",)


def test_scores_of_many_classes_take_little_memory():
    """1000 classes and 3000 images: the sums of a method would fill 72 MB, of both of a pair 144 MB, if written out."""
    classes, images = 1000, 3000
    rows = {
        str(index): [{"class": f"{index % classes}", "outcome": "tp" if index % 3 else "fn"}] for index in range(images)
    }
    first, second = MethodScores("a", rows, {}), MethodScores("b", rows | {"0": []}, {})
    tracemalloc.start()
    found = differences([first, second], measures_of([first, second]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6 + CHUNK_BYTES
    assert [row["measure"] for row in found] == [*NAMES, *(f"macro_{name}" for name in NAMES)]
    assert found[1]["difference"] == pytest.approx(100 * (2 / 3 - 2000 / 2999))
