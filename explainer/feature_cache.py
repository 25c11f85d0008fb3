"""What the frozen part of a classifier makes of each image, computed once: only the head is trained on it.

B images, C classes, F features at the head's input.
"""

from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


class FeatureCache:
    """The head's inputs for every training and validation image, computed once by the frozen part of the classifier.

    Args:
        model: the classifier.
        head: name of the part of it that is trained, at its end.
        trainer: says on which device and in which precision.
    """

    def __init__(self, model: nn.Module, head: str, trainer: Trainer) -> None:
        self.model = model
        self.head = head
        self.device = trainer.strategy.root_device
        self.autocast = trainer.precision_plugin.forward_context

    def loaders(self, datamodule: Any, batch_size: int, seed: int) -> dict[str, Any] | None:
        """Loaders of (features, labels) for `Trainer.fit`; None if the model isn't head(features).

        Args:
            datamodule: LightningDataModule that yields `Batch`.
            batch_size: of the training images.
            seed: of their order.
        """
        datamodule.prepare_data()
        datamodule.setup("fit")
        splits = {}
        for split in ("train", "val"):
            computed = self._compute(datamodule.dataloader(split))
            if computed is None:
                return None
            splits[split] = TensorDataset(*computed)
        sampler: DistributedSampler[Any] = DistributedSampler(splits["train"], num_replicas=1, rank=0, seed=seed)
        return {
            # A generator of its own: a loader draws a number each epoch, which would shift those of dropout.
            "train_dataloaders": DataLoader(splits["train"], batch_size, sampler=sampler, generator=torch.Generator()),
            "val_dataloaders": DataLoader(splits["val"], batch_size=256),
        }

    @torch.no_grad()
    def _compute(self, loader: Any) -> tuple[Tensor, Tensor] | None:
        model = self.model.to(self.device).eval()
        head = model.get_submodule(self.head)
        features: list[Tensor] = []
        labels: list[Tensor] = []
        for batch in loader:
            image = batch.image.to(self.device).contiguous(memory_format=torch.channels_last)
            with self.autocast():
                inputs, outputs = _through(model, head, image)
                if inputs is None or (not features and not _is_last(head, inputs, outputs)):
                    return None
            features.append(_compact(inputs).cpu())
            labels.append(batch.labels)
        return torch.cat(features), torch.cat(labels)


def _compact(features: Tensor) -> Tensor:
    """As float16, if they fit: half the memory of float32, and finer than the bf16 that autocast hands to the head."""
    half = features.half()
    return half if half.isfinite().all() else features.float()


def _through(model: nn.Module, head: nn.Module, image: Tensor) -> tuple[Tensor | None, Tensor]:
    """The head's input (None if the head isn't called as a module) and the model's output."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        output = model(image)
    finally:
        handle.remove()
    return (seen[0] if len(seen) == 1 else None), output


def _is_last(head: nn.Module, inputs: Tensor, outputs: Tensor) -> bool:
    alone = head(inputs)
    return alone.shape == outputs.shape and torch.equal(alone, outputs)
