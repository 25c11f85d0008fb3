"""Tables that figures are drawn from: their pictures and numbers are those of the tables that they illustrate.

B images, C classes, H×W pixels.
"""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from toy_models import SIZE, SmallNet, freeze
from toy_tables import class_maps, have_equal_columns, make_images, named, noise, own_scores, scores_of

from explainer.attribution import METHODS
from explainer.attribution.base import AttributionMethod
from explainer.evaluation.records import MethodScores
from explainer.evaluation.tables import (
    CurveExamplesOptions,
    CurveExamplesTable,
    InsertionDeletionOptions,
    InsertionDeletionTable,
    SanityExamplesOptions,
    SanityExamplesTable,
    SanityOptions,
    SanityTable,
    TopClassesOptions,
    TopClassesTable,
)
from explainer.evaluation.tables.insertion_deletion import unpacked
from explainer.metrics.scaling import to_unit_range
from explainer.report.evaluation import write_files

LABELS = [[0, 2], [1], []]
METHOD, PHOTOGRAPH = "method", "photograph"


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def as_tile(values):
    return (255 * values).round().clamp(0, 255).byte().numpy()


def scenes(explanandum):
    return make_images(explanandum, noise(3, 3, SIZE, SIZE), LABELS)


class Masks(AttributionMethod):
    """Masks of all classes: noise that hangs on the image, of a size that hangs on the class."""

    paper = needs = passes = ""
    unit_range = True
    sizes = torch.tensor([0.3, 0.9, 0.6])

    def of_all(self, image):
        return self.sizes[None, :, None, None] * image.mean(dim=1, keepdim=True)

    def __call__(self, image, target):
        return self.of_all(image)[torch.arange(len(image)), target]


# The largest masks.


def top(labels=LABELS, **options):
    explanandum = freeze(SmallNet())
    table = TopClassesTable(explanandum, TopClassesOptions(**options))
    images = make_images(explanandum, noise(3, 3, SIZE, SIZE), labels)
    method = Masks(explanandum)
    rows = table.score(images, class_maps(method.of_all(images.image), torch.zeros(3, 3).bool()), named(method))
    return (
        table,
        images,
        method.of_all(images.image),
        MethodScores(METHOD, dict(zip(images.names, rows, strict=True)), {}),
    )


def test_classes_are_ranked_by_their_mean_mask_with_the_classifiers_probability():
    table, images, masks, scores = top(classes=2)
    probability = images.logits.sigmoid()
    for index, (_, ranked) in enumerate(scores.rows.items()):
        assert [row["rank"] for row in ranked] == [0, 1, 2]
        for row, target in zip(ranked[1:], (1, 2), strict=True):
            assert row["class"] == table.class_name(target)
            assert row["present"] == (target in LABELS[index])
            assert row["cls"] == pytest.approx(probability[index, target].item())
            assert row["ama"] == pytest.approx(masks[index, target].mean().item())
            assert (decoded(row["tile"]) == as_tile(masks[index, target])).all()


def test_rank_0_is_the_merged_mask_of_the_present_classes_or_of_the_predicted_one():
    table, images, masks, scores = top()
    for index, ranked in enumerate(scores.rows.values()):
        classes = LABELS[index] or [images.predicted[index].item()]
        merged = masks[index, classes].amax(dim=0)
        assert ranked[0]["class"] == "; ".join(table.class_name(target) for target in classes)
        assert (decoded(ranked[0]["tile"]) == as_tile(merged)).all()
        assert ranked[0]["ama"] == pytest.approx(merged.mean().item())


def test_top_classes_are_for_trained_methods_and_need_no_label():
    table, images, *_ = top()
    assert table.left_out(images) == ["", "", ""]
    assert table.refuses(is_trained=True) == ""
    assert "only masks of a trained Explainer" in table.refuses(is_trained=False)
    for wrong in ({"images": 0}, {"classes": 0}):
        with pytest.raises(ValueError, match="give at least 1"):
            TopClassesOptions(**wrong)


def test_the_files_of_the_top_classes_are_in_percent_and_the_photographs_are_with_the_tiles():
    table, images, _, scores = top()
    own = own_scores(table, images, PHOTOGRAPH)
    assert have_equal_columns(scores, own)
    files = table.summarise([scores, own])
    assert list(files) == ["top_classes", "top_classes_tiles"]
    row, first = files["top_classes"][1], scores.rows["image0"][1]
    assert (row["cls"], row["ama"]) == pytest.approx((100 * first["cls"], 100 * first["ama"]))
    assert "tile" not in row and {row["method"] for row in files["top_classes"]} == {METHOD}
    photographs = [row for row in files["top_classes_tiles"] if row["method"] == PHOTOGRAPH]
    assert [row["class"] for row in photographs] == ["cat; hen", "dog", ""]
    assert (decoded(photographs[0]["tile"]) == as_tile(images.image[0].permute(1, 2, 0))).all()
    (main,) = table.main_rows([scores])
    assert main["ama"] == pytest.approx(100 * np.mean([row["ama"] for row in scores.flat if row["rank"]]))


# Curves of single images.


