"""Which images a process sees, and in which order: a pure function of seed, epoch and rank.

Nothing here keeps random state, so a resumed run, another number of workers or a second look at the same epoch
sees the same order.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


def mix_seed(*parts: int) -> int:
    """Blend whole numbers into one 32-bit seed, so that neighbouring epochs and indices get unrelated streams.

    A plain sum would not do: (seed 1, epoch 2) and (seed 2, epoch 1) would collide.
    """
    # Torch's CPU generator uses 32 bits of its seed; negative parts wrap around, NumPy would refuse them.
    return int(np.random.SeedSequence([part % 2**32 for part in parts]).generate_state(1)[0])


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) for training; all ranks get equally many, the last ones by wrapping around.

    The epoch travels with the index because augmentation is drawn from it, in whichever worker that happens.

    Args:
        length: Number of images in the data set.
        seed: Seed of the run.
        shuffle: Draw a new order each epoch, else keep the data set's own.
        rank: This process.
        world_size: Number of processes.
        batch_size: Images a batch. Where the last batch would hold a single image, that image is left out of this
            epoch: BatchNorm cannot train on one value per channel. Shuffling leaves out another one each time.

    Raises:
        ValueError: If nothing would be left to train on.
    """

    def __init__(
        self, length: int, seed: int, *, shuffle: bool = True, rank: int = 0, world_size: int = 1, batch_size: int = 1
    ) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        per_rank = -(-length // world_size)
        self.per_rank = per_rank - 1 if batch_size > 1 and per_rank % batch_size == 1 else per_rank
        if self.per_rank == 0:
            raise ValueError(
                f"Training needs at least 2 images for each process (BatchNorm cannot train on one), got {length} "
                f"image(s) for {world_size} process(es); add images or use fewer devices."
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Images of this rank in one epoch."""
        return self.per_rank

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """This rank's share of the epoch's order."""
        epoch = self.epoch
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
            order = torch.randperm(self.length, generator=generator).tolist()
        else:
            order = list(range(self.length))
        for position in range(self.per_rank):
            yield epoch, order[(position * self.world_size + self.rank) % self.length]


class ShardSampler(Sampler[int]):
    """Yields every world_size-th index for evaluation: together the ranks see each image exactly once.

    Not padded, since a duplicated image would be counted twice in a metric. Ranks may therefore differ by one image;
    metrics must be reduced at the end of the epoch, not step by step.

    Args:
        length: Number of images in the data set.
        rank: This process.
        world_size: Number of processes.

    Raises:
        ValueError: If this rank would get no image; it would then leave the others waiting.
    """

    def __init__(self, length: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(length)[rank::world_size]
        if not self.indices:
            raise ValueError(
                f"Process {rank} of {world_size} would get none of the {length} image(s); "
                "use fewer devices or more images (see --limit_val, --limit_test)."
            )

    def __len__(self) -> int:
        """Images of this rank."""
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        """This rank's indices, in the data set's order."""
        return iter(self.indices)
