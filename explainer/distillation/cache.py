"""Teacher maps on disk: computed once, by any number of processes and machines, and read in any order.

h×w pixels of a map.
"""

import errno
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from explainer.distillation.shards import SUFFIX, Entry, Shard, TeacherMap, encode
from explainer.files import write_whole_bytes
from explainer.keys import digest

__all__ = ["Entry", "StoreInfo", "TeacherCache", "TeacherMap", "TeacherStore"]

ABOUT = "about.json"
BYTES_BESIDES = 65
"""Of a map on the disk: its class, score and checksum, and its share of the image's name."""


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Args:
        key: name of its folder.
        about: what it is a store of.
        images: with at least one map, or one failure.
        maps: that are whole; of several of the same image and class only one counts.
        failed: images and classes that the teacher failed on.
        shards: files, whole or damaged.
        bytes: of all these files.
        damaged: files that are damaged altogether, or of which some map is.
    """

    key: str
    about: dict[str, Any]
    images: int
    maps: int
    failed: int
    shards: int
    bytes: int
    damaged: int


class TeacherStore:
    """The maps of one teacher; made by `TeacherCache.store`.

    Each `add` makes a file of its own, a *shard*, which nobody ever changes: writers never meet, readers never see half
    a file, and a kill loses only what was not yet handed over. Every map is verified whenever it is read; what is
    damaged, by itself or with its shard, counts as not there. Of several maps of the same image and class any whole one
    is taken, and a map rather than a failure.

    A map of 56×56 pixels takes 3,136 bytes and BYTES_BESIDES more. The 82 thousand training images of COCO, with 2.9
    classes each, are 240 thousand maps, or 770 MB for each teacher, in 1,300 shards. In memory a store keeps
    the table of contents, which for those is some 25 MB.

    Of images that a user may change, each is kept under its name and version: another photograph of the same name is
    another image.

    A store has no open files, so it can be handed to the workers of a data loader, forked or spawned.

    Args:
        folder: of the shards; its name is the key.
        about: what it is a store of; `map_size` is the height and width of all its maps.
        versions: of the images that have some.

    Raises:
        ValueError: if `about` has no proper `map_size`.
    """

    def __init__(self, folder: Path, about: dict[str, Any], versions: Mapping[str, str] | None = None) -> None:
        size = about.get("map_size")
        if type(size) is not int or size < 1:
            raise ValueError(f"'map_size' is {size!r}; `about` must name the height and width of the maps, e.g. 56.")
        self.folder = folder
        self.about = about
        self.map_size: int = size
        self._versions = dict(versions or {})
        self._shards: dict[str, Shard | None] = {}  # by file name; None is a damaged one
        self._holders: dict[str, tuple[Shard, ...]] = {}  # of each image
        self.refresh()

    @property
    def key(self) -> str:
        """Its name in the cache."""
        return self.folder.name

    def refresh(self) -> None:
        """Learn of shards that others have written since; only these are opened, and those that were damaged so far.

        A shared disk may fail for a moment.
        """
        for file in self._files():
            if self._shards.get(file.name) is None:
                self._learn(file)

    def read(self, image_id: str) -> Entry:
        """The kept maps and failures of an image by class; empty if there is nothing, or nothing whole."""
        entry: Entry = {}
        name = self._name(image_id)
        for shard in self._holders.get(name, ()):
            for target, kept in shard.read(name).items():
                if target not in entry or entry[target].failed:
                    entry[target] = kept
        return entry

    def missing(self, wanted: Mapping[str, Collection[int]], *, failed: bool = False) -> dict[str, list[int]]:
        """Which classes of which images have neither a whole map nor a failure; images without such classes left out.

        It reads all shards in which one of the images is, and verifies every map. Call `refresh` before, if others
        write too.

        Args:
            wanted: classes of each image.
            failed: count those with a failure too.
        """
        holders = dict.fromkeys(shard for image_id in wanted for shard in self._holders.get(self._name(image_id), ()))
        there: dict[str, set[int]] = {}
        for shard in holders:
            for name, entry in shard.read_all().items():
                there.setdefault(name, set()).update(
                    target for target, kept in entry.items() if not (failed and kept.failed)
                )
        lacking = {
            image_id: [target for target in dict.fromkeys(classes) if target not in there.get(self._name(image_id), ())]
            for image_id, classes in wanted.items()
        }
        return {image_id: classes for image_id, classes in lacking.items() if classes}

    def failures(self, wanted: Mapping[str, Collection[int]]) -> list[str]:
        """Why the teacher has no map of some of the wanted classes, one reason each; from the tables alone.

        Args:
            wanted: classes of each image, none of which is `missing`.
        """
        reasons = []
        for image_id, classes in wanted.items():
            said: dict[int, list[str]] = {}
            name = self._name(image_id)
            for shard in self._holders.get(name, ()):
                for row in shard.images[name]:
                    said.setdefault(shard.classes[row], []).append(shard.failed.get(row, ""))
            reasons += [said[target][0] for target in classes if all(said[target])]
        return reasons

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Keep maps and failures, all of them in one new shard or, if that fails, none.

        A shard is a file: hand over the maps of some 64 images at once.

        Args:
            entries: of each image; without any map, nothing is written.

        Raises:
            ValueError: if a map is not uint8 [map_size,map_size], or a score not in [0, 1].
            OSError: if they can't be written.
        """
        entries = {image_id: entry for image_id, entry in entries.items() if entry}
        for image_id, entry in entries.items():
            for target, kept in entry.items():
                self._check(f"image {image_id}, class {target}", kept)
        if entries:
            file = self.folder / f"{uuid4().hex}{SUFFIX}"
            named = {self._name(image_id): entry for image_id, entry in entries.items()}
            _write(file, encode(named, self.key), self.folder.parent)
            self._learn(file)

    def info(self) -> StoreInfo:
        """What is there by now; every map is read and verified."""
        self.refresh()
        sizes = {file.name: file.stat().st_size for file in self._files() if file.name in self._shards}
        has_failed: dict[tuple[str, int], bool] = {}
        damaged = 0
        for name in sizes:
            shard = self._shards[name]
            entries = shard.read_all() if shard else {}
            for image_id, entry in entries.items():
                for target, kept in entry.items():
                    has_failed[image_id, target] = bool(kept.failed) and has_failed.get((image_id, target), True)
            damaged += shard is None or sum(map(len, entries.values())) < len(shard.classes)
        failed = sum(has_failed.values())
        return StoreInfo(
            key=self.key,
            about=self.about,
            images=len({image_id for image_id, _ in has_failed}),
            maps=len(has_failed) - failed,
            failed=failed,
            shards=len(sizes),
            bytes=sum(sizes.values()),
            damaged=damaged,
        )

    def _name(self, image_id: str) -> str:
        """Of an image, as it is kept."""
        version = self._versions.get(image_id)
        return f"{image_id} {version}" if version else image_id

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def _learn(self, file: Path) -> None:
        shard = Shard.open(file, self.key, self.map_size)
        self._shards[file.name] = shard
        if shard is None:
            return
        for image_id in shard.images:
            self._holders[image_id] = (*self._holders.get(image_id, ()), shard)

    def _check(self, place: str, kept: TeacherMap) -> None:
        expected = (self.map_size, self.map_size)
        if kept.map.dtype != torch.uint8 or kept.map.shape != expected:
            raise ValueError(
                f"The map of {place} is {kept.map.dtype} {tuple(kept.map.shape)}; this store keeps torch.uint8 "
                f"{expected}. Resize it and scale it to 0 to 255, or make a store of another 'map_size'."
            )
        if not 0 <= kept.score <= 1:
            raise ValueError(f"The score of {place} is {kept.score}, not a probability; keep it as a failure instead.")


