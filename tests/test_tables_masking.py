"""Table 1: the matrix is the reference's, whatever the order of the classes; its figure of merit is 0 to 1 as it must.

C classes, H×W pixels.
"""

import pytest
import torch
from reference import masking as reference
from reference.convert import nested
from toy_models import SIZE, SmallNet, WindowNet, freeze
from toy_tables import cells, have_equal_columns, make_images, noise, scores_of, together

from explainer.evaluation.options import Setting, TableOptions, make_table
from explainer.evaluation.tables import MaskingOptions, MaskingTable, SplitFacts

SURE = 40.0
"""Factor on a WindowNet's logits that makes its softmax all but 0 and 1."""


class SureWindows(WindowNet):
    """A WindowNet without doubts."""

    def forward(self, image):
        return SURE * super().forward(image)


def table_of(classes=("cat", "dog", "hen"), net=None, **options):
    explanandum = freeze(net or SureWindows())
    return MaskingTable(explanandum, MaskingOptions(tuple(classes), **options)), explanandum


def matrix(files, method="method"):
    rows = [row for row in files["masking"] if row["method"] == method]
    names = [row["target"] for row in rows]
    return [[row[name] / 100 for name in names] for row in rows]  # the table is in percent


def test_masks_of_the_regions_that_a_classifier_reads_keep_their_class_and_no_other():
    table, explanandum = table_of()
    images = make_images(explanandum, torch.ones(3, 3, SIZE, SIZE), [[0], [1], [2]])
    squares = explanandum.model.windows.windows.expand(3, -1, -1, -1)
    files = table.summarise([scores_of(table, images, squares)])
    torch.testing.assert_close(torch.tensor(matrix(files)), torch.eye(3), rtol=0, atol=1e-5)
    assert files["masking_specificity"][0]["specificity"] == pytest.approx(100, abs=1e-3)


def test_a_mask_of_ones_is_no_mask_and_says_nothing_of_its_class():
    table, explanandum = table_of(net=SmallNet())
    images = make_images(explanandum, noise(3, 3, SIZE, SIZE), [[0], [1], [0, 2]])
    files = table.summarise([scores_of(table, images, torch.ones(3, 3, SIZE, SIZE), unit_range=True)])
    assert files["masking_specificity"][0]["specificity"] == pytest.approx(0, abs=1e-4)
    for row in files["masking"]:
        assert [row["cat"], row["dog"], row["hen"]] == pytest.approx([row["none"]] * 3, abs=1e-4)


def test_the_column_none_is_the_softmax_of_the_images_as_they_are_also_for_a_multi_label_classifier():
    table, explanandum = table_of(net=SmallNet())
    assert explanandum.card.output == "multi_label"
    images = make_images(explanandum, noise(3, 3, SIZE, SIZE), [[0], [1], [0, 2]])
    files = table.summarise([scores_of(table, images, noise(3, 3, SIZE, SIZE, seed=1))])
    probability = images.logits.softmax(dim=1)
    expected = [(probability[0, 0] + probability[2, 0]).item() / 2, probability[1, 1].item(), probability[2, 2].item()]
    assert [row["none"] / 100 for row in files["masking"]] == pytest.approx(expected, abs=1e-6)
    assert [row["images"] for row in files["masking"]] == [2, 1, 1]


