"""Looking at a module in the midst of its training, so that training goes on as if nobody had looked."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from explainer.attribution.base import evaluating


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Within, the module is frozen, in eval mode and not compiled; afterwards, also after an error, it is as it was.

    That is: the mode and flags of all its parts, gradients, buffers (statistics of BatchNorm), and the random numbers
    of Python, NumPy and torch on all devices. What a LightningModule logs within is not logged: it would become part
    of the mean that decides on checkpoints.
    """
    with (
        _same_random_numbers(),
        torch.compiler.set_stance("force_eager"),
        evaluating(module),
        _without_gradients(module),
        _kept_buffers(module),
        _silent(module),
    ):
        yield


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """No parameter wants or has a gradient; each gets back the very tensor that it had."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    for parameter, _, _ in before:
        parameter.requires_grad_(False).grad = None
    try:
        yield
    finally:
        for parameter, wanted, gradient in before:
            parameter.requires_grad_(wanted).grad = gradient


@contextmanager
def _kept_buffers(module: nn.Module) -> Iterator[None]:
    """Buffers that the module changes, or puts others in the place of, even in eval mode."""
    before = [
        (owner, name, buffer, buffer.detach().clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for owner, name, buffer, values in before:
            owner._buffers[name] = buffer
            with torch.no_grad():
                buffer.copy_(values)


@contextmanager
def _silent(module: nn.Module) -> Iterator[None]:
    """`self.log` of a LightningModule does nothing; `log_dict` goes through it."""
    own = vars(module).get("log")
    object.__setattr__(module, "log", lambda *_, **__: None)
    try:
        yield
    finally:
        object.__delattr__(module, "log")
        if own is not None:
            object.__setattr__(module, "log", own)
