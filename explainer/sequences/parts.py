"""Parts of a sequence of tokens: segments, sliding windows, random masks.

L tokens, P parts, S segmentations; a part is a bool mask [L], True where it keeps a token.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explainer.attribution.pami_parts import Parts, Segments

PUNCTUATION = frozenset(",.;:!?()–—")
CONJUNCTIONS = frozenset(("and", "but", "or", "yet", "so", "because", "although", "though", "while", "if", "that"))


class WeightedParts(NamedTuple):
    """Parts of a sequence.

    Attributes:
        parts: the masks [P,L], whole or made when they are asked for.
        times: how much each counts in the mean over the parts that keep a token, [P].
    """

    parts: Parts
    times: Tensor


def words(tokens: Sequence[Any]) -> list[int]:
    """Each token for itself."""
    return list(range(len(tokens)))


def phrases(tokens: Sequence[str]) -> list[int]:
    """English phrases, as far as their borders show: they start at conjunctions and end with punctuation marks.

    Examples:
        >>> phrases("well made , but much too long".split())
        [0, 0, 0, 1, 1, 1, 1]
    """
    labels: list[int] = []
    for position, token in enumerate(tokens):
        starts = position and (token.lower() in CONJUNCTIONS or tokens[position - 1] in PUNCTUATION)
        labels.append(labels[-1] + bool(starts) if labels else 0)
    return labels


def segment_parts(labels: Tensor) -> WeightedParts:
    """The segments of several segmentations [S,L] (PAMI, strategy II): tokens with the same number >= 0 go together."""
    segments = Segments(labels)
    return WeightedParts(segments, segments.times)


def window_parts(length: int, sizes: Sequence[int]) -> WeightedParts:
    """Windows of neighbouring tokens (PAMI, strategy I), from left to right, size by size.

    They are clipped at both ends, as an image's are at its border, so that each token is in as many windows as a window
    has tokens. The windows of one size share one vote on each token, so that every size counts alike. Those that keep
    the same tokens are one part.
    """
    votes: dict[tuple[int, int], float] = {}
    for size in sizes:
        for first in range(1 - size, length):
            window = max(0, first), min(length, first + size)
            votes[window] = votes.get(window, 0) + 1 / size
    position = torch.arange(length)
    start, stop = torch.tensor(list(votes)).T[:, :, None]
    return WeightedParts((position >= start) & (position < stop), torch.tensor(list(votes.values())))


def random_parts(length: int, count: int, probability: float, seed: int) -> WeightedParts:
    """Masks that keep each token with one probability (RISE), equal ones once, without those that keep nothing.

    Raises:
        ValueError: if no mask keeps some token, of which nothing could be said.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(count, length, generator=generator) < probability
    masks, times = drawn.unique(dim=0, return_counts=True)
    if not masks.any(dim=0).all():
        raise ValueError(
            f"Of {length} tokens some are in none of {count} random masks, each kept with probability {probability}; "
            "raise masks or probability."
        )
    some = masks.any(dim=1)
    return WeightedParts(masks[some], times[some])
