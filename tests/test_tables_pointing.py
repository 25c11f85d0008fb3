"""The pointing game on photographs of their own sizes: what hits, what is asked, and the two means.

C classes, H×W pixels.
"""

import pytest
import torch
from toy_models import SIZE, SmallNet, WindowNet, freeze
from toy_tables import cells, have_equal_columns, make_images, noise, scores_of, together

from datamodules.batch import VOID, Box
from explainer.attribution import METHODS
from explainer.evaluation.tables import PointingOptions, PointingTable, SplitFacts
from explainer.evaluation.tables.pointing import PointingRules
from explainer.metrics.pointing import PointingGame

WIDE = (30, 120)
"""Height and width of a photograph that was squashed to SIZE × SIZE."""


def table_of(net=None, **options):
    explanandum = freeze(net or SmallNet())
    return PointingTable(explanandum, PointingOptions(**options)), explanandum


def boxed(explanandum, boxes, labels=((0,),), sizes=None, **facts):
    """Images with boxes (class, left, top, right, bottom), the edges as fractions."""
    count = len(labels)
    return make_images(
        explanandum,
        noise(count, 3, SIZE, SIZE),
        list(map(list, labels)),
        boxes=tuple(tuple(Box(*box) for box in of_image) for of_image in boxes),
        original_size=sizes,
        **facts,
    )


def peak(row, column, count=1):
    """Maps [B,C,H,W] of one peak, negative elsewhere, as raw maps may be."""
    maps = torch.full((count, 3, SIZE, SIZE), -2.0)
    maps[:, :, row, column] = -1
    return maps


def hits(table, images, maps):
    return [row["hit"] for row in scores_of(table, images, maps).flat]


def test_a_map_with_its_maximum_in_the_box_scores_100():
    table, explanandum = table_of(tolerance=0)
    images = boxed(explanandum, [[(0, 0.5, 0.5, 1, 1)]], sizes=(WIDE,))
    (row,) = table.summarise([scores_of(table, images, peak(20, 20))])["pointing"]
    assert cells(row, "method", "hit_rate", "over_maps", "images", "maps", "failed") == ["method", 100, 100, 1, 1, 0]
    (row,) = table.summarise([scores_of(table, images, peak(10, 20))])["pointing"]
    assert cells(row, "hit_rate", "over_maps") == [0, 0]


@pytest.mark.parametrize("place, right, down", [(None, 8, 8), (WIDE, 30, 7), ((120, 30), 7, 30), ((64, 64), 16, 16)])
def test_the_tolerance_counts_pixels_of_the_photograph_along_each_of_its_sides(place, right, down):
    """A box that ends in the image's middle; peaks right of it and below it, a quarter of the image away."""
    sizes = None if place is None else (place,)
    slack = 1 + max(place or (SIZE, SIZE)) // SIZE  # a peak that is enlarged covers several pixels
    for at, box, distance in (((16, 24), (0, 0, 0, 0.5, 1), right), ((24, 16), (0, 0, 0, 1, 0.5), down)):
        for tolerance, expected in ((distance - slack, 0), (distance + slack + 1, 1)):
            table, explanandum = table_of(tolerance=tolerance)
            assert hits(table, boxed(explanandum, [[box]], sizes=sizes), peak(*at)) == [expected]


def test_boxes_or_masks_count_as_one_asks():
    """The box is wider than the object in it."""
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    mask[0, 8:12, 8:12] = 1
    facts = {"boxes": [[(0, 0, 0, 0.5, 0.5)]], "mask": mask}
    on_the_object, in_the_box = peak(10, 10), peak(2, 2)
    for region, expected in (("masks", [1, 0]), ("boxes", [1, 1]), ("auto", [1, 1])):
        table, explanandum = table_of(region=region, tolerance=0)
        images = boxed(explanandum, **facts)
        assert [hits(table, images, maps)[0] for maps in (on_the_object, in_the_box)] == expected
    table, explanandum = table_of(tolerance=0)
    without_boxes = make_images(explanandum, noise(1, 3, SIZE, SIZE), [[0]], mask=mask)
    assert [hits(table, without_boxes, maps)[0] for maps in (on_the_object, in_the_box)] == [1, 0]


def test_all_boxes_of_a_class_count_and_those_of_another_do_not():
    table, explanandum = table_of(tolerance=0)
    boxes = [[(0, 0, 0, 0.25, 0.25), (0, 0.75, 0.75, 1, 1), (1, 0, 0.75, 0.25, 1)]]
    images = boxed(explanandum, boxes, labels=((0, 1),))
    for at, expected in (((2, 2), [1, 0]), ((30, 30), [1, 0]), ((30, 2), [0, 1]), ((2, 30), [0, 0])):
        assert hits(table, images, peak(*at)) == expected


def test_a_mask_is_as_large_as_the_photograph():
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    mask[0, :, 16:] = 1
    for size in (WIDE, (100, 40), (16, 16)):
        table, explanandum = table_of(region="masks", tolerance=0)
        images = make_images(explanandum, noise(1, 3, SIZE, SIZE), [[0]], mask=mask, original_size=(size,))
        assert hits(table, images, peak(16, 28)) == [1]
        assert hits(table, images, peak(16, 4)) == [0]


