"""The metrics agree with the papers, written out as plain loops in `tests.reference`, by one who had not seen them.

N images or maps, C classes, H×W pixels. Where the papers leave a case open and the two decided differently, a test says
how, and why the metric stays as it is. The scores of Table 2 are compared in test_segmentation_metrics.py.
"""

import importlib
import inspect
import math
import pkgutil

import pytest
import torch
from reference import curves, masking, pixels, pointing, recognition, similarity
from reference.convert import nested, per_image
from test_methods_against_references import MEAN, OUTPUTS, STD, Asked, TinyNet, explanandum_of, images_of
from torchmetrics import Metric

from explainer import metrics
from explainer.metrics import (
    MASKED_THRESHOLD,
    PLAIN_THRESHOLD,
    THRESHOLDS,
    UNMASKED,
    ClassMasking,
    CurveOptions,
    DeletionAUC,
    InsertionAUC,
    PointingGame,
    Recognition,
    auc,
    changed_pixels,
    class_masking_scores,
    class_specificity,
    curve_fractions,
    deletion_curve,
    importance_ranks,
    insertion_curve,
    masking_matrix,
    over_all,
    per_class_scores,
    pointing_hit,
    rank_correlation,
    recognition_counts,
    scores_from_counts,
    unmasked_scores,
)

SHAPES = [(3, 8, 9), (2, 13, 5), (2, 1, 17), (4, 6, 6)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
KINDS = ("continuous", "tied", "signed", "flat", "one peak")
every_kind = pytest.mark.parametrize("kind", KINDS)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def maps_of(kind, shape, seed=0):
    """Maps [N,H,W], float32."""
    base = noise(*shape, seed=seed)
    made = {
        "continuous": base,
        "tied": (4 * base).floor(),
        "signed": base - 0.5,
        "flat": torch.full(shape, -0.3),
        "one peak": (base == base.amax(dim=(1, 2), keepdim=True)).double(),
    }
    return made[kind].float()


def close(actual, expected, tolerance=1e-6):
    """Values alone, NaN like NaN."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        torch.as_tensor(actual).double(), expected, atol=tolerance, rtol=0, equal_nan=True, check_device=False
    )


# --- insertion and deletion ---


def drawn_order(height, width, seed):
    """The order in which pixels of one value follow each other: the papers leave it open, so it is the metric's own."""
    return torch.randperm(height * width, generator=torch.Generator().manual_seed(seed)).tolist()


@every_shape
@every_kind
@pytest.mark.parametrize("seed", [0, 5])
def test_ranks_are_the_places_in_the_order_of_importance(shape, kind, seed):
    maps = maps_of(kind, shape)
    for ranks, one in zip(importance_ranks(maps, seed).flatten(1), maps, strict=True):
        order = curves.ranking(nested(one), drawn_order(*shape[1:], seed))
        assert ranks[order].tolist() == list(range(len(order)))


@pytest.mark.parametrize("total", [1, 7, 48, 49, 1024, 224 * 224])
@pytest.mark.parametrize("step", [1, 2, 7, 48, 224, 448])
def test_steps_of_pixels_have_the_same_points(total, step):
    assert changed_pixels(step, total) == curves.counts_by_pixels(total, step)


@pytest.mark.parametrize("total", [64, 320 * 240, 1024, 224 * 224, 336 * 224])
@pytest.mark.parametrize("step", [0.01, 0.03, 0.07, 0.1, 0.2, 0.36, 0.9])
def test_steps_of_a_share_have_the_same_points(total, step):
    assert changed_pixels(step, total) == curves.counts_by_fraction(total, step)


@pytest.mark.parametrize(("total", "step"), [(299 * 299, 0.01), (225, 0.1), (50, 0.01), (10, 0.25), (7, 0.5), (5, 0.3)])
def test_a_share_that_ends_on_half_a_pixel_may_be_rounded_either_way(total, step):
    """The papers don't say: the metric rounds to the even number, the reference up; all other points are the same."""
    found, expected = changed_pixels(step, total), curves.counts_by_fraction(total, step)
    assert len(found) == len(expected)
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        tied = abs(index * step * total % 1 - 0.5) < 1e-9 and one != total
        assert other - one in ((0, 1) if tied else (0,))
        assert not (tied and one % 2)


BLUR = {"kernel_size": 7, "sigma": 3.0}


def baseline_of(image, kind):
    """The baseline image of a nested image."""
    height, width = len(image[0]), len(image[0][0])
    made = {
        "blur": lambda: pixels.gaussian_blur(image, BLUR["kernel_size"], BLUR["sigma"]),
        "zero": lambda: curves.black(image),  # of a normalised image: the mean colour
        "black": lambda: [pixels.filled(-mean / std, height, width) for mean, std in zip(MEAN, STD, strict=True)],
    }
    return made[kind]()


def score_of(explanandum, target, score):
    """Nested image -> probability of the target, as `CurveOptions.score` has it."""
    asked = Asked(explanandum, target)
    if score == "softmax":
        asked.output = "single_label"
    return asked.score


CURVES = {"insertion": (insertion_curve, curves.insertion_curve), "deletion": (deletion_curve, curves.deletion_curve)}


def expected_curve(name, explanandum, image, one, target, options):
    """The reference's points and their numbers of changed pixels, for one image and one map."""
    image, (height, width) = nested(image), one.shape
    order = curves.ranking(nested(one), drawn_order(height, width, options.seed))
    counts_of = curves.counts_by_fraction if options.step < 1 else curves.counts_by_pixels
    counts = counts_of(height * width, options.step)
    score = score_of(explanandum, int(target), options.score)
    return CURVES[name][1](image, baseline_of(image, options.baseline), order, counts, score), counts


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("kind", "step", "baseline", "score"),
    [
        ("continuous", 0.1, "blur", "own"),
        ("continuous", 25, "zero", "softmax"),
        ("tied", 0.07, "black", "own"),
        ("signed", 48, "blur", "own"),
        ("flat", 0.3, "blur", "own"),
        ("one peak", 1000, "zero", "own"),
    ],
)
def test_curves_and_their_areas_are_those_of_the_reference(name, output, kind, step, baseline, score):
    """Also for images that are not square and for a last step that is shorter than the others."""
    height, width = 12, 16
    explanandum, images = explanandum_of(TinyNet(seed=1), height, output), images_of(3, height, width)
    maps, targets = maps_of(kind, (3, height, width), seed=4), torch.tensor([2, 0, 1])
    options = CurveOptions(step=step, baseline=baseline, score=score, seed=3, **BLUR)
    found = CURVES[name][0](explanandum, images, maps, targets, options)
    fractions = curve_fractions(step, height, width)
    areas = torch.stack([auc(found), auc(found, fractions)], dim=1)
    for index in range(3):
        scores, counts = expected_curve(name, explanandum, images[index], maps[index], targets[index], options)
        close(found[index], scores, 1e-5)
        close(fractions, torch.tensor(counts) / (height * width))
        close(areas[index], [curves.auc(scores), curves.auc(scores, counts)], 1e-5)
    assert found.std(dim=1).min() > 1e-3, "A flat curve shows nothing."