@pytest.mark.parametrize("classes", [("hen", "cat", "dog"), ("dog", "hen", "cat"), ("hen", "cat"), ("dog", "cat")])
def test_the_matrix_is_the_references_over_several_batches_in_whatever_order_the_classes_are_named(
    classes, monkeypatch
):
    """Over several batches. The papers' order need not be the data set's; that of the maps always is."""
    monkeypatch.setattr(reference, "THRESHOLDS", [0.3, 0.6])
    table, explanandum = table_of(classes, SmallNet(), thresholds=(0.3, 0.6))
    indices = [explanandum.card.classes.index(name) for name in classes]
    labels = [[0], [1, 2], [2], [0, 1, 2], [1]]
    pictures, masks = noise(5, 3, SIZE, SIZE), noise(5, 3, SIZE, SIZE, seed=1)
    batches = [
        (make_images(explanandum, pictures[part], labels[part], first=part.start), masks[part])
        for part in (slice(0, 2), slice(2, 5))
    ]
    files = table.summarise([together(*(scores_of(table, *batch, unit_range=True) for batch in batches))])
    samples = [
        reference.Sample(nested(picture), [int(index in present) for index in range(3)], dict(enumerate(nested(own))))
        for picture, present, own in zip(pictures, labels, masks, strict=True)
    ]

    def classifier(image):
        return nested(explanandum(torch.tensor(image, dtype=torch.float32)[None])[0])

    expected = reference.matrix(samples, indices, classifier)
    assert [row["target"] for row in files["masking"]] == list(classes)
    torch.testing.assert_close(torch.tensor(matrix(files)), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    plain = reference.unmasked(samples, indices, classifier)
    assert [row["none"] / 100 for row in files["masking"]] == pytest.approx(plain, rel=1e-4)
    merit = reference.figure_of_merit(expected)
    assert files["masking_specificity"][0]["specificity"] == pytest.approx(100 * merit, abs=1e-3)


def test_a_pixel_at_the_threshold_goes():
    table, explanandum = table_of(thresholds=(0.5,))
    images = make_images(explanandum, torch.ones(1, 3, SIZE, SIZE), [[0]])
    squares = explanandum.model.windows.windows[None]
    at, above = (
        scores_of(table, images, value * squares, unit_range=True).rows["image0"][0] for value in (0.5, 0.5001)
    )
    assert at["cat"] == pytest.approx(1 / 3)  # nothing is left
    assert above["cat"] == pytest.approx(1, abs=1e-5)


def test_the_default_thresholds_are_the_papers():
    assert MaskingOptions().thresholds == pytest.approx([index / 10 for index in range(1, 10)])


def test_images_without_a_class_of_the_table_are_left_out():
    table, explanandum = table_of(("dog", "cat"))
    images = make_images(explanandum, torch.ones(3, 3, SIZE, SIZE), [[2], [0, 2], []])
    reason = "without a class of the table"
    assert table.left_out(images) == [reason, "", reason]
    # All masks of the table are asked for, also that of a class which is not there; no other class is.
    assert table.asks(images).tolist() == [[False] * 3, [True, True, False], [False] * 3]
    rows = scores_of(table, images, noise(3, 3, SIZE, SIZE)).rows
    assert [row["target"] for row in rows["image1"]] == ["cat"]


def test_a_class_without_an_image_has_an_empty_row_and_does_not_count():
    table, explanandum = table_of()
    images = make_images(explanandum, torch.ones(2, 3, SIZE, SIZE), [[0], [1]])
    squares = explanandum.model.windows.windows.expand(2, -1, -1, -1)
    files = table.summarise([scores_of(table, images, squares)])
    assert cells(files["masking"][2], "target", "images", "cat", "none") == ["hen", 0, None, None]
    assert files["masking_specificity"][0]["specificity"] == pytest.approx(100, abs=1e-3)


def test_a_better_method_is_told_from_a_worse_one():
    table, explanandum = table_of()
    images = make_images(explanandum, torch.ones(3, 3, SIZE, SIZE), [[0], [1], [2]])
    squares = explanandum.model.windows.windows.expand(3, -1, -1, -1)
    good, bad = scores_of(table, images, squares, "good"), scores_of(table, images, squares.roll(1, dims=1), "bad")
    assert have_equal_columns(good, bad)
    (row,) = table.summarise([good, bad])["masking_differences"]
    # The wrong squares: nothing on the diagonal, one 1 among the two cells beside it.
    assert row["difference"] == pytest.approx(150, abs=1e-2)


@pytest.mark.parametrize(
    "classes, message",
    [
        (("cat", "cow"), "cat, cow: give at least two different ones of: cat, dog, hen"),
        (("cat", "cat"), "at least two different"),
        (("cat",), "at least two different"),
        ((), r"\(none\): give at least two"),
    ],
)
def test_classes_that_make_no_table_are_an_error_that_lists_the_known_ones(classes, message):
    with pytest.raises(ValueError, match=message):
        table_of(classes)


def test_a_class_that_is_called_as_the_column_of_plain_images_is_refused():
    explanandum = freeze(SmallNet(), classes=("none", "dog", "hen"))
    with pytest.raises(ValueError, match="columns of its own called none; leave these classes out"):
        MaskingTable(explanandum, MaskingOptions(("none", "dog")))


@pytest.mark.parametrize("thresholds", [(), (0.5, 1.0), (-0.1,), (float("nan"),)])
def test_thresholds_that_no_mask_or_every_one_passes_are_refused(thresholds):
    with pytest.raises(ValueError, match=r"thresholds are: .*; give some in \[0, 1\)"):
        MaskingOptions(thresholds=thresholds)


def test_without_classes_the_data_sets_own_choice_is_taken_and_with_them_it_is_not_asked():
    explanandum = freeze(SmallNet())
    asked = []

    def chosen():
        asked.append(True)
        return ("hen", "cat")

    setting = Setting(explanandum, SplitFacts(False, False, False), chosen, None, {}, lambda *_: None)
    options = TableOptions()
    assert make_table("masking", options, setting).options.classes == ("hen", "cat")
    options.masking = MaskingOptions(("dog", "hen"))
    assert make_table("masking", options, setting).options.classes == ("dog", "hen")
    assert len(asked) == 1
