"""PAMI's core, free of images: parts of an input, each asked about on its own; and two ways to part an input.

An input has elements: pixels, tokens … P parts, n of one chunk, T numbers that the score function gives a part (one a
target), H×W pixels, L tokens, S segmentations.
"""

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from explainer.attribution.perturb import weighted_sum

Inputs = TypeVar("Inputs")
Shape = Literal["circle", "rectangle"]


class Parts(Protocol):
    """Parts of an input, made when they are asked for; a boolean tensor [P,...] is one too."""

    def __len__(self) -> int:
        """P."""
        ...

    def __getitem__(self, chunk: slice, /) -> Tensor:
        """The parts of a chunk: which elements belong to each, bool [n,...]."""
        ...


@torch.no_grad()
def contributions(
    parts: Parts, keep_only: Callable[[Tensor], Inputs], score: Callable[[Inputs], Tensor], chunk_size: int
) -> Tensor:
    """What the score function says to each part alone (PAMI, Sec. 3.2): [P] or [P,T].

    Args:
        parts: of the input.
        keep_only: parts [n,...] -> n inputs, of which all but the part is masked, in whatever form `score` takes them.
        score: inputs -> [n] or [n,T]; any callable, only its values are used.
        chunk_size: inputs that exist at the same time.
    """
    return torch.cat([score(keep_only(parts[chunk])) for chunk in _chunks(parts, chunk_size)])


def average_over_parts(parts: Parts, contribution: Tensor, chunk_size: int, times: Tensor | None = None) -> Tensor:
    """Each element's mean contribution over the parts that cover it (PAMI, Sec. 3.2.1); 0 where none does.

    Args:
        parts: of the input.
        contribution: of the parts, [P,T].
        chunk_size: parts that exist at the same time.
        times: how often each part counts, [P]; None for once.

    Returns:
        Maps [T,...].
    """
    weight = torch.ones_like(contribution[:, 0]) if times is None else times.to(contribution)
    total = count = torch.zeros((), device=contribution.device)
    for chunk in _chunks(parts, chunk_size):
        member = parts[chunk]
        total = total + weighted_sum((contribution[chunk] * weight[chunk, None]).T, member)
        count = count + weighted_sum(weight[None, chunk], member)
    return total / count.clamp(min=1)


def _chunks(parts: Parts, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(parts), size)]


class Windows:
    """Circles or rectangles around the points of a grid (PAMI, strategy I), clipped at the image's border.

    Args:
        height: H.
        width: W.
        radius: a circle's radius, a rectangle's half height, in pixels.
        step: pixels from one grid point to the next, down and across; the grid is centred.
        shape: of the windows.
        aspect: width over height of a window; other than 1 makes circles ellipses.
        device: of the masks.
    """

    def __init__(
        self,
        height: int,
        width: int,
        radius: float,
        step: int,
        shape: Shape = "circle",
        aspect: float = 1.0,
        device: torch.device | None = None,
    ) -> None:
        self.radius = radius
        self.shape = shape
        self.aspect = aspect
        self.rows = torch.arange(height, device=device)
        self.columns = torch.arange(width, device=device)
        starts = ((size - 1) % step // 2 for size in (height, width))
        centres = (
            torch.arange(start, size, step, device=device).float()
            for start, size in zip(starts, (height, width), strict=True)
        )
        self.y, self.x = torch.cartesian_prod(*centres).T

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, chunk: slice, /) -> Tensor:
        """Windows, bool [n,H,W]."""
        down = (self.rows - self.y[chunk, None])[:, :, None]
        across = ((self.columns - self.x[chunk, None]) / self.aspect)[:, None, :]
        if self.shape == "circle":
            return down**2 + across**2 <= self.radius**2
        return (down.abs() <= self.radius) & (across.abs() <= self.radius)


class Segments:
    """The segments of several segmentations of an input (PAMI, strategy II), those that are alike only once.

    Args:
        labels: of each element in each segmentation, integers >= 0: [S,H,W] for an image, [S,L] for L tokens.

    Attributes:
        times: how many segmentations hold each segment, [P].
    """

    def __init__(self, labels: Tensor) -> None:
        layers, most = len(labels), int(labels.max()) + 1
        offset = torch.arange(layers, device=labels.device) * most
        code = labels.long().flatten(1) + offset[:, None]
        # Two segments are alike if the sums of their elements' random numbers are: 64 bits leave no room for chance.
        element = torch.randint(-(2**62), 2**62, labels[0].shape, generator=torch.Generator().manual_seed(0))
        empty = torch.zeros(layers * most, dtype=torch.long, device=labels.device)
        key = empty.scatter_add(0, code.flatten(), element.to(labels.device).flatten().repeat(layers))
        exists = empty.bool().index_fill(0, code.flatten(), True)
        found = exists.nonzero()[:, 0]
        _, part = key[found].unique(return_inverse=True)
        self.times = part.bincount()
        order = part.argsort(stable=True)
        first = found[order[self.times.cumsum(0) - self.times]]  # one segment of each kind
        self._layer, self._label, self._labels = first // most, first % most, labels

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, chunk: slice, /) -> Tensor:
        """Segments, bool [n,H,W] or [n,L]."""
        return self._labels[self._layer[chunk]] == self._label[chunk].view(-1, *[1] * (self._labels.ndim - 1))