def test_the_metrics_are_the_mean_area_over_images_and_the_over_all_score_their_difference():
    size = 12
    explanandum, images = explanandum_of(TinyNet(seed=1), size, "single_label"), images_of(3, size, size)
    maps, targets, options = maps_of("continuous", (3, size, size)), torch.tensor([2, 0, 1]), CurveOptions(50, **BLUR)
    areas, expected = {}, {}
    for name, kind in (("insertion", InsertionAUC), ("deletion", DeletionAUC)):
        metric = kind(explanandum, options)
        for part in (slice(0, 1), slice(1, 3)):
            metric.update(images[part], maps[part], targets[part])
        areas[name] = metric.compute()
        one_by_one = [
            curves.auc(*expected_curve(name, explanandum, images[i], maps[i], targets[i], options)) for i in range(3)
        ]
        expected[name] = sum(one_by_one) / 3
        close(areas[name], expected[name], 1e-5)
    close(over_all(**areas), curves.over_all(**expected), 1e-5)


@pytest.mark.parametrize("points", [2, 3, 17, 101])
def test_areas_of_any_curve(points):
    heights = noise(4, points)
    places = torch.cat([torch.zeros(1), noise(points - 1, seed=1).add(0.1).cumsum(0)]).double()
    for height, plain, spaced in zip(heights, auc(heights), auc(heights, places / places[-1]), strict=True):
        close(plain, curves.auc(nested(height)))
        close(spaced, curves.auc(nested(height), nested(places)))


# --- pointing game ---


