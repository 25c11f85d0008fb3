"""Where a map's mass lies: object, cue, rest.

N maps, H×W pixels.
"""

import math

import pytest
import torch

from explainer.metrics.shortcut import PARTS, ShortcutShares, mass_shares

HEIGHT, WIDTH = 4, 10
OBJECT, CUE = (torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool) for _ in range(2))
OBJECT[:, :2, :5] = True  # 10 of 40 pixels
CUE[:, 3, 8:] = True  # 2


def shares(attribution, object_region=OBJECT, cue_region=CUE):
    found = mass_shares(attribution, object_region.expand_as(attribution), cue_region.expand_as(attribution))
    assert tuple(found) == PARTS
    return [[found[name][n].item() for name in PARTS] for n in range(len(attribution))]


def random_maps(seed=0, maps=5):
    generator = torch.Generator().manual_seed(seed)
    attribution, objects, cues = (torch.rand(maps, HEIGHT, WIDTH, generator=generator) for _ in range(3))
    return attribution, objects < 0.3, cues < 0.2


def test_a_map_that_shows_one_part_alone_has_all_its_mass_there():
    maps = torch.cat([OBJECT, CUE, ~(OBJECT | CUE)]).float()
    assert shares(maps) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_flat_map_shows_the_areas():
    assert shares(torch.full((1, HEIGHT, WIDTH), 0.3))[0] == pytest.approx([10 / 40, 2 / 40, 28 / 40])


def test_mass_is_weighted():
    values = torch.zeros(1, HEIGHT, WIDTH)
    values[0, 0, 0], values[0, 3, 8], values[0, 3, 9], values[0, 2, 2] = 1.0, 0.25, 0.5, 0.25
    assert shares(values)[0] == [0.5, 0.375, 0.125]
    assert shares(1e-3 * values)[0] == pytest.approx([0.5, 0.375, 0.125])


@pytest.mark.parametrize("factor", [1e-38, 3e38])
def test_sums_neither_overflow_nor_vanish(factor):
    assert shares(torch.full((1, HEIGHT, WIDTH), factor))[0] == pytest.approx([10 / 40, 2 / 40, 28 / 40])


def test_where_the_cue_covers_the_object_the_cue_counts():
    everywhere = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    assert shares(torch.ones(1, HEIGHT, WIDTH), everywhere)[0] == pytest.approx([38 / 40, 2 / 40, 0])
    assert shares(torch.ones(1, HEIGHT, WIDTH), everywhere, everywhere)[0] == [0, 1, 0]


def test_an_image_without_a_cue_has_no_mass_on_it():
    nothing = torch.zeros_like(CUE)
    assert shares(torch.ones(1, HEIGHT, WIDTH), OBJECT, nothing)[0] == [0.25, 0, 0.75]


def test_a_map_of_zeros_has_no_shares_and_leaves_its_neighbours_alone():
    found = shares(torch.stack([torch.zeros(HEIGHT, WIDTH), torch.ones(HEIGHT, WIDTH)]))
    assert all(math.isnan(value) for value in found[0])
    assert found[1] == pytest.approx([0.25, 0.05, 0.7])


@pytest.mark.parametrize("value", [-1e-6, math.nan, math.inf])
def test_values_that_have_no_share_are_an_error(value):
    attribution = torch.ones(2, HEIGHT, WIDTH)
    attribution[1, 0, 0] = value
    with pytest.raises(ValueError, match="scale it by to_unit_range"):
        shares(attribution)


def test_shapes_that_would_broadcast_are_an_error():
    with pytest.raises(ValueError, match="don't match"):
        mass_shares(torch.ones(2, HEIGHT, WIDTH), OBJECT, CUE)


def test_a_batch_scores_what_its_maps_score_alone_and_shares_sum_to_one():
    attribution, objects, cues = random_maps()
    together = mass_shares(attribution, objects, cues)
    for n in range(len(attribution)):
        alone = mass_shares(attribution[n : n + 1], objects[n : n + 1], cues[n : n + 1])
        for name in PARTS:
            torch.testing.assert_close(alone[name][0], together[name][n])
    torch.testing.assert_close(sum(together.values()), torch.ones(len(attribution)))


def test_half_precision_maps_are_summed_in_single_precision():
    maps = torch.ones(1, 200, 200, dtype=torch.float16)  # a sum of 40000 ones has no place in float16's 11 bits
    objects = torch.zeros(1, 200, 200, dtype=torch.bool)
    objects[:, 0, 0] = True
    assert mass_shares(maps, objects, torch.zeros_like(objects))["object"].item() == pytest.approx(1 / 40000)


def test_the_metric_is_the_mean_over_maps_that_are_not_empty():
    metric = ShortcutShares()
    maps = torch.cat([OBJECT.float(), CUE.float(), torch.zeros(1, HEIGHT, WIDTH)])
    metric.update(maps, OBJECT.expand_as(maps), CUE.expand_as(maps))
    assert metric.compute() == {"object": 0.5, "cue": 0.5, "rest": 0.0, "maps": 2, "empty": 1}


def test_states_of_several_processes_add_up():
    attribution, objects, cues = random_maps(1, maps=9)
    attribution[4] = 0
    whole, first, second = ShortcutShares(), ShortcutShares(), ShortcutShares()
    whole.update(attribution, objects, cues)
    first.update(attribution[:3], objects[:3], cues[:3])
    second.update(attribution[3:], objects[3:], cues[3:])
    first.merge_state(second)
    assert first.compute() == pytest.approx(whole.compute())
    assert whole.compute()["empty"] == 1
