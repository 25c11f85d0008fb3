"""Table 2: the sanity rows are known in closed form, masks merge by their maximum, and what has no mask is left out.

B images, C classes, H×W pixels.
"""

import math

import pytest
import torch
from toy_models import SIZE, SmallNet, WindowNet, freeze
from toy_tables import cells, have_equal_columns, make_images, noise, numbers, own_scores, scores_of, together

from datamodules.batch import VOID
from explainer.evaluation.tables import SegmentationOptions, SegmentationTable, SplitFacts
from explainer.masking import apply_mask
from explainer.metrics.segmentation import SegmentationAgreement

OWN = ("zero", "half", "one", "ground_truth")


def truth(void_rows=0):
    """Masks [2,H,W]: a cat on the left quarter; a cat and a hen, a quarter each. The last rows may be void."""
    mask = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    mask[:, :, : SIZE // 4] = 1
    mask[1, :, -SIZE // 4 :] = 3
    if void_rows:
        mask[:, -void_rows:] = VOID
    return mask


def scenes(explanandum, mask=None, labels=((0,), (0, 2)), **changes):
    return make_images(
        explanandum, noise(2, 3, SIZE, SIZE), list(map(list, labels)), mask=truth() if mask is None else mask, **changes
    )


def make_table(net=None, **options):
    explanandum = freeze(net or SmallNet())
    return SegmentationTable(explanandum, SegmentationOptions(**options)), explanandum


def main_row(table, scores):
    return table.summarise([scores])["segmentation"][0]


@pytest.mark.parametrize("void", ["ignore", "foreground"])
@pytest.mark.parametrize("void_rows", [0, 3])
def test_the_ground_truth_is_perfect_whatever_becomes_of_void_pixels(void, void_rows):
    table, explanandum = make_table(void=void)
    row = main_row(table, own_scores(table, scenes(explanandum, truth(void_rows)), "ground_truth"))
    assert cells(row, "acc", "iou", "mae") == [100, 100, 0]


@pytest.mark.parametrize("void_rows, void, shares", [
    (0, "ignore", (0.25, 0.5)),
    (8, "ignore", (0.25, 0.5)),
    (8, "foreground", (0.25 * 0.75 + 0.25, 0.5 * 0.75 + 0.25)),
])  # fmt: skip
def test_constant_masks_score_what_the_share_of_object_pixels_says(void_rows, void, shares):
    table, explanandum = make_table(void=void)
    images = scenes(explanandum, truth(void_rows))
    zero, half, one = (main_row(table, own_scores(table, images, name)) for name in OWN[:3])
    mean = 100 * sum(shares) / 2
    assert cells(zero, "acc", "iou", "mae") == pytest.approx([100 - mean, 0, mean])
    # min(.5, truth) over max(.5, truth)
    iou_of_half = 100 * sum(0.5 * share / (0.5 + 0.5 * share) for share in shares) / 2
    assert cells(half, "acc", "iou", "mae") == pytest.approx([50, iou_of_half, 50])
    assert cells(one, "acc", "iou", "mae") == pytest.approx([mean, mean, 100 - mean])


def test_the_saliency_score_of_a_mask_of_ones_is_that_of_the_plain_image():
    table, explanandum = make_table()
    images = scenes(explanandum)
    probability = images.logits.softmax(dim=1)
    expected = -(probability[0, 0].log() + (probability[1, 0] + probability[1, 2]).log()) / 2
    assert main_row(table, own_scores(table, images, "one"))["sal"] == pytest.approx(expected.item(), abs=1e-5)
    # Of an empty mask the area counts as 5 %, and the classifier sees nothing but the mean colour.
    empty = explanandum(torch.zeros(1, 3, SIZE, SIZE)).softmax(dim=1)[0]
    expected = math.log(0.05) - (empty[0].log() + (empty[0] + empty[2]).log()) / 2
    assert main_row(table, own_scores(table, images, "zero"))["sal"] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("void", ["ignore", "foreground"])
def test_the_ground_truths_own_mask_shows_void_pixels_only_where_they_count_as_object(void):
    table, explanandum = make_table(void=void)
    images = scenes(explanandum, truth(void_rows=8))
    shown = (images.batch.mask > 0) & ((images.batch.mask != VOID) | (void == "foreground"))
    seen = explanandum(apply_mask(images.image, shown)).log_softmax(dim=1)
    area = shown.float().mean(dim=(1, 2)).log()
    expected = (area[0] - seen[0, 0] + area[1] - seen[1, [0, 2]].logsumexp(dim=0)) / 2
    found = main_row(table, own_scores(table, images, "ground_truth"))["sal"]
    assert found == pytest.approx(expected.item(), abs=1e-5)


def test_a_random_mask_scores_as_expected():
    """Uniform noise u: E|u - g| = 1/2; E min = f/2 and E max = f + (1 - f)/2 for a share f of object pixels."""
    table, explanandum = make_table()
    maps = noise(2, 3, SIZE, SIZE, seed=1)
    row = main_row(table, scores_of(table, scenes(explanandum, labels=((0,), (0,))), maps, unit_range=True))
    assert row["acc"] == pytest.approx(50, abs=2)
    assert row["mae"] == pytest.approx(100 - row["acc"])
    iou = 100 * sum(share / (1 + share) for share in (0.25, 0.5)) / 2
    assert row["iou"] == pytest.approx(iou, abs=2)


@pytest.mark.parametrize("unit_range", [True, False])
def test_an_images_mask_is_the_maximum_of_its_class_maps_each_scaled_by_itself(unit_range):
    table, explanandum = make_table()
    images = scenes(explanandum)
    maps = noise(2, 3, SIZE, SIZE, seed=2)
    if not unit_range:
        maps = maps * torch.tensor([5.0, 1, 100])[:, None, None] - 7
    rows = scores_of(table, images, maps, unit_range=unit_range).rows
    for index, classes in enumerate(([0], [0, 2])):
        scaled = [maps[index, target] for target in classes]
        if not unit_range:
            scaled = [(one - one.min()) / (one.max() - one.min()) for one in scaled]
        merged = torch.stack(scaled).amax(dim=0)
        expected = SegmentationAgreement()
        logits = explanandum(apply_mask(images.image[index : index + 1], merged[None]))
        objects = (images.batch.mask[index] > 0)[None]
        labels = images.labels[index : index + 1]
        expected.update(merged[None], objects, torch.ones_like(objects), logits.log_softmax(dim=1), labels)
        found = main_row(table, scores_of(table, images.subset([index]), maps[[index]], unit_range=unit_range))
        means = expected.compute()
        for name in ("acc", "iou", "sal", "mae"):
            assert found[name] == pytest.approx(means[name], rel=1e-5), name
        shares = {name: found[name] / 100 for name in ("acc", "iou", "mae")}
        assert numbers(rows[f"image{index}"][0]) == pytest.approx({**shares, "sal": found["sal"]})


def test_a_classs_own_row_compares_its_own_mask_with_its_own_pixels():
    table, explanandum = make_table()
    own = torch.stack([truth() == target + 1 for target in range(3)], dim=1).float()
    own[:, 2] = 1 - own[:, 2]  # the hen's mask is just wrong
    scores = scores_of(table, scenes(explanandum), own, unit_range=True)
    assert [row["class"] for row in scores.rows["image1"]] == [None, "cat", "hen"]
    per_class = {row["class"]: row for row in table.summarise([scores])["segmentation_per_class"]}
    assert cells(per_class["cat"], "acc", "iou", "mae", "images") == [100, 100, 0, 2]
    assert cells(per_class["hen"], "acc", "iou", "mae", "images") == [0, 0, 100, 1]


def test_a_classs_saliency_score_asks_for_this_class_alone():
    table, explanandum = make_table(WindowNet())
    scores = scores_of(table, scenes(explanandum), torch.ones(2, 3, SIZE, SIZE), unit_range=True)
    images = scenes(explanandum)
    by_class = {row["class"]: row["sal"] for row in scores.rows["image1"]}
    log = images.logits.log_softmax(dim=1)[1]
    assert by_class["cat"] == pytest.approx(-log[0].item(), abs=1e-5)
    assert by_class["hen"] == pytest.approx(-log[2].item(), abs=1e-5)
    assert by_class[None] == pytest.approx(-log[[0, 2]].logsumexp(dim=0).item(), abs=1e-5)


def test_a_class_of_which_no_pixel_is_visible_has_no_row_of_its_own():
    table, explanandum = make_table()
    scores = scores_of(table, scenes(explanandum, labels=((0, 1), (0, 2))), noise(2, 3, SIZE, SIZE))
    assert [row["class"] for row in scores.rows["image0"]] == [None, "cat"]


def test_images_without_a_class_or_a_mask_are_left_out_with_the_reason():
    table, explanandum = make_table()
    mask = truth().repeat(2, 1, 1)
    mask[2:] = VOID
    images = make_images(explanandum, noise(4, 3, SIZE, SIZE), [[0], [], [0], []], mask=mask)
    assert table.left_out(images) == ["", "without a class", "without a mask", "without a class"]
    assert list(scores_of(table, images, noise(4, 3, SIZE, SIZE)).rows) == ["image0"]
    assert list(own_scores(table, images, "one").rows) == ["image0"]
    without = make_images(explanandum, noise(1, 3, SIZE, SIZE), [[0]])
    assert table.left_out(without) == ["without a mask"]
    assert "no image of the split has a segmentation mask" in table.unsuited(SplitFacts(False, True, False))
    assert table.unsuited(SplitFacts(True, False, False)) == ""


@pytest.mark.parametrize("constant", [0.0, -3.0, 0.7])
def test_a_flat_map_is_an_empty_mask(constant):
    table, explanandum = make_table()
    images = scenes(explanandum)
    flat = scores_of(table, images, torch.full((2, 3, SIZE, SIZE), constant))
    empty = main_row(table, own_scores(table, images, "zero"))
    assert numbers(main_row(table, flat)) == pytest.approx(numbers(empty))


def test_a_maps_sign_and_size_make_no_difference_but_its_order_does():
    table, explanandum = make_table()
    maps, images = noise(2, 3, SIZE, SIZE), scenes(explanandum)
    shifted = main_row(table, scores_of(table, images, 1e3 * maps - 2e3))
    assert numbers(shifted) == pytest.approx(numbers(main_row(table, scores_of(table, images, maps))), rel=1e-3)
    assert main_row(table, scores_of(table, images, -maps))["iou"] != pytest.approx(shifted["iou"], rel=1e-3)


def test_many_classes_an_image_are_scored_in_several_passes_with_the_same_result(monkeypatch):
    seen = []

    class Watched(SmallNet):
        def forward(self, image):
            seen.append(len(image))
            return super().forward(image)

    table, explanandum = make_table(Watched())
    images, maps = scenes(explanandum), noise(2, 3, SIZE, SIZE)
    whole = scores_of(table, images, maps)
    monkeypatch.setattr("explainer.evaluation.tables.segmentation.resolved_chunk_size", lambda *_: 2)
    seen.clear()
    parts = scores_of(table, images, maps)
    assert seen == [2, 2, 1]
    for one, other in zip(whole.flat, parts.flat, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-5)


def test_rows_of_methods_and_of_constant_masks_fit_into_one_file():
    table, explanandum = make_table()
    images = scenes(explanandum)
    own = [own_scores(table, images, name) for name in table.own_rows]
    assert have_equal_columns(scores_of(table, images, noise(2, 3, SIZE, SIZE)), *own)
    assert table.own_rows == OWN


def test_the_mean_is_over_images_of_all_batches():
    table, explanandum = make_table()
    images, maps = scenes(explanandum), noise(2, 3, SIZE, SIZE)
    whole = scores_of(table, images, maps)
    parts = together(*(scores_of(table, images.subset([index]), maps[[index]]) for index in range(2)))
    assert numbers(main_row(table, parts)) == pytest.approx(numbers(main_row(table, whole)), rel=1e-5)
    by_hand = sum(rows[0]["iou"] for rows in whole.rows.values()) / 2
    assert main_row(table, whole)["iou"] == pytest.approx(100 * by_hand)
