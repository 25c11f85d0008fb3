"""What the Explainer learns from teachers, and how much."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

LossName = Literal["bce", "l1", "mse", "correlation"]
Combination = Literal["equal", "score"]


@dataclass
class DistillOptions:
    """Attribution methods as teachers of the Explainer.

    Args:
        teachers: Methods, as evaluate.py --methods has them, e.g. group_cam pami:second_run=false; none by default.
        weight: Of the distillation loss beside the classification loss, whose weight is 1.
        loss: How a mask is pulled to a map: binary cross-entropy, mean absolute or squared error, 1 - correlation.
        combine: Several teachers count equally, or as the class's probability in the image masked with their map.
        warmup_epochs: Epochs of the full weight, before it fades.
        decay: What is left of the weight after each further epoch: 1 keeps it, 0 ends it after the warm-up.
        map_size: Height and width at which maps are kept, in pixels; a quarter of the image's if not given.
        batch_size: Images a batch when maps are computed.
        cache: Folder of the kept maps; OUTPUT/teachers if not given.
        shard: This job's part of the images when maps are computed, e.g. 3/16 for the third of sixteen jobs.
        cache_info: Say what the cache holds, and stop.
    """

    teachers: list[str] = field(default_factory=list)
    weight: float = 1.0
    loss: LossName = "bce"
    combine: Combination = "equal"
    warmup_epochs: float = 1.0
    decay: float = 0.3
    map_size: int | None = None
    batch_size: int = 8
    cache: Path | None = None
    shard: str = "1/1"
    cache_info: bool = False

    def __post_init__(self) -> None:
        """Refuse what would fail only after hours."""
        if len(set(self.teachers)) < len(self.teachers):
            raise ValueError(f"--distill.teachers names a teacher twice: {' '.join(self.teachers)}.")
        for name, least in (("weight", 0), ("warmup_epochs", 0), ("decay", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--distill.{name} must be at least {least}, got {getattr(self, name)}.")
        if self.decay > 1:
            raise ValueError(f"--distill.decay is what is left after an epoch, from 0 to 1, got {self.decay}.")
        if self.map_size is not None and self.map_size < 1:
            raise ValueError(f"--distill.map_size must be at least 1, got {self.map_size}.")
        self.part()

    def part(self) -> tuple[int, int]:
        """`3/16` -> (2, 16): index of the shard, from 0, and number of shards.

        Raises:
            ValueError: for anything else.
        """
        index, slash, count = self.shard.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"--distill.shard is '{self.shard}'; write e.g. 3/16 for the third of sixteen parts.")
        return int(index) - 1, int(count)

    def weight_at(self, epochs: float) -> float:
        """The weight after so many epochs (with fractions): full during the warm-up, then decay^(epochs since)."""
        since = max(0.0, epochs - self.warmup_epochs)
        return self.weight * (self.decay**since if since > 0 else 1.0)
