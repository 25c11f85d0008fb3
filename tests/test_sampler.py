"""Every process knows its share of the images, and the order depends on nothing but seed and epoch."""

import pytest

from datamodules.sampler import EpochSampler, ShardSampler, mix_seed


@pytest.mark.parametrize(("length", "world_size"), [(10, 1), (10, 3), (3, 3), (7, 4)])
def test_shards_together_hold_every_image_exactly_once(length, world_size):
    shards = [list(ShardSampler(length, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(sum(shards, [])) == list(range(length))
    assert [len(ShardSampler(length, rank=rank, world_size=world_size)) for rank in range(world_size)] == [
        len(shard) for shard in shards
    ]


def test_a_process_without_images_is_an_error_that_names_a_remedy():
    with pytest.raises(ValueError, match="Process 2 of 3 would get none of the 2.*fewer devices"):
        ShardSampler(2, rank=2, world_size=3)


@pytest.mark.parametrize(("length", "world_size"), [(10, 1), (10, 3), (2, 5)])
def test_in_training_all_ranks_get_equally_many_and_miss_no_image(length, world_size):
    ranks = [list(EpochSampler(length, 0, rank=rank, world_size=world_size)) for rank in range(world_size)]
    share = -(-length // world_size)
    assert [len(rank) for rank in ranks] == [share] * world_size
    seen = sorted(index for rank in ranks for _, index in rank)
    assert set(seen) == set(range(length))
    assert len(seen) - len(set(seen)) == share * world_size - length  # no more repeated than needed


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        assert {number for number, _ in sampler} == {epoch}
        return [index for _, index in sampler]

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (1, 2)}) == 4


def test_without_shuffling_the_order_is_the_data_sets():
    assert [index for _, index in EpochSampler(4, 0, shuffle=False)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("length", "world_size", "batch_size", "expected"),
    [(9, 1, 4, 8), (10, 1, 4, 10), (8, 1, 4, 8), (9, 2, 4, 4), (3, 1, 1, 3)],
)
def test_no_training_batch_holds_a_lone_image(length, world_size, batch_size, expected):
    sampler = EpochSampler(length, 0, world_size=world_size, batch_size=batch_size)
    assert len(list(sampler)) == len(sampler) == expected


def test_the_left_out_image_changes_from_epoch_to_epoch():
    sampler = EpochSampler(5, 0, batch_size=2)
    left_out = set()
    for epoch in range(8):
        sampler.set_epoch(epoch)
        left_out |= set(range(5)) - {index for _, index in sampler}
    assert len(left_out) > 1


def test_training_on_one_image_is_refused():
    with pytest.raises(ValueError, match="at least 2 images"):
        EpochSampler(1, 0, batch_size=4)


def test_mixed_seeds_do_not_collide_where_a_sum_would():
    assert len({mix_seed(a, b, c) for a in range(8) for b in range(8) for c in range(8)}) == 512
    assert mix_seed(-1, 0) == mix_seed(2**32 - 1, 0)