def test_a_flat_map_scores_what_a_blind_guess_would():
    table, explanandum = table_of(tolerance=0)
    images = boxed(explanandum, [[(0, 0, 0, 0.5, 0.25)]], sizes=((200, 100),))
    for value in (0.0, -1.0, 0.3):
        assert hits(table, images, torch.full((1, 3, SIZE, SIZE), value)) == pytest.approx([0.125])


@pytest.mark.parametrize("region", ["boxes", "masks"])
def test_an_image_whose_classes_are_nowhere_is_left_out_with_the_reason(region):
    table, explanandum = table_of(region=region)
    mask = torch.zeros(4, SIZE, SIZE, dtype=torch.uint8)
    mask[0, :, 16:] = 1
    mask[1:] = VOID
    boxes = [[(0, 0.5, 0, 1, 1)], [], [(2, 0, 0, 1, 1)], []]
    images = boxed(explanandum, boxes, labels=((0, 1), (0,), (1,), ()), mask=mask)
    nowhere = "without a region of such a class"
    assert table.left_out(images) == ["", nowhere, nowhere, "without a class"]
    assert table.asks(images)[0].tolist() == [True, False, False]


def test_boxes_are_not_mixed_with_masks():
    """Where the split has boxes, an image without them does not fall back to another kind of region."""
    table, explanandum = table_of()
    images = boxed(explanandum, [[]], mask=torch.ones(1, SIZE, SIZE, dtype=torch.uint8))
    assert table.left_out(images) == ["without a region of such a class"]


@pytest.mark.parametrize("thin", [(0, 0.501, 0, 0.504, 1), (0, 0.3, 0.3, 0.3, 0.3), (0, 0.6, 0, 0.4, 1)])
def test_an_object_that_holds_no_pixel_is_left_out_instead_of_breaking_the_table(thin):
    table, explanandum = table_of()
    images = boxed(explanandum, [[thin], [(0, 0, 0, 1, 1)]], labels=((0,), (0,)))
    assert table.left_out(images) == ["without a region of such a class", ""]
    (row,) = table.summarise([scores_of(table, images, peak(4, 4, 2))])["pointing"]
    assert cells(row, "hit_rate", "images") == [100, 1]


def test_an_object_that_vanishes_in_a_smaller_photograph_is_left_out_too():
    table, explanandum = table_of(region="masks")
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    mask[0, 1, 1] = 1
    images = make_images(explanandum, noise(1, 3, SIZE, SIZE), [[0]], mask=mask, original_size=((4, 4),))
    assert table.left_out(images) == ["without a region of such a class"]


def test_classes_that_the_classifier_does_not_see_are_not_asked_if_one_wishes():
    everything = [[(label, 0, 0, 1, 1) for label in range(3)]] * 2
    strict, explanandum = table_of(WindowNet(), least_score=0.8)
    image = torch.zeros(2, 3, SIZE, SIZE)
    image[0] = 3 * explanandum.model.windows.windows[1]  # sigmoid(3) = .95, the others one half
    images = make_images(
        explanandum, image, [[0, 1], [2]], boxes=tuple(tuple(Box(*box) for box in one) for one in everything)
    )
    assert strict.asks(images).tolist() == [[False, True, False], [False] * 3]
    assert strict.left_out(images) == ["", "without a class that the classifier scores high enough"]
    lenient, _ = table_of(WindowNet())
    assert torch.equal(lenient.asks(images), images.labels)


def test_a_probability_that_a_float_rounds_to_zero_does_not_leave_a_class_out():
    table, explanandum = table_of(WindowNet())
    images = make_images(
        explanandum, torch.full((1, 3, SIZE, SIZE), -500.0), [[0]], boxes=((Box(0, 0.0, 0.0, 1.0, 1.0),),)
    )
    assert explanandum.probabilities(images.logits)[0, 0] == 0
    assert table.left_out(images) == [""]


def test_asking_changes_no_label():
    table, explanandum = table_of()
    images = boxed(explanandum, [[]])
    images = type(images)(images.batch._replace(labels=images.batch.labels.bool()), explanandum)
    table.asks(images)
    assert images.labels.tolist() == [[True, False, False]]


def test_the_mean_over_classes_is_not_the_mean_over_maps():
    """Of cats three of four maps hit, of the one hen none."""
    table, explanandum = table_of(tolerance=0)
    whole, none = (0, 0, 0, 1, 1), (0, 0.9, 0.9, 1, 1)
    labels = ((0,), (0,), (0,), (0,), (2,))
    images = boxed(explanandum, [[whole], [whole], [whole], [none], [(2, 0.9, 0.9, 1, 1)]], labels=labels)
    scores = scores_of(table, images, peak(2, 2, 5))
    files = table.summarise([scores])
    assert cells(files["pointing"][0], "hit_rate", "over_maps", "maps") == [37.5, 60, 5]
    per_class = [cells(row, "class", "hit", "maps") for row in files["pointing_per_class"]]
    assert per_class == [["cat", 75, 4], ["hen", 0, 1]]
    game = PointingGame(3)
    for index in range(5):
        region = table._region(images, index, labels[index][0])
        game.update(peak(2, 2)[:, 0], region[None], torch.tensor(labels[index]))
    assert 100 * game.compute()["mean"] == files["pointing"][0]["hit_rate"]
    parts = [scores_of(table, images.subset([index]), peak(2, 2)) for index in range(5)]
    assert table.summarise([together(*parts)]) == files


