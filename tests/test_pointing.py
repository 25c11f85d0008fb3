"""The pointing game: hits, ties, tolerance and hit rates.

N maps, K boxes, C classes, H×W pixels.
"""

import math

import pytest
import torch

from explainer.metrics import pointing
from explainer.metrics.pointing import PointingGame, boxes_to_region, pointing_hit

FAR = 15
"""TorchRay's tolerance."""


def peak(row, column, height=40, width=50):
    """A map [1,H,W] with its maximum at one pixel, negative elsewhere, as a raw map may be."""
    values = torch.full((1, height, width), -1.0)
    values[0, row, column] = -0.5
    return values


def region(*pixels, height=40, width=50):
    inside = torch.zeros(1, height, width, dtype=torch.bool)
    for row, column in pixels:
        inside[0, row, column] = True
    return inside


def by_hand(attribution, inside, tolerance):
    """Distances between every maximum and every pixel of the region, one by one."""
    peaks = (attribution == attribution.max()).nonzero().tolist()
    pixels = inside.nonzero().tolist()
    if not pixels:
        return math.nan
    hits = 0
    for row, column in peaks:
        squared = min((row - y) ** 2 + (column - x) ** 2 for y, x in pixels)
        hits += squared == 0 or squared < tolerance**2
    return hits / len(peaks)


def random_case(seed, maps=6, height=13, width=22, levels=4):
    """Coarse maps, so that maxima are tied, and regions of a few pixels, one of them empty."""
    generator = torch.Generator().manual_seed(seed)
    attribution = torch.randint(levels, (maps, height, width), generator=generator).float()
    inside = torch.rand(maps, height, width, generator=generator) < 0.01
    inside[0] = False
    return attribution, inside


def test_a_map_that_is_the_region_hits_and_its_opposite_misses():
    inside = region((3, 4), (3, 5), (30, 41))
    assert pointing_hit(inside.float(), inside).tolist() == [1.0]
    assert pointing_hit(-inside.float(), inside).tolist() == [0.0]


@pytest.mark.parametrize("few", [0, 95, 10**6])
@pytest.mark.parametrize("tolerance", [0, 1, 2, 3, 5, FAR])
@pytest.mark.parametrize("seed", range(4))
def test_hits_equal_distances_measured_one_by_one(seed, tolerance, few, monkeypatch):
    """Whether maxima look around themselves, or the region is widened, or (95) some maps do this and others that."""
    monkeypatch.setattr(pointing, "FEW", few)
    attribution, inside = random_case(seed, levels=3 if seed else 400)
    expected = [by_hand(single, part, tolerance) for single, part in zip(attribution, inside, strict=True)]
    torch.testing.assert_close(
        pointing_hit(attribution, inside, tolerance), torch.tensor(expected), rtol=0, atol=1e-6, equal_nan=True
    )


@pytest.mark.parametrize(
    ("down", "across", "hit"),
    [(0, 15, 0.0), (15, 0, 0.0), (0, 14, 1.0), (14, 0, 1.0), (9, 12, 0.0), (12, 9, 0.0), (10, 11, 1.0), (11, 11, 0.0)],
)
def test_exactly_15_pixels_away_is_too_far(down, across, hit):
    """9-12-15 is a right triangle; 10² + 11² = 221 < 225 < 242 = 11² + 11²."""
    for row, column in [(20 + down, 25 + across), (20 - down, 25 - across), (20 + down, 25 - across)]:
        assert pointing_hit(peak(row, column), region((20, 25)), FAR).item() == hit


def test_the_tolerance_ends_at_the_border_and_does_not_go_around_it():
    assert pointing_hit(peak(0, 49), region((1, 0)), FAR).item() == 0
    assert pointing_hit(peak(39, 3), region((0, 3)), FAR).item() == 0
    assert pointing_hit(peak(0, 0), region((0, 14)), FAR).item() == 1
    assert pointing_hit(peak(39, 49), region((25, 49)), FAR).item() == 1