def regions_of(shape, share, seed=9):
    """Regions [N,H,W] of several parts, none of them empty."""
    region = noise(*shape, seed=seed) < share
    region[:, -1, 0] = True
    return region


@every_shape
@every_kind
@pytest.mark.parametrize("tolerance", [0, 1, 2, 3, 5, 15])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.4, 1.0])
def test_hits_are_those_of_the_reference(shape, kind, tolerance, share):
    """Tied maxima share the hit; a region may be one pixel, or the whole image."""
    maps, region = maps_of(kind, shape), regions_of(shape, share)
    expected = [pointing.hit(nested(one), nested(of), tolerance) for one, of in zip(maps, region.double(), strict=True)]
    close(pointing_hit(maps, region, tolerance), expected)


def test_a_distance_of_just_the_tolerance_is_a_miss():
    """3-4-5 triangles in all directions, on a large image."""
    region = torch.zeros(1, 40, 40, dtype=torch.bool)
    region[0, 20, 20] = True
    for row in range(5, 36, 5):
        for column in range(5, 36):
            peak = torch.zeros(1, 40, 40)
            peak[0, row, column] = 1
            for tolerance in (5, 13, 15):
                expected = pointing.is_hit((row, column), nested(region[0].double()), tolerance)
                assert pointing_hit(peak, region, tolerance).item() == expected


def test_rates_of_the_classes_and_their_mean():
    shape, classes = (12, 5, 6), 6
    maps, region = maps_of("tied", shape), regions_of(shape, 0.3)
    target = torch.tensor([0, 4, 4, 2, 2, 2, 0, 4, 1, 2, 2, 0])  # 3 and 5 are never asked
    hits = [
        (int(c), pointing.hit(nested(one), nested(of), 2))
        for one, of, c in zip(maps, region.double(), target, strict=True)
    ]
    metric = PointingGame(classes, tolerance=2)
    metric.update(maps[:5], region[:5], target[:5])
    metric.update(maps[5:], region[5:], target[5:])
    found, rates = metric.compute(), pointing.class_rates(hits)
    close(found["per_class"], [rates.get(c, math.nan) for c in range(classes)])
    assert found["mean"] == pytest.approx(pointing.mean_rate(hits))


def test_an_empty_region_is_left_out_where_the_reference_counts_a_miss():
    """The papers ask of objects that are there; without one nothing could be hit, which says nothing of the map."""
    maps, region = maps_of("continuous", (1, 5, 6)), torch.zeros(1, 5, 6, dtype=torch.bool)
    assert pointing_hit(maps, region, 15).isnan().all()
    assert pointing.hit(nested(maps[0]), nested(region[0].double()), 15) == 0


# --- class-specific masking ---


def masks_of(kind, *shape, seed=2):
    """Masks in [0, 1], in float64: `tenths` lie on the thresholds."""
    base = noise(*shape, seed=seed)
    tenths = (11 * base).floor().clamp(max=10) / 10
    return {"continuous": base, "tenths": tenths, "zeros": 0 * base, "ones": 0 * base + 1}[kind]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", ["continuous", "tenths", "zeros", "ones"])
