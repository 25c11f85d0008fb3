"""Adam with a learning-rate schedule, shared by the Explainer's and the explanandum's training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn


@dataclass
class OptimizerOptions:
    """How Adam is run; the defaults are the authors' for VOC and VGG-16.

    Args:
        lr: Learning rate of Adam.
        schedule: Constant as the authors, or a cosine down to zero at the last epoch's end.
        warmup_steps: Steps over which the learning rate rises linearly at first.
    """

    lr: float = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Refuse rates that train nothing."""
        if self.lr <= 0 or self.warmup_steps < 0:
            raise ValueError(f"lr must be positive and warmup_steps not negative, got {self.lr}, {self.warmup_steps}.")


def adam(parameters: Iterable[nn.Parameter], options: OptimizerOptions, steps: int | float) -> OptimizerLRScheduler:
    """Adam over the parameters that are trained, its learning rate set anew before every step.

    Args:
        parameters: of the trained network; frozen ones are left out.
        options: learning rate and schedule.
        steps: of the whole run; only the cosine schedule needs it to be finite.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=options.lr, fused=True)

    def factor(step: int) -> float:
        warmup = min(1.0, (step + 1) / (options.warmup_steps + 1))
        return warmup if options.schedule == "constant" else warmup * (1 + math.cos(math.pi * min(1, step / steps))) / 2

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