def test_a_tolerance_may_exceed_the_image():
    assert pointing_hit(peak(0, 0, 4, 3), region((3, 2), height=4, width=3), FAR).item() == 1


@pytest.mark.parametrize("tolerance", [0, 1])
def test_without_tolerance_a_neighbour_is_a_miss(tolerance):
    assert pointing_hit(peak(20, 25), region((20, 26)), tolerance).item() == 0
    assert pointing_hit(peak(20, 25), region((20, 25)), tolerance).item() == 1
    assert pointing_hit(peak(20, 25), region((20, 26)), 2).item() == 1


def test_tied_maxima_count_by_share_and_not_by_order():
    values = torch.zeros(1, 4, 6)
    values[0, 0, 0] = values[0, 3, 5] = values[0, 2, 1] = values[0, 1, 1] = 2
    first, last = region((0, 0), height=4, width=6), region((3, 5), height=4, width=6)
    assert pointing_hit(values, first).item() == pointing_hit(values, last).item() == 0.25
    assert pointing_hit(values, first | last).item() == 0.5
    assert pointing_hit(values, first, 3).item() == 0.75  # (1, 1) and (2, 1) are √2 and √5 away


def test_autocast_to_16_bits_changes_no_hit():
    """A bfloat16 can't count beyond 256, and a flat map's hits are counted by the thousand."""
    whole = torch.ones(1, 40, 50, dtype=torch.bool)
    whole[0, 0, 0] = False
    for attribution in (torch.zeros(1, 40, 50), peak(0, 0)):
        for tolerance in (0, FAR):
            with torch.autocast("cpu", torch.bfloat16):
                cast = pointing_hit(attribution, whole, tolerance)
            assert cast.dtype == torch.float32 and torch.equal(cast, pointing_hit(attribution, whole, tolerance))
    assert pointing_hit(torch.zeros(1, 40, 50), whole).item() == pytest.approx(1999 / 2000, abs=1e-7)


def test_a_map_of_few_maxima_needs_no_wider_region(monkeypatch):
    """Widening takes many times as long, and all but flat maps would pay for it."""
    monkeypatch.setattr(pointing, "_widened", lambda *_: pytest.fail("widened"))
    assert pointing_hit(peak(20, 25), region((20, 30)), FAR).item() == 1


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_a_flat_map_scores_what_a_blind_guess_would(value):
    inside = torch.zeros(1, 5, 8, dtype=torch.bool)
    inside[0, :2, :3] = True
    assert pointing_hit(torch.full((1, 5, 8), value), inside).item() == pytest.approx(6 / 40)
    assert pointing_hit(torch.full((1, 5, 8), value), inside, 2).item() == pytest.approx(12 / 40)  # and its rim


def test_scaling_a_map_changes_nothing():
    attribution, inside = random_case(7)
    torch.testing.assert_close(
        pointing_hit(3 * attribution - 5, inside, 3), pointing_hit(attribution, inside, 3), equal_nan=True
    )


def test_an_empty_region_cannot_be_scored():
    hits = pointing_hit(torch.cat([peak(1, 1), peak(1, 1)]), torch.cat([region(), region((1, 1))]), FAR)
    assert hits[0].isnan()
    assert hits[1] == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_map_that_is_not_finite_is_an_error(value):
    attribution = torch.cat([peak(1, 1)] * 3)
    attribution[1, 2, 2] = value
    with pytest.raises(ValueError, match="1 of 3 maps hold NaN or infinity"):
        pointing_hit(attribution, torch.cat([region((1, 1))] * 3))


def test_shapes_that_would_broadcast_and_negative_tolerances_are_errors():
    with pytest.raises(ValueError, match="don't match"):
        pointing_hit(torch.cat([peak(1, 1)] * 2), region((1, 1)))
    with pytest.raises(ValueError, match="give 0 or more"):
        pointing_hit(peak(1, 1), region((1, 1)), -1)