class TeacherCache:
    """A folder with the stores of many teachers, each in a folder named by its key.

    Args:
        folder: of the cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, about: Mapping[str, Any], versions: Mapping[str, str] | None = None) -> TeacherStore:
        """The store of the maps that `about` describes, found again by the same description, in whatever order.

        Args:
            about: everything that decides the maps, and their `map_size`; JSON-serialisable, or else told apart by its
                text.
            versions: of the images that have some.

        Raises:
            ValueError: if `about` has no proper `map_size`.
            OSError: if the description can't be written beside the maps.
        """
        text = json.dumps(about, sort_keys=True, default=str, indent=2)
        plain = json.loads(text)
        store = TeacherStore(self.folder / digest(plain), plain, versions)
        file = store.folder / ABOUT
        if not file.is_file() or file.read_bytes() != text.encode():
            _write(file, text.encode(), self.folder)
        return store

    def info(self) -> list[StoreInfo]:
        """What the stores hold, sorted by key; folders that are none are left out. Every map is read and verified."""
        stores = (_described(file) for file in sorted(self.folder.glob(f"*/{ABOUT}")))
        return [store.info() for store in stores if store]


def _described(file: Path) -> TeacherStore | None:
    """The store that a description lies in, if it is one."""
    try:
        about = json.loads(file.read_bytes())
        return TeacherStore(file.parent, about) if digest(about) == file.parent.name else None
    except (OSError, ValueError):
        return None


def _write(file: Path, content: bytes, cache: Path) -> None:
    try:
        write_whole_bytes(file, content)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"Cannot keep teacher maps in {cache} ({error.strerror or error}). Free some space, or name another folder "
            "with --distill.cache; then go on with the same command.",
        ) from error
