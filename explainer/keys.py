"""Short names for anything that decides a number: equal keys mean equal results."""

import json
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

DIGITS = 24


def digest(*parts: Any) -> str:
    """A key for values that JSON (or else their text) tells apart."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=DIGITS // 2).hexdigest()


def digest_of_tensor(tensor: Tensor) -> str:
    """A key for the values of a tensor, wherever and in whatever memory layout it lies.

    Shape and dtype are not in it: compare keys of tensors that share both.
    """
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return blake2b(plain.numpy().tobytes(), digest_size=DIGITS // 2).hexdigest()


def digest_of_network(network: nn.Module) -> str:
    """A key for all parameters and buffers."""
    return digest([(name, digest_of_tensor(value)) for name, value in sorted(network.state_dict().items())])