def test_single_curves_are_those_of_the_table_of_their_means():
    explanandum = freeze(SmallNet())
    options = InsertionDeletionOptions(step=0.25, deletion_to="zero")
    table = CurveExamplesTable(explanandum, CurveExamplesOptions(2), options)
    whole = InsertionDeletionTable(explanandum, options)
    images, maps = scenes(explanandum), noise(3, 3, SIZE, SIZE, seed=1)
    scores, expected = scores_of(table, images, maps), scores_of(whole, images, maps)
    files = table.summarise([scores, own_scores(table, images, PHOTOGRAPH)])
    for row, other in zip(files["curve_examples"], expected.flat, strict=True):
        assert row["class"] == other["class"]
        assert [row[name] for name in ("insertion", "deletion", "over_all")] == pytest.approx(
            [100 * other[name] for name in ("insertion", "deletion", "over_all")]
        )
    points = [row for row in files["curve_examples_curves"] if row["image"] == "image1"]
    for name in ("insertion", "deletion"):
        curve = unpacked(list(expected.flat)[1][f"{name}_curve"])
        assert [row[name] for row in points] == curve.tolist()
    assert [row["fraction"] for row in points] == pytest.approx(whole.fractions.tolist())


def test_beside_the_curves_are_the_scaled_maps_of_the_predicted_class_and_the_photographs():
    explanandum = freeze(SmallNet())
    table = CurveExamplesTable(explanandum, CurveExamplesOptions(), InsertionDeletionOptions(step=0.5))
    images, maps = scenes(explanandum), 5 * noise(3, 3, SIZE, SIZE, seed=1) - 2
    scores, own = scores_of(table, images, maps), own_scores(table, images, PHOTOGRAPH)
    assert have_equal_columns(scores, own)
    for index, row in enumerate(table.summarise([scores, own])["curve_examples_tiles"]):
        target = images.predicted[index % 3].item()
        assert row["class"] == table.class_name(target)
        assert row["probability"] == pytest.approx(images.logits.sigmoid()[index % 3, target].item(), abs=1e-3)
        picture = (
            to_unit_range(maps[index % 3, target][None])[0] if index < 3 else images.image[index - 3].permute(1, 2, 0)
        )
        assert (decoded(row["tile"]) == as_tile(picture)).all()


def test_other_curves_are_other_scores():
    explanandum = freeze(SmallNet())
    keys = {
        CurveExamplesTable(explanandum, CurveExamplesOptions(images), InsertionDeletionOptions(step=step)).key
        for images in (1, 2)
        for step in (0.25, 0.5)
    }
    assert len(keys) == 2  # however many images
    with pytest.raises(ValueError, match="curve_examples.images is 0"):
        CurveExamplesOptions(0)


# Maps of a classifier that forgets.


def rebuild(name, explanandum):
    return METHODS[name](explanandum)


def forgetting():
    """The table, its scores, and those of `sanity`, for Grad-CAM."""
    explanandum = freeze(SmallNet())
    sanity = SanityOptions(modes=("cascading",))
    table = SanityExamplesTable(explanandum, SanityExamplesOptions(2), sanity, rebuild)
    images, method = scenes(explanandum), METHODS["grad_cam"](explanandum)
    maps = torch.stack([method(images.image, torch.full((3,), target)) for target in range(3)], dim=1)
    whole = scores_of(SanityTable(explanandum, sanity, rebuild), images, maps, "grad_cam")
    return table, images, maps, scores_of(table, images, maps, "grad_cam"), whole


def test_maps_of_a_forgetting_classifier_are_as_alike_as_the_table_says_and_begin_with_the_untouched_one():
    table, images, maps, scores, whole = forgetting()
    for index, (found, expected) in enumerate(zip(scores.rows.values(), whole.rows.values(), strict=True)):
        first, *others = found
        assert (first["depth"], first["layer"]) == (0, None)
        assert (first["rank_correlation"], first["ssim"]) == pytest.approx((1, 1), abs=1e-5)
        scaled = to_unit_range(maps[index, images.predicted[index]][None])[0]
        assert (decoded(first["tile"]) == as_tile(scaled)).all()
        assert [{name: row[name] for name in row if name != "tile"} for row in others] == expected
    changed = next(iter(scores.rows.values()))[-1]
    assert (decoded(changed["tile"]) != decoded(next(iter(scores.rows.values()))[0]["tile"])).any()


def test_a_map_that_is_not_finite_has_no_picture():
    explanandum = freeze(SmallNet())

    class Broken(AttributionMethod):
        paper = needs = passes = ""

        def __call__(self, image, target):
            return torch.full((len(image), SIZE, SIZE), torch.nan)

    table = SanityExamplesTable(explanandum, SanityExamplesOptions(), SanityOptions(), lambda _, copy: Broken(copy))
    scores = scores_of(table, scenes(explanandum), noise(3, 3, SIZE, SIZE))
    rows = next(iter(scores.rows.values()))
    assert [row["tile"] is None for row in rows[:3]] == [False, True, True]
    assert rows[1]["rank_correlation"] is None


def test_the_files_of_the_forgetting_classifier_and_what_the_table_refuses(tmp_path):
    table, images, _, scores, whole = forgetting()
    own = own_scores(table, images, PHOTOGRAPH)
    assert have_equal_columns(scores, own)
    files = table.summarise([scores, own])
    assert {row["method"] for row in files["sanity_examples"]} == {"grad_cam"}
    assert len(files["sanity_examples_tiles"]) == len(files["sanity_examples"]) + 3
    assert table.limit == 2 and "asks the classifier no more" in table.refuses(is_trained=True)
    (main,), (expected,) = table.main_rows([scores]), table.sanity.main_rows([whole])
    assert main["rank_correlation"] == pytest.approx(expected["rank_correlation"])
    write_files(files, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "sanity_examples.csv", "sanity_examples.md", "sanity_examples.tex", "sanity_examples_tiles.csv",
    }  # fmt: skip