@pytest.mark.parametrize("thresholds", [THRESHOLDS, (0.5,), (0.0, 0.25, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_and_unmasked_confidence(output, kind, thresholds, dtype):
    """A value that equals a threshold is out, also in float32, where neither of them is just a tenth."""
    count, height, width = 2, 9, 12
    explanandum, images = explanandum_of(TinyNet(seed=1), height, output), images_of(count, height, width)
    masks, targets = masks_of(kind, count, 2, height, width), torch.tensor([2, 0])
    found = class_masking_scores(explanandum, images, masks.to(dtype), targets, thresholds)
    plain = unmasked_scores(explanandum, images, targets)
    for index, target in enumerate(targets.tolist()):
        classifier, image = logits_of(explanandum), nested(images[index])
        rows = [nested(mask) for mask in masks[index]]
        expected = [masking.masked_confidence(image, mask, target, classifier, list(thresholds)) for mask in rows]
        close(found[index], expected, 1e-5)
        close(plain[index], masking.confidence(image, target, classifier), 1e-5)


def logits_of(explanandum):
    """Nested image -> logits [C], in float64."""
    model = Asked(explanandum, 0).model
    return lambda image: nested(model(torch.tensor(image, dtype=torch.float64)[None])[0])


def test_thresholds_are_the_papers():
    assert list(THRESHOLDS) == masking.THRESHOLDS


class MaskedSamples:
    """Random images with a random mask for each class, as tensors and as the reference's samples."""

    def __init__(self, labels, classes):
        size, count = 8, len(labels)
        self.explanandum = explanandum_of(TinyNet(seed=1), size, "multi_label")
        self.images, self.classes = images_of(count, size, size), classes
        self.masks = masks_of("continuous", count, len(classes), size, size)
        self.labels = torch.tensor(labels)
        self.samples = [
            masking.Sample(nested(image), label, dict(zip(classes, nested(mask), strict=True)))
            for image, label, mask in zip(self.images, labels, self.masks, strict=True)
        ]

    def records(self):
        """Index of the image, target, probability under each mask, and without one: one record for each class there."""
        asked = [(i, c) for i, row in enumerate(self.labels.tolist()) for c in self.classes if row[c]]
        index, target = torch.tensor(asked).T
        images = self.images[index]
        scores = class_masking_scores(self.explanandum, images, self.masks[index], target)
        return target, scores, unmasked_scores(self.explanandum, images, target)

    def expected(self):
        """Table and column "none" of the reference."""
        arguments = self.samples, self.classes, logits_of(self.explanandum)
        return masking.matrix(*arguments), masking.unmasked(*arguments)


LABELS = [[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("classes", [[0, 1, 2], [2, 0], [1]])
def test_the_table_of_class_specific_masking(classes):
    """Images with several of the classes, some classes left out, another order."""
    case = MaskedSamples(LABELS, classes)
    target, scores, unmasked = case.records()
    table, none = case.expected()
    metric = ClassMasking(classes)
    metric.update(target[:2], scores[:2], unmasked[:2])
    metric.update(target[2:], scores[2:], unmasked[2:])
    found = metric.compute()
    # Reshaped, since torchmetrics makes a scalar of a table of one class.
    close(found["matrix"].reshape(len(classes), -1), table, 1e-5)
    close(found["unmasked"].reshape(-1), none, 1e-5)
    if len(classes) > 1:
        assert found["class_specificity"] == pytest.approx(masking.figure_of_merit(table), abs=1e-5)
    mask = torch.tensor([UNMASKED, *classes]).repeat(len(target))
    every = torch.cat([unmasked[:, None], scores], dim=1).flatten()
    listed = masking_matrix(target.repeat_interleave(1 + len(classes)), mask, every, classes, [UNMASKED, *classes])
    close(listed, torch.cat([torch.tensor(none)[:, None], torch.tensor(table)], dim=1), 1e-5)


def test_the_figure_of_merit_leaves_out_a_class_without_images_where_the_reference_has_no_number():
    """One class that a small split happens to lack would otherwise cost all the others their number."""
    case = MaskedSamples([[1, 0, 0], [1, 0, 1]], [0, 1, 2])
    target, scores, unmasked = case.records()
    metric = ClassMasking([0, 1, 2])
    metric.update(target, scores, unmasked)
    table, _ = case.expected()
    found = metric.compute()
    close(found["matrix"], table, 1e-5)
    assert math.isnan(masking.figure_of_merit(table))
    there = [0, 2]
    diagonal = sum(table[row][row] for row in there) / 2
    rest = sum(table[row][column] for row in there for column in range(3) if column != row) / 4
    assert found["class_specificity"] == pytest.approx(diagonal - rest, abs=1e-5)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_figures_of_merit(size):
    table = noise(size, size)
    close(class_specificity(table), masking.figure_of_merit(nested(table)))


# --- precision, recall, F-score ---

NAMES = ("precision", "recall", "f_score")


def decisions(images, classes, seed=0):
    """Logits and labels; some logits lie on the two thresholds."""
    logits = (4 * noise(images, classes, seed=seed) - 2.5).mul(2).round().div(2)
    return logits, (noise(images, classes, seed=seed + 1) < 0.4).long()


@pytest.mark.parametrize("threshold", [PLAIN_THRESHOLD, MASKED_THRESHOLD, 0.3])
@pytest.mark.parametrize(("images", "classes"), [(40, 5), (7, 20), (1, 3), (25, 1)])
def test_counts_and_scores(images, classes, threshold):
    logits, labels = decisions(images, classes)
    found, expected = (
        recognition_counts(logits, labels, threshold),
        recognition.counts(nested(logits), nested(labels), threshold),
    )
    assert list(zip(*(found[name].tolist() for name in ("tp", "fp", "fn")), strict=True)) == expected
    scores, seen = per_class_scores(**found), torch.stack(list(found.values())).sum(dim=0) > 0
    for name in NAMES:
        # 0/0 of all three is NaN here, see below.
        close(scores[name][seen], [getattr(recognition.scores(one), name) for one in expected if sum(one)])
    pooled = recognition.pooled(nested(logits), nested(labels), threshold)
    summary = scores_from_counts(**found)
    close(torch.stack([summary[f"micro_{name}"] for name in NAMES]), pooled)
    macro = recognition.macro(nested(logits[:, seen]), nested(labels[:, seen]), threshold)
    close(torch.stack([summary[f"macro_{name}"] for name in NAMES]), macro)


def test_the_metric_of_recognition():
    logits, labels = decisions(40, 4, seed=5)
    metric = Recognition(4, MASKED_THRESHOLD)
    metric.update(logits[:7], labels[:7])
    metric.update(logits[7:], labels[7:])
    found = metric.compute()
    for kind, reference in (("micro", recognition.pooled), ("macro", recognition.macro)):
        expected = reference(nested(logits), nested(labels), MASKED_THRESHOLD)
        assert [found[f"{kind}_{name}"] for name in NAMES] == pytest.approx(list(expected))


def test_a_class_that_is_neither_there_nor_recognised_has_no_score_where_the_reference_counts_0():
    """Every answer about it was right. Table 4 is pooled, which such a class doesn't change."""
    logits, labels = decisions(30, 3)
    logits[:, 1], labels[:, 1] = -9.0, 0
    found = recognition_counts(logits, labels)
    assert per_class_scores(**found)["f_score"][1].isnan()
    expected = recognition.macro(nested(logits), nested(labels), 0)
    assert scores_from_counts(**found)["macro_f_score"].item() == pytest.approx(expected.f_score * 3 / 2)


def test_a_class_that_is_only_there_or_only_recognised_scores_0_in_both():
    logits, labels = torch.tensor([[-1.0, 1.0], [-2.0, 2.0]]), torch.tensor([[1, 0], [1, 0]])
    counted = recognition.counts(nested(logits), nested(labels), 0)
    for name, values in per_class_scores(**recognition_counts(logits, labels)).items():
        assert values.tolist() == [getattr(recognition.scores(one), name) for one in counted] == [0, 0]


# --- rank correlation ---


@every_shape
@pytest.mark.parametrize(("first", "second"), [(one, other) for one in KINDS for other in KINDS if one != other])
def test_rank_correlation_is_the_references(shape, first, second):
    """Also of maps with ties, and 0 where one of the two is flat."""
    one, other = maps_of(first, shape, seed=1), maps_of(second, shape, seed=2)
    close(rank_correlation(one, other), per_image(similarity.spearman, one, other))


@every_shape
@pytest.mark.parametrize("kind", ["continuous", "tied", "signed", "one peak"])
def test_rank_correlation_of_similar_reversed_and_equal_maps(shape, kind):
    one = maps_of(kind, shape)
    for other in (one, -one, one.exp(), one + 0.2 * maps_of("continuous", shape, seed=8)):
        close(rank_correlation(one, other), per_image(similarity.spearman, one, other))


def test_two_flat_maps_are_alike_where_the_reference_has_0():
    """0/0 by the definition.

    With 0, a method whose map is flat whatever the classifier's weights are would look in the sanity checks as if it
    depended on them; with 1, it is seen to be the same map.
    """
    one, other = torch.zeros(1, 4, 5), torch.full((1, 4, 5), 3.0)
    assert rank_correlation(one, other).tolist() == [1.0]
    assert similarity.spearman(nested(one[0]), nested(other[0])) == 0


# --- the package ---


def test_the_package_holds_every_public_function_and_metric_of_its_modules():
    missing = []
    for found in pkgutil.iter_modules(metrics.__path__):
        module = importlib.import_module(f"explainer.metrics.{found.name}")
        for name, value in vars(module).items():
            public = inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, Metric))
            if public and not name.startswith("_") and value.__module__ == module.__name__:
                missing += [name] if getattr(metrics, name, None) is not value else []
    assert not missing
