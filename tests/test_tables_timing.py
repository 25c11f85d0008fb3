"""Costs: passes are counted to the last one, warming up is not timed, and training is told apart."""

import time

import pytest
import torch
from toy_models import SIZE, BreakableNet, BrokenError, SmallNet, freeze
from toy_tables import cells, make_images, named, noise

from explainer.attribution import METHODS, AttributionMethod
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.records import MethodScores
from explainer.evaluation.tables import TimingOptions, TimingTable

NO_MAPS = ClassMaps(torch.zeros(0), torch.zeros(0), torch.zeros(0), unit_range=False)
LABELS = [[0, 1, 2], [1], [0, 2]]


class SlowStart(AttributionMethod):
    """Takes its time on its first call, and a little on every other."""

    first, every = 0.3, 0.02

    def __init__(self, explanandum):
        super().__init__(explanandum)
        self.calls = []

    def __call__(self, image, target):
        raise AssertionError("all classes of an image are asked for at once")

    def present_class_maps(self, image, labels):
        time.sleep(self.every if self.calls else self.first)
        self.calls.append((len(image), labels.tolist()))
        return super().present_class_maps(image, torch.zeros_like(labels))


def scored(method, table, labels=LABELS, name="method"):
    images = make_images(table.explanandum, noise(len(labels), 3, SIZE, SIZE), labels)
    rows = table.score(images, NO_MAPS, named(method, name))
    return MethodScores(name, dict(zip(images.names, rows, strict=True)), {})


def table_of(net=None, hours=None, **options):
    explanandum = freeze(net or SmallNet())
    return TimingTable(explanandum, TimingOptions(**options), hours), explanandum


def passes(scores):
    return [(row["forward"], row["backward"], row["classes"]) for row in scores.flat]


@pytest.mark.parametrize(
    "name, options, expected",
    [
        # One forward pass, and a backward pass for each class.
        ("grad_cam", {}, [(1, 3, 3), (1, 1, 1), (1, 2, 2)]),
        ("rise", {"masks": 7}, [(7, 0, 3), (7, 0, 1), (7, 0, 2)]),
        ("random", {}, [(0, 0, 3), (0, 0, 1), (0, 0, 2)]),
    ],
)
@pytest.mark.parametrize("warm_up", [0, 2])
def test_passes_of_an_image_are_counted_exactly_and_those_of_warming_up_are_not(name, options, expected, warm_up):
    table, explanandum = table_of(warm_up=warm_up)
    assert passes(scored(METHODS[name](explanandum, **options), table)) == expected


def test_images_go_one_by_one_each_with_all_of_its_classes():
    table, explanandum = table_of(warm_up=2)
    method = SlowStart(explanandum)
    scored(method, table)
    hot = [[float(index in classes) for index in range(3)] for classes in LABELS]
    assert method.calls == [(1, [one]) for one in (hot[0], hot[0], *hot)]


def test_the_first_call_is_not_timed_but_the_others_are():
    table, explanandum = table_of()
    seconds = [row["seconds"] for row in scored(SlowStart(explanandum), table).flat]
    assert all(SlowStart.every <= value < SlowStart.first for value in seconds)
    cold, _ = table_of(warm_up=0)
    assert next(iter(scored(SlowStart(explanandum), cold).flat))["seconds"] >= SlowStart.first


def test_a_method_is_warmed_up_once_not_for_every_batch():
    table, explanandum = table_of()
    method = SlowStart(explanandum)
    scored(method, table)
    scored(method, table)
    assert len(method.calls) == 1 + 2 * len(LABELS)
    other = SlowStart(explanandum)
    scored(other, table, name="other")
    assert len(other.calls) == 1 + len(LABELS)


def test_the_table_shows_means_medians_classes_device_and_training():
    table, explanandum = table_of(hours={"learned": 1.5})
    scores = [scored(METHODS["grad_cam"](explanandum), table, name=name) for name in ("learned", "grad_cam")]
    for row, seconds in zip(scores[0].rows.values(), (1.0, 2.0, 6.0), strict=True):
        row[0]["seconds"] = seconds
    files = table.summarise(scores)
    first, second = files["timing"]
    names = ("seconds", "median_seconds", "forward", "backward", "classes", "training_hours", "images")
    assert cells(first, *names) == [3, 2, 1, 2, 2, 1.5, 3]
    assert second["training_hours"] is None
    assert second["device"] == f"cpu, {torch.get_num_threads()} thread(s)"
    (difference,) = files["timing_differences"]
    assert difference["measure"] == "seconds"
    assert difference["difference"] == pytest.approx(3 - second["seconds"])


def test_seconds_from_two_devices_are_told():
    table, explanandum = table_of()
    scores = scored(METHODS["grad_cam"](explanandum), table)
    next(iter(scores.rows.values()))[0]["device"] = "another"
    assert table.summarise([scores])["timing"][0]["device"].startswith("another and cpu")


def test_a_method_that_fails_is_not_swallowed_and_leaves_nothing_behind():
    """The loop turns the error into a failure of the image; the classifier must not keep the counting."""
    net = BreakableNet()
    table, explanandum = table_of(net)
    net.breaks.broken = True
    with pytest.raises(BrokenError):
        scored(METHODS["grad_cam"](explanandum), table)
    net.breaks.broken = False
    assert not net._forward_hooks
    assert not net._forward_pre_hooks
    assert passes(scored(METHODS["grad_cam"](explanandum), table)) == [(1, 3, 3), (1, 1, 1), (1, 2, 2)]
    assert table.calls_methods


def test_a_method_without_a_score_has_an_empty_row():
    table, _ = table_of()
    (row,) = table.summarise([MethodScores("nothing", {}, {"image0": "why"})])["timing"]
    assert cells(row, "seconds", "median_seconds", "classes", "device", "images", "failed") == [
        None,
        None,
        None,
        "",
        0,
        1,
    ]


def test_a_few_images_are_enough_and_those_without_a_class_are_left_out():
    table, explanandum = table_of(images=5)
    assert table.limit == 5
    assert not table.wants_maps
    images = make_images(explanandum, noise(2, 3, SIZE, SIZE), [[], [0]])
    assert table.left_out(images) == ["without a class", ""]


@pytest.mark.parametrize(
    "options, message", [({"images": 0}, "timing.images is 0"), ({"warm_up": -1}, "warm_up is -1")]
)
def test_a_table_of_no_image_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TimingOptions(**options)
