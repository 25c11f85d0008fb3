"""Attribution maps of a batch: asked for once, kept on disk, and every failure told.

B images, C classes, N maps, H×W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from explainer.attribution import AttributionMethod
from explainer.attribution.base import no_maps
from explainer.evaluation.images import Images
from explainer.evaluation.methods import NamedMethod
from explainer.files import whole
from explainer.metrics.scaling import merged_saliency, to_unit_range

Pair = tuple[int, int]
"""An image, by its index in the batch, and a class."""
MapsByPair = dict[Pair, Tensor]
"""Raw maps, float32 [H,W]."""
Failures = dict[Pair, str]
"""Why there is no map."""


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
            # In one piece: `load_file` opens the file a second time by its name, which may be another file's by then.
            return {int(name): value for name, value in load(file.read_bytes()).items()}
        except (SafetensorError, ValueError):
            return {}

    def add(self, method_key: str, pixel_key: str, maps: Mapping[int, Tensor]) -> None:
        """Keep further maps [H,W] of an image, by class.

        Raises:
            OSError: if they can't be written.
        """
        file = self._file(method_key, pixel_key)
        if file is None:
            return
        kept = self.read(method_key, pixel_key) | {key: value.detach().cpu() for key, value in maps.items()}
        try:
            with whole(file) as beside:
                save_file({str(target): value.contiguous().clone() for target, value in kept.items()}, beside)
        except (SafetensorError, OSError) as error:  # safetensors has an error of its own for a full disk
            raise OSError(
                f"Cannot keep maps in {self.folder} ({error}). Free some space, name another folder with --maps, or "
                "keep none with --keep_maps false; then go on with the same command."
            ) from error

    def _file(self, method_key: str, pixel_key: str) -> Path | None:
        return None if self.folder is None else self.folder / method_key / f"{pixel_key}.safetensors"


class MapSource:
    """Where tables get their maps from.

    Args:
        cache: of maps asked for before.
    """

    def __init__(self, cache: MapCache) -> None:
        self.cache = cache

    def __call__(self, named: NamedMethod, images: Images, wanted: Tensor) -> tuple[ClassMaps, Failures]:
        """The maps of a batch that tables want, and those that the method fails on; only what is not kept is computed.

        Args:
            named: the method to be asked.
            images: the batch.
            wanted: bool [B,C].
        """
        kept = self._kept(named, images, wanted)
        missing = wanted.clone()
        if kept:
            missing[tuple(torch.tensor(list(kept), device=wanted.device).unbind(dim=1))] = False
        found, failures = computed(named.method, images, missing)
        for index in dict.fromkeys(index for index, _ in found):
            of_image = {target: value for (other, target), value in found.items() if other == index}
            self.cache.add(named.key, images.pixel_keys[index], of_image)
        return _stacked(kept | found, wanted, images, named.method.unit_range), failures

    def _kept(self, named: NamedMethod, images: Images, wanted: Tensor) -> MapsByPair:
        """What the cache has; maps of another size than the images are none of theirs."""
        pairs = wanted.nonzero().tolist()
        known = {index: self.cache.read(named.key, images.pixel_keys[index]) for index in {index for index, _ in pairs}}
        size = images.image.shape[-2:]
        return {
            (index, target): known[index][target]
            for index, target in pairs
            if target in known[index] and known[index][target].shape == size
        }


def _stacked(maps: MapsByPair, wanted: Tensor, images: Images, unit_range: bool) -> ClassMaps:
    pairs = [(index, target) for index, target in wanted.nonzero().tolist() if (index, target) in maps]
    device = images.image.device
    values = [maps[pair].to(device) for pair in pairs]
    image_index, target = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2).unbind(dim=1)
    return ClassMaps(torch.stack(values) if values else no_maps(images.image), image_index, target, unit_range)


def computed(
    method: AttributionMethod, images: Images, wanted: Tensor, raised: Callable[[Exception], bool] = lambda _: False
) -> tuple[MapsByPair, Failures]:
    """Ask the method for maps of a batch.

    Where all of them together fail, the images are asked one by one, and an image that fails by itself class by class,
    so that no map takes others along. Maps that are not finite in float32, that have another size than the image, and
    others than were asked for count as failures of the method.

    Args:
        method: that is asked.
        images: the batch.
        wanted: bool [B,C]; where nothing is wanted, the method is not called.
        raised: says of an error whether it is raised, and not told as a failure on an image.
    """
    count = int(wanted.sum())
    if count == 0:
        return {}, {}
    try:
        return _checked(method, images, wanted)
    except Exception as error:  # whatever a method raises: which image, and why, is told in the table
        if raised(error):
            raise
        if count == 1:
            index, target = wanted.nonzero()[0].tolist()
            return {}, {(index, target): reason_of(error)}
    found: MapsByPair = {}
    failures: Failures = {}
    for part in _parts(wanted):
        maps, failed = computed(method, images, part, raised)
        found |= maps
        failures |= failed
    return found, failures


def _parts(wanted: Tensor) -> list[Tensor]:
    """The wishes [B,C] for each image by itself or, if there is only one, for each of its classes."""
    pairs = wanted.nonzero()
    axis = 0 if len(pairs[:, 0].unique()) > 1 else 1
    parts = []
    for value in pairs[:, axis].unique().tolist():
        alone = torch.zeros_like(wanted)
        alone.select(axis, value).copy_(wanted.select(axis, value))
        parts.append(alone)
    return parts


def _checked(method: AttributionMethod, images: Images, wanted: Tensor) -> tuple[MapsByPair, Failures]:
    """The maps from one call; raises what the method raises, and where it does not answer what was asked."""
    indices = wanted.any(dim=1).nonzero()[:, 0].tolist()
    part = images.subset(indices)
    maps, image_index, target = method.present_class_maps(part.image, wanted[indices])
    if maps.shape[1:] != part.image.shape[-2:]:
        raise ValueError(f"The maps are {tuple(maps.shape)}, the images {tuple(part.image.shape)}.")
    pairs = [(indices[position], label) for position, label in zip(image_index.tolist(), target.tolist(), strict=True)]
    if len(maps) != len(pairs) or sorted(pairs) != [tuple(pair) for pair in wanted.nonzero().tolist()]:
        raise ValueError(f"Asked for {int(wanted.sum())} maps, got {len(maps)}, or of other images or classes.")
    maps = maps.detach().float()
    finite = maps.isfinite().flatten(1).all(dim=1).tolist()
    usable = {pair: single for pair, single, is_finite in zip(pairs, maps, finite, strict=True) if is_finite}
    broken = {pair: single for pair, single, is_finite in zip(pairs, maps, finite, strict=True) if not is_finite}
    return usable, {pair: _not_finite(single, pair[1]) for pair, single in broken.items()}


def _not_finite(single: Tensor, target: int) -> str:
    bad = int((~single.isfinite()).sum())
    return f"{bad} of {single.numel()} values of the map of class {target} are NaN or infinite"


def reason_of(error: Exception) -> str:
    """What is written down of an error: its type and message, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