def test_a_batch_scores_what_its_maps_score_alone():
    attribution, inside = random_case(3)
    alone = [pointing_hit(attribution[n : n + 1], inside[n : n + 1], 4) for n in range(len(attribution))]
    torch.testing.assert_close(pointing_hit(attribution, inside, 4), torch.cat(alone), equal_nan=True)
    assert pointing_hit(attribution[:0], inside[:0], 4).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_map_and_a_region_of_zeros_and_ones_will_do(dtype):
    assert pointing_hit(peak(20, 25).to(dtype), region((20, 30)).to(torch.uint8), 6).item() == 1


def test_a_box_holds_the_pixels_whose_centres_lie_in_it():
    box = boxes_to_region(torch.tensor([[1.0, 2.0, 4.0, 3.0]]), 5, 6)
    assert box.nonzero().tolist() == [[2, 1], [2, 2], [2, 3]]
    shifted = boxes_to_region(torch.tensor([[0.6, 1.5, 3.5, 2.4]]), 5, 6)
    assert shifted.nonzero().tolist() == [[1, 1], [1, 2]]
    halves = [[0.0, 0.5, 2.0, 1.5], [0.0, 1.5, 2.0, 2.5]]  # a centre on a shared edge belongs to the lower box alone
    assert [boxes_to_region(torch.tensor([box]), 4, 2)[:, 0].tolist().index(True) for box in halves] == [0, 1]
    assert sum(int(boxes_to_region(torch.tensor([box]), 4, 2).sum()) for box in halves) == 4


def test_boxes_are_united_and_clipped_by_the_image():
    boxes = torch.tensor([[-3, -3, 1, 1], [2, 1, 99, 99]])
    assert boxes_to_region(boxes, 2, 4).int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 1]]
    assert not boxes_to_region(torch.zeros(0, 4), 3, 4).any()
    assert boxes_to_region(torch.zeros(0, 4), 3, 4).shape == (3, 4)


def test_the_mean_is_over_classes_that_occur_and_overall_is_over_maps():
    game = PointingGame(4)
    hit, miss = peak(1, 1), peak(5, 5)
    inside, nothing = region((1, 1)), region()
    game.update(torch.cat([hit, miss, hit]), torch.cat([inside] * 3), torch.tensor([0, 0, 3]))
    game.update(torch.cat([hit, hit, hit]), torch.cat([inside, nothing, nothing]), torch.tensor([0, 1, 3]))
    scores = game.compute()
    torch.testing.assert_close(
        scores["per_class"], torch.tensor([2 / 3, math.nan, math.nan, 1.0]).double(), equal_nan=True, rtol=0, atol=1e-7
    )
    assert scores["mean"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["overall"] == 0.75
    assert scores["maps"] == 4


def test_a_game_without_a_scored_map_has_no_score():
    game = PointingGame(2)
    game.update(peak(1, 1), region(), torch.tensor([1]))
    scores = game.compute()
    assert math.isnan(scores["mean"])
    assert math.isnan(scores["overall"])
    assert scores["maps"] == 0


def test_the_game_takes_its_tolerance():
    for tolerance, expected in [(0, 0.0), (FAR, 1.0)]:
        game = PointingGame(1, tolerance)
        game.update(peak(1, 1), region((1, 11)), torch.tensor([0]))
        assert game.compute()["mean"] == expected


def test_states_of_several_processes_add_up():
    attribution, inside = random_case(11, maps=12)
    target = torch.arange(12) % 5
    whole, parts = PointingGame(6, 3), [PointingGame(6, 3), PointingGame(6, 3)]
    whole.update(attribution, inside, target)
    for part, chosen in zip(parts, (slice(0, 5), slice(5, 12)), strict=True):
        part.update(attribution[chosen], inside[chosen], target[chosen])
    parts[0].merge_state(parts[1])
    merged, expected = parts[0].compute(), whole.compute()
    torch.testing.assert_close(merged.pop("per_class"), expected.pop("per_class"), equal_nan=True)
    assert merged == pytest.approx(expected)
    whole.reset()
    assert whole.maps.sum() == whole.hits.sum() == 0
