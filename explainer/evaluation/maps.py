"""Attribution maps of a batch: asked for once, kept on disk, and every failure told.

B images, C classes, N maps, H×W pixels.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from explainer.attribution import AttributionMethod
from explainer.attribution.base import no_maps
from explainer.evaluation.images import Images
from explainer.evaluation.methods import NamedMethod
from explainer.metrics.scaling import merged_saliency, to_unit_range

Failures = dict[int, str]
"""Why an image (by its index in the batch) has no maps."""


@dataclass
class ClassMaps:
    """Maps of some classes of some images of a batch, sorted by image and class.

    Args:
        maps: raw, float32 [N,H,W], finite.
        image_index: long [N].
        target: class of each, long [N].
        unit_range: whether the maps are masks in [0, 1] already.
    """

    maps: Tensor
    image_index: Tensor
    target: Tensor
    unit_range: bool

    @property
    def scaled(self) -> Tensor:
        """In [0, 1]: masks as they are, maps min-max scaled (a flat one becomes zero)."""
        return self.maps if self.unit_range else to_unit_range(self.maps)

    def merged(self, images: int) -> Tensor:
        """One mask an image, [B,H,W] in [0, 1]: the maximum of its scaled class maps (NN-Explainer, Sec. 4.3)."""
        return merged_saliency(self.maps, self.image_index, images, self.unit_range)

    def select(self, wanted: Tensor, images: list[int]) -> "ClassMaps":
        """The maps that `wanted` [B,C] names, of some images, whose indices then count from 0.

        Args:
            wanted: bool [B,C], by the old indices.
            images: old indices, in ascending order.
        """
        new_index = torch.full((len(wanted),), -1, device=self.maps.device)
        new_index[images] = torch.arange(len(images), device=self.maps.device)
        chosen = wanted[self.image_index, self.target] & (new_index[self.image_index] >= 0)
        return ClassMaps(self.maps[chosen], new_index[self.image_index[chosen]], self.target[chosen], self.unit_range)


class MapCache:
    """A folder of maps: one file for each method and image, which holds the maps of the classes asked so far.

    A file is written beside its place and then renamed, so that neither a killed process nor several at once leave half
    a file; two that add classes to the same file at the same time may lose one of them, which is then computed again.

    Args:
        folder: of the cache; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, method_key: str, pixel_key: str) -> dict[int, Tensor]:
        """The kept maps [H,W] by class; none for a file that is damaged."""
        file = self._file(method_key, pixel_key)
        if file is None or not file.is_file():
            return {}
        try:
            return {int(name): value for name, value in load_file(file).items()}
        except (SafetensorError, ValueError):
            return {}

    def add(self, method_key: str, pixel_key: str, maps: Mapping[int, Tensor]) -> None:
        """Keep further maps [H,W] of an image, by class."""
        file = self._file(method_key, pixel_key)
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = self.read(method_key, pixel_key) | {key: value.detach().cpu() for key, value in maps.items()}
        beside = file.with_suffix(f".{os.getpid()}.part")
        save_file({str(target): value.contiguous().clone() for target, value in kept.items()}, beside)
        beside.replace(file)

    def _file(self, method_key: str, pixel_key: str) -> Path | None:
        return None if self.folder is None else self.folder / method_key / f"{pixel_key}.safetensors"


class MapSource:
    """Where tables get their maps from.

    Args:
        cache: of maps asked for before.
    """

    def __init__(self, cache: MapCache) -> None:
        self.cache = cache

    def __call__(self, row: NamedMethod, images: Images, wanted: Tensor) -> tuple[ClassMaps, Failures]:
        """The maps of a batch that a table wants, and the images that the method fails on.

        Args:
            row: the method.
            images: the batch.
            wanted: bool [B,C].
        """
        kept = {index: self._kept(row, images, index) for index in wanted.any(dim=1).nonzero()[:, 0].tolist()}
        missing = wanted.clone()
        for index, maps in kept.items():
            missing[index, list(maps)] = False
        found, failures = computed(row.method, images, missing)
        for index, maps in found.items():
            self.cache.add(row.key, images.pixel_keys[index], maps)
            kept[index] |= {target: value for target, value in maps.items()}
        for index in failures:
            del kept[index]
        return _stacked(kept, wanted, images, row.method.unit_range), failures

    def _kept(self, row: NamedMethod, images: Images, index: int) -> dict[int, Tensor]:
        maps = self.cache.read(row.key, images.pixel_keys[index]) if self.cache.folder else {}
        return {target: value for target, value in maps.items() if value.shape == images.image.shape[-2:]}


def _stacked(maps: dict[int, dict[int, Tensor]], wanted: Tensor, images: Images, unit_range: bool) -> ClassMaps:
    pairs = [(index, target) for index, target in wanted.nonzero().tolist() if index in maps]
    device = images.image.device
    values = [maps[index][target].to(device) for index, target in pairs]
    image_index, target = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2).unbind(dim=1)
    return ClassMaps(torch.stack(values) if values else no_maps(images.image), image_index, target, unit_range)


def computed(
    method: AttributionMethod, images: Images, wanted: Tensor
) -> tuple[dict[int, dict[int, Tensor]], Failures]:
    """Ask the method for the maps [H,W] of a batch, by image and class.

    Where the batch as a whole fails, its images are asked one by one, so that one of them does not take the others
    along. Maps that are not finite, or of another size than the image, count as failures of the method.
    """
    indices = wanted.any(dim=1).nonzero()[:, 0].tolist()
    if not indices:
        return {}, {}
    try:
        return _checked(method, images, wanted, indices)
    except Exception as error:  # whatever a method raises: which image, and why, is told in the table
        if len(indices) == 1:
            return {}, {indices[0]: reason_of(error)}
    found: dict[int, dict[int, Tensor]] = {}
    failures: Failures = {}
    for index in indices:
        alone = torch.zeros_like(wanted)
        alone[index] = wanted[index]
        maps, failed = computed(method, images, alone)
        found |= maps
        failures |= failed
    return found, failures


def _checked(
    method: AttributionMethod, images: Images, wanted: Tensor, indices: list[int]
) -> tuple[dict[int, dict[int, Tensor]], Failures]:
    part = images.subset(indices)
    maps, image_index, target = method.present_class_maps(part.image, wanted[indices])
    if maps.shape[1:] != part.image.shape[-2:]:
        raise ValueError(f"The maps are {tuple(maps.shape)}, the images {tuple(part.image.shape)}.")
    found: dict[int, dict[int, Tensor]] = {index: {} for index in indices}
    failures: Failures = {}
    finite = maps.isfinite().flatten(1).all(dim=1).tolist()
    for single, position, label, usable in zip(
        maps.detach().float(), image_index.tolist(), target.tolist(), finite, strict=True
    ):
        index = indices[position]
        found[index][label] = single
        if not usable:
            bad = int((~single.isfinite()).sum())
            failures[index] = f"{bad} of {single.numel()} values of the map of class {label} are NaN or infinite"
    return {index: value for index, value in found.items() if index not in failures}, failures


def reason_of(error: Exception) -> str:
    """What is written down of an error: its type and message, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
