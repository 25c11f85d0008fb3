"""From tensors to the nested lists that the references take, and back."""

from collections.abc import Callable

import torch
from torch import Tensor


def nested(tensor: Tensor) -> list:
    """The values of a tensor as nested lists of Python floats."""
    return tensor.detach().cpu().double().tolist()


def ignored_pixels(valid: Tensor) -> list[tuple[int, int]]:
    """The (row, column) pairs at which a [H,W] validity mask is False."""
    return [(i, j) for i, row in enumerate(valid.tolist()) for j, is_valid in enumerate(row) if not is_valid]


def per_image(reference: Callable, *batches: Tensor) -> Tensor:
    """Ask a reference for each image of a batch in turn and stack its answers, float64 [B] or [B,H,W]."""
    answers = [reference(*(nested(batch[b]) for batch in batches)) for b in range(len(batches[0]))]
    return torch.tensor(answers, dtype=torch.float64)