def test_a_random_map_hits_by_area_and_the_centre_what_lies_there():
    table, explanandum = table_of(tolerance=0)
    count = 300
    box = (0, 0.25, 0.25, 0.75, 0.75)  # a quarter of the image, in its middle
    images = boxed(explanandum, [[box]] * count, labels=((0,),) * count, sizes=(WIDE,) * count)
    found = {}
    for name in PointingTable.extra_methods:
        method = METHODS[name](explanandum)
        maps = method(images.image, torch.zeros(count, dtype=torch.long))
        found[name] = scores_of(table, images, maps[:, None].expand(-1, 3, -1, -1), name)
    rows = table.summarise(list(found.values()))["pointing"]
    assert [row["method"] for row in rows] == ["random", "center"]
    assert rows[0]["hit_rate"] == pytest.approx(25, abs=8)
    assert rows[1]["hit_rate"] == 100
    assert have_equal_columns(*found.values())


@pytest.mark.parametrize(
    "region, masks, boxes, reason",
    [
        ("boxes", True, False, "no image of the split has boxes"),
        ("masks", False, True, "no image of the split has a segmentation mask"),
        ("auto", False, False, "the split has neither boxes nor segmentation masks"),
        ("auto", True, False, ""),
        ("auto", False, True, ""),
        ("boxes", False, True, ""),
        ("masks", True, False, ""),
    ],
)
def test_a_split_that_shows_no_object_is_refused(region, masks, boxes, reason):
    table, _ = table_of(region=region)
    assert table.unsuited(SplitFacts(masks, boxes, False)) == reason


@pytest.mark.parametrize(
    "options", [{"tolerance": -1}, {"least_score": 1.0}, {"least_score": -0.1}, {"protocol": "pami"}]
)
def test_options_that_leave_no_hit_or_no_class_are_refused(options):
    with pytest.raises(ValueError, match="pointing"):
        PointingOptions(**options)


@pytest.mark.parametrize(
    "options, rules",
    [
        ({}, ("auto", 15, 0.0, True)),
        ({"protocol": "torchray"}, ("auto", 15, 0.0, True)),
        ({"protocol": "group_cam"}, ("boxes", 0, 0.0, True)),
        ({"protocol": "sigcam"}, ("masks", 0, 0.5, True)),
        ({"region": "masks"}, ("masks", 15, 0.0, True)),
        ({"protocol": "sigcam", "tolerance": 3, "least_score": 0.0}, ("masks", 3, 0.0, True)),
        ({"tolerance": 0, "skip_difficult": False}, ("auto", 0, 0.0, False)),
    ],
)
def test_a_protocol_is_what_its_paper_says_but_for_what_is_given(options, rules):
    assert PointingOptions(**options).rules == PointingRules(*rules)


def test_equal_rules_share_their_scores_however_they_were_said():
    keys = [
        table_of(**options)[0].key
        for options in ({"protocol": "sigcam"}, {"region": "masks", "tolerance": 0, "least_score": 0.5}, {})
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_class_of_which_all_objects_are_difficult_is_not_asked():
    """Class 0 is difficult only, class 1 partly: then all of its boxes are hit. Class 2 has no box at all."""
    corner, opposite = (0, 0, 0.25, 0.25), (0.75, 0.75, 1, 1)
    boxes = [[(0, *corner, True), (1, *corner, True), (1, *opposite, False)], [(0, *corner, True)]]
    labels = ((0, 1), (0,))
    table, explanandum = table_of(tolerance=0)
    images = boxed(explanandum, boxes, labels)
    assert table.asks(images).tolist() == [[False, True, False], [False] * 3]
    assert table.left_out(images) == ["", "with difficult objects only"]
    assert hits(table, images, peak(2, 2, 2)) == hits(table, images, peak(30, 30, 2)) == [1]
    every, _ = table_of(tolerance=0, skip_difficult=False)
    assert torch.equal(every.asks(images), images.labels)
    assert every.left_out(images) == ["", ""]


def test_difficult_boxes_decide_what_is_asked_where_masks_are_the_region_too():
    mask = torch.ones(1, SIZE, SIZE, dtype=torch.uint8)
    for difficult, asked in ((True, False), (False, True)):
        table, explanandum = table_of(region="masks")
        images = boxed(explanandum, [[(0, 0, 0, 1, 1, difficult)]], mask=mask)
        assert table.asks(images).any().item() is asked
