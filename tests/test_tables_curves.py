"""Insertion and deletion as a table: known curves of a linear classifier, options that reach the curves, mean curves.

C classes, S steps, H×W pixels.
"""

import math
from dataclasses import replace

import pytest
import torch
from toy_models import SIZE, FlatNet, SmallNet, WindowNet, card, freeze
from toy_tables import cells, have_equal_columns, make_images, noise, scores_of, together

from explainer.evaluation.tables import InsertionDeletionOptions, InsertionDeletionTable
from explainer.evaluation.tables.insertion_deletion import packed, unpacked
from explainer.explanandum import Explanandum
from explainer.metrics.curves import CurveOptions, DeletionAUC, InsertionAUC

PIXELS = SIZE * SIZE
HALF_FLOAT = 5e-4
"""What a kept curve is rounded by."""


class Linear(FlatNet):
    """Logits linear in the pixels, of a size at which a sigmoid is neither 0 nor 1."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.linear.weight.copy_(noise(*self.linear.weight.shape, seed=3) - 0.5)
            self.linear.bias.fill_(-1.0)


def table_of(net=None, explanandum=None, **options):
    explanandum = explanandum or freeze(net or Linear())
    return InsertionDeletionTable(explanandum, InsertionDeletionOptions(**options)), explanandum


def scenes(explanandum, count=3, labels=((0,), (0, 2), (1,)), seed=0):
    return make_images(explanandum, 0.2 * noise(count, 3, SIZE, SIZE, seed=seed), list(map(list, labels)))


def shares(explanandum, images):
    """What each pixel adds to each logit of a `Linear`, [B,C,H,W]: the best map there is."""
    weight = explanandum.model.linear.weight.unflatten(1, (3, SIZE, SIZE))
    return (weight[None] * images.image[:, None]).sum(dim=2)


def main_row(table, scores):
    return table.summarise([scores])["insertion_deletion"][0]


def areas(scores, name):
    return [row[name] for row in scores.flat]


def by_trapezoids(heights):
    """Of a curve over an x axis from 0 to 1, equal steps."""
    return sum((one + other) / 2 for one, other in zip(heights, heights[1:], strict=False)) / (len(heights) - 1)


def test_the_curves_of_a_linear_classifier_add_up_what_its_pixels_are_worth():
    step = 64
    zero = {"insertion_from": "zero", "deletion_to": "zero"}
    table, explanandum = table_of(step=step, target="ground_truth", **zero)
    images = scenes(explanandum, labels=((0,), (1,), (2,)))
    best = shares(explanandum, images)
    rows = scores_of(table, images, best).rows
    for index in range(3):
        worth = best[index, index].double().flatten().sort(descending=True).values
        sums = torch.cat([torch.zeros(1), worth.cumsum(0)])[::step]
        inserted = (sums - 1).sigmoid().tolist()
        deleted = (worth.sum() - sums - 1).sigmoid().tolist()
        (row,) = rows[f"image{index}"]
        assert unpacked(row["insertion_curve"]) == pytest.approx(inserted, abs=HALF_FLOAT)
        assert unpacked(row["deletion_curve"]) == pytest.approx(deleted, abs=HALF_FLOAT)
        # The areas are those of the curves before they are rounded.
        assert row["insertion"] == pytest.approx(by_trapezoids(inserted), abs=1e-5)
        assert row["deletion"] == pytest.approx(by_trapezoids(deleted), abs=1e-5)
        assert row["over_all"] == pytest.approx(row["insertion"] - row["deletion"], abs=1e-6)
        assert row["probability"] == pytest.approx(inserted[-1], abs=1e-5)


def test_the_best_map_beats_noise_and_its_opposite_and_the_areas_are_in_percent():
    table, explanandum = table_of(target="ground_truth", insertion_from="zero", deletion_to="zero")
    images = scenes(explanandum)
    best = shares(explanandum, images)
    maps = {"best": best, "random": noise(3, 3, SIZE, SIZE, seed=5), "worst": -best}
    scores = [scores_of(table, images, one, name) for name, one in maps.items()]
    files = table.summarise(scores)
    rows = files["insertion_deletion"]
    assert rows[0]["insertion"] > rows[1]["insertion"] + 1 > rows[2]["insertion"] + 2
    assert rows[0]["deletion"] < rows[1]["deletion"] - 1 < rows[2]["deletion"] - 2
    for row, one in zip(rows, scores, strict=True):
        for name in ("insertion", "deletion", "over_all"):
            assert row[name] == pytest.approx(100 * sum(areas(one, name)) / 4, abs=1e-4)
        assert row["over_all"] == pytest.approx(row["insertion"] - row["deletion"], abs=1e-4)
    assert rows[0]["images"] == 3  # though there are four maps
    pairs = {(row["method"], row["other"]): row for row in files["insertion_deletion_differences"]}
    assert pairs["best", "worst"]["measure"] == "over_all"
    assert pairs["best", "worst"]["difference"] == pytest.approx(rows[0]["over_all"] - rows[2]["over_all"], abs=1e-4)
    assert have_equal_columns(*scores)


def test_a_flat_map_gains_nothing_by_where_the_object_lies():
    """The classifier reads the top left corner. By index, a flat map would find it, or miss it, at once."""
    table, explanandum = table_of(WindowNet(side=16), target="ground_truth", insertion_from="zero", deletion_to="zero")
    images = make_images(explanandum, torch.ones(1, 3, SIZE, SIZE), [[0]])
    by_index = torch.arange(PIXELS).view(1, 1, SIZE, SIZE).expand(1, 3, -1, -1).float()
    maps = {"flat": torch.zeros(1, 3, SIZE, SIZE), "first": -by_index, "last": by_index}
    found = {name: areas(scores_of(table, images, one), "insertion")[0] for name, one in maps.items()}
    # Every share of the pixels holds about the same share of the window: the logit grows evenly from 0 to 1.
    evenly = by_trapezoids([1 / (1 + math.exp(-index / 100)) for index in range(101)])
    assert found["flat"] == pytest.approx(evenly, abs=0.005)
    assert found["first"] > evenly + 0.02
    assert found["last"] < evenly - 0.02


def test_the_predicted_class_is_asked_or_every_present_one():
    table, explanandum = table_of(SmallNet(), step=0.25)
    images = scenes(explanandum)
    assert table.asks(images).tolist() == [
        [index == best for index in range(3)] for best in images.logits.argmax(dim=1).tolist()
    ]
    present, _ = table_of(explanandum=explanandum, target="ground_truth")
    assert torch.equal(present.asks(images), images.labels)
    rows = scores_of(table, images, noise(3, 3, SIZE, SIZE)).rows
    names = [row["class"] for of_image in rows.values() for row in of_image]
    assert names == [explanandum.card.classes[index] for index in images.predicted.tolist()]


@pytest.mark.parametrize("target", ["predicted", "ground_truth"])
def test_images_that_are_classified_wrongly_can_be_left_out(target):
    table, explanandum = table_of(WindowNet(), target=target, only_correct=True)
    pictures = explanandum.model.windows.windows[:, None].expand(-1, 3, -1, -1).contiguous()  # seen as class 0, 1, 2
    images = make_images(explanandum, pictures, [[0], [2], [0, 2]])
    assert table.left_out(images) == ["", "classified wrongly", ""]
    all_of_them, _ = table_of(explanandum=explanandum, target=target)
    assert all_of_them.left_out(images) == ["", "", ""]


def test_an_image_without_a_class_is_left_out_only_if_its_classes_are_asked():
    table, explanandum = table_of(SmallNet(), target="ground_truth")
    images = make_images(explanandum, noise(2, 3, SIZE, SIZE), [[], [1]])
    assert table.left_out(images) == ["without a class", ""]
    predicted, _ = table_of(explanandum=explanandum)
    assert predicted.left_out(images) == ["", ""]


@pytest.mark.parametrize(
    "options",
    [
        {"step": 128},
        {"step": 0.05},
        {"insertion_from": "black"},
        {"insertion_from": "zero"},
        {"deletion_to": "zero"},
        {"deletion_to": "black"},
        {"kernel_size": 5},
        {"sigma": 1.0},
        {"score": "softmax"},
    ],
    ids=str,
)
def test_every_option_reaches_its_curve_and_no_other(options):
    """Against the metric with the same options, and against the table without them."""
    net = SmallNet()
    # Normalised images, so that black is not zero.
    explanandum = Explanandum(net, replace(card(), mean=(0.5, 0.4, 0.3)))
    given = {"step": 0.1, **options}
    table, _ = table_of(explanandum=explanandum, **given)
    images, maps = scenes(explanandum), noise(3, 3, SIZE, SIZE)
    asked = table.asks(images)
    shared = {name: given[name] for name in ("step", "kernel_size", "sigma", "score") if name in given}
    metrics = {
        "insertion": InsertionAUC(explanandum, CurveOptions(baseline=given.get("insertion_from", "blur"), **shared)),
        "deletion": DeletionAUC(explanandum, CurveOptions(baseline=given.get("deletion_to", "blur"), **shared)),
    }
    found = main_row(table, scores_of(table, images, maps))
    for name, metric in metrics.items():
        metric.update(images.image, maps[asked], images.predicted)
        assert found[name] == pytest.approx(100 * metric.compute().item(), abs=1e-3)
    plain, _ = table_of(explanandum=explanandum, step=0.1)
    other = main_row(plain, scores_of(plain, images, maps))
    moved = {name for name in metrics if found[name] != other[name]}
    of_one = {"insertion_from": {"insertion"}, "deletion_to": {"deletion"}}
    assert moved == of_one.get(next(iter(options)), {"insertion", "deletion"})


def test_the_mean_curves_are_the_means_of_all_curves_over_batches():
    table, explanandum = table_of(SmallNet(), step=0.2, target="ground_truth")
    images, maps = scenes(explanandum), noise(3, 3, SIZE, SIZE)
    parts = [scores_of(table, images.subset([index]), maps[[index]]) for index in range(3)]
    points = table.summarise([together(*parts)])["insertion_deletion_curves"]
    assert [point["fraction"] for point in points] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=1e-3)
    whole = scores_of(table, images, maps)
    for name in ("insertion", "deletion"):
        curves = torch.stack([torch.tensor(unpacked(row[f"{name}_curve"])) for row in whole.flat])
        assert len(curves) == 4
        assert [point[name] for point in points] == pytest.approx(curves.mean(dim=0).tolist(), abs=HALF_FLOAT)
        for point in points:
            assert point[f"{name}_low"] <= point[name] <= point[f"{name}_high"]
    # The ends: the image itself, and the same image again.
    assert points[0]["deletion"] == pytest.approx(points[-1]["insertion"], abs=HALF_FLOAT)
    area = by_trapezoids([point["insertion"] for point in points])
    assert main_row(table, whole)["insertion"] == pytest.approx(100 * area, abs=0.1)


def test_a_method_without_a_score_has_no_curve_but_a_row():
    table, explanandum = table_of(SmallNet(), step=0.5)
    images, maps = scenes(explanandum), noise(3, 3, SIZE, SIZE)
    nothing = scores_of(table, images, maps, "nothing")
    nothing.rows.clear()
    files = table.summarise([scores_of(table, images, maps), nothing])
    assert {point["method"] for point in files["insertion_deletion_curves"]} == {"method"}
    assert cells(files["insertion_deletion"][1], "method", "insertion", "images") == ["nothing", None, 0]
    assert files["insertion_deletion_differences"] == []


def test_a_curve_survives_as_text():
    curve = torch.linspace(0, 1, 101)
    assert unpacked(packed(curve)) == pytest.approx(curve.tolist(), abs=HALF_FLOAT)
    assert unpacked(packed(torch.tensor([0.0, 0.5, 1.0]))).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"step": 0}, "step is 0"),
        ({"step": 1.5}, "step is 1.5"),
        ({"kernel_size": 50}, "kernel_size is 50; give an odd number"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"deletion_to": "white"}, "Unknown baseline 'white'"),
        ({"score": "sigmoid"}, "Unknown score 'sigmoid'"),
    ],
)
def test_curves_that_can_not_be_drawn_are_refused_before_the_first_image(options, message):
    with pytest.raises(ValueError, match=message):
        InsertionDeletionOptions(**options)


def test_the_defaults_are_the_papers():
    """Group-CAM, Sec. 4.3: 1 % at a time, from and to a blurred image; SIGCAM: its size."""
    options = InsertionDeletionOptions()
    assert (options.step, options.insertion_from, options.deletion_to) == (0.01, "blur", "blur")
    assert (options.kernel_size, options.sigma) == (51, 50)
