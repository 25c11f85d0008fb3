"""PAMI and RISE for sequences of tokens: the mean score of the masks that keep a token.

L tokens, N sequences that are scored at once, C scores of a sequence, P parts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor

from explainer.attribution.checks import number, whole
from explainer.attribution.pami_parts import average_over_parts, contributions
from explainer.sequences.parts import WeightedParts, random_parts, segment_parts, window_parts, words

Token = Any
"""A word, a piece of one, a number in a vocabulary: whatever the score function takes."""

Score = Callable[[list[list[Token]]], Any]
"""N sequences -> scores [N] or, e.g. the probabilities of classes, [N,C]: a tensor, an array or a list."""

Segmentation = Callable[[Sequence[Token]], Sequence[int]]
"""Tokens -> the number of the segment, at least 0, to which each belongs."""


class TokenMethod(ABC):
    """What each token of a sequence contributes to a score: the mean score of the parts that keep it.

    Only the values of the score are used. Whatever has to be so for it to be repeatable, e.g. a network's eval mode, is
    its own business; gradients are off.

    Args:
        score: any function of a list of sequences; under deletion their lengths differ, none is empty.
        mask_token: stands where a token is absent; None deletes absent tokens.
        chunk_size: sequences of one call of the score function at most; the contributions don't depend on it.
    """

    paper: ClassVar[str]

    def __init__(self, score: Score, mask_token: Token = None, chunk_size: int = 64) -> None:
        whole("chunk_size", chunk_size)
        self.score = score
        self.mask_token = mask_token
        self.chunk_size = chunk_size

    def __call__(self, tokens: Sequence[Token]) -> Tensor:
        """Contributions, float32 [L] for scores [N]; [C,L] for scores [N,C], all from the same calls.

        They have the score's unit: of a probability they are probabilities, in [0, 1].

        Raises:
            ValueError: for a text that is not split into tokens or has none, and for scores of another shape.
        """
        if isinstance(tokens, str) or len(tokens) == 0:
            raise ValueError(f"The tokens are {tokens!r}; give a list of at least one, e.g. text.split().")
        parts, times = self._parts(tokens)

        def keep_only(members: Tensor) -> list[list[Token]]:
            return [self._kept(tokens, member) for member in members.tolist()]

        found = contributions(parts, keep_only, self._scores, self.chunk_size)
        means = average_over_parts(parts, found.reshape(len(found), -1), self.chunk_size, times)
        return means if found.ndim == 2 else means[0]

    def _kept(self, tokens: Sequence[Token], member: list[bool]) -> list[Token]:
        pairs = zip(tokens, member, strict=True)
        if self.mask_token is None:
            return [token for token, kept in pairs if kept]
        return [token if kept else self.mask_token for token, kept in pairs]

    def _scores(self, sequences: list[list[Token]]) -> Tensor:
        scores = torch.as_tensor(self.score(sequences)).float().cpu()
        if scores.ndim not in (1, 2) or len(scores) != len(sequences):
            raise ValueError(
                f"The score function gave numbers of shape {list(scores.shape)} for {len(sequences)} sequences; it "
                f"must give [{len(sequences)}], or [{len(sequences)},C] for C classes."
            )
        return scores

    @abstractmethod
    def _parts(self, tokens: Sequence[Token]) -> WeightedParts:
        """The masks under which the score is asked."""


class TokenPAMIWindow(TokenMethod):
    """PAMI, strategy I, for tokens: sliding windows, the mean over several sizes.

    A window of several words sees what is said by none of them alone, such as "not good".

    Args:
        score: any function of a list of sequences.
        sizes: of the windows, in tokens. The paper gives none for text.
        mask_token: stands where a token is absent; None deletes absent tokens.
        chunk_size: sequences of one call of the score function at most.
    """

    paper = "Shi, Zhang and Wang: PAMI, Sec. 3.2.1 and 4.6"

    def __init__(
        self, score: Score, sizes: Sequence[int] = (1, 2, 3), mask_token: Token = None, chunk_size: int = 64
    ) -> None:
        super().__init__(score, mask_token, chunk_size)
        if isinstance(sizes, int) or not sizes:
            raise ValueError(f"sizes is {sizes!r}; give a list of at least one, e.g. sizes=(1, 2, 3).")
        for size in sizes:
            whole("sizes", size)
        self.sizes = tuple(sizes)

    def _parts(self, tokens: Sequence[Token]) -> WeightedParts:
        return window_parts(len(tokens), self.sizes)


class TokenPAMI(TokenMethod):
    """PAMI, strategy II, for tokens: segments such as words or phrases, the mean over several segmentations.

    Args:
        score: any function of a list of sequences.
        segmentations: each gives a segment to every token; `words`, `phrases`, or any other function.
        mask_token: stands where a token is absent; None deletes absent tokens.
        chunk_size: sequences of one call of the score function at most.
    """

    paper = "Shi, Zhang and Wang: PAMI, Sec. 3.2.2 and 4.6"

    def __init__(
        self,
        score: Score,
        segmentations: Sequence[Segmentation] = (words,),
        mask_token: Token = None,
        chunk_size: int = 64,
    ) -> None:
        super().__init__(score, mask_token, chunk_size)
        if callable(segmentations) or not segmentations:
            raise ValueError(
                f"segmentations is {segmentations!r}; give a list of at least one, e.g. segmentations=(words, phrases)."
            )
        self.segmentations = tuple(segmentations)

    def _parts(self, tokens: Sequence[Token]) -> WeightedParts:
        return segment_parts(torch.stack([_labels(segment, tokens) for segment in self.segmentations]))


def _labels(segment: Segmentation, tokens: Sequence[Token]) -> Tensor:
    """The segment of each token, counted from 0: a table is made of so many rows as the largest number says."""
    given = segment(tokens)
    labels = given.tolist() if isinstance(given, Tensor) else list(given)
    if len(labels) != len(tokens) or not all(isinstance(label, Integral) and label >= 0 for label in labels):
        raise ValueError(
            f"A segmentation gave {labels} for {len(tokens)} tokens; it must give each a whole number, at least 0."
        )
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    return torch.tensor([numbers[label] for label in labels])


class TokenRISE(TokenMethod):
    """RISE for tokens: the expected score of a random mask, given that it keeps the token (RISE, Eq. 1).

    For images RISE divides by the number of masks that are expected to keep a pixel; tokens are kept or not, never by
    half, so the masks that do keep one are counted, and chance in their number moves no contribution. Masks that are
    drawn twice are asked about once: a short text costs at most 2^L - 1 sequences.

    Args:
        score: any function of a list of sequences.
        masks: their number. The paper gives none for text.
        probability: that a token is kept; .5 in RISE, Sec. 4.1.
        seed: of the masks.
        mask_token: stands where a token is absent; None deletes absent tokens.
        chunk_size: sequences of one call of the score function at most.
    """

    paper = "Petsiuk et al., BMVC 2018"

    def __init__(
        self,
        score: Score,
        masks: int = 1000,
        probability: float = 0.5,
        seed: int = 0,
        mask_token: Token = None,
        chunk_size: int = 64,
    ) -> None:
        super().__init__(score, mask_token, chunk_size)
        whole("masks", masks)
        number("probability", probability, most=1)
        whole("seed", seed, least=0)
        self.masks = masks
        self.probability = probability
        self.seed = seed

    def _parts(self, tokens: Sequence[Token]) -> WeightedParts:
        return random_parts(len(tokens), self.masks, self.probability, self.seed)
