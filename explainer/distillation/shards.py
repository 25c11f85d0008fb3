"""Teacher maps in files that never change: a shard holds those of some images, with a checksum for each map.

N maps of a shard, h×w pixels of a map; h = w, the `side`.
"""

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

SUFFIX = ".safetensors"
CHECKSUM_BYTES = 16


@dataclass(frozen=True, eq=False)
class TeacherMap:
    """What a teacher says of an image and a class, as it is kept.

    Args:
        map: uint8 [h,w]; 0 stands for 0 and 255 for 1.
        score: the explanandum's probability of the class in the image masked with the map, in [0, 1].
        failed: why the teacher has no map, in which case `map` and `score` mean nothing; empty where it has one.
    """

    map: Tensor
    score: float
    failed: str = ""


Entry = dict[int, TeacherMap]
"""Of an image, by class."""


@dataclass(frozen=True, eq=False)
class Shard:
    """A file of maps, of which everything but the maps is in memory.

    No file stays open, so a shard can go to any process; and none is mapped into memory, where a disk that fails would
    end the process instead of raising an error. Rows of an image follow each other, so reading it takes one access.

    Args:
        file: a safetensors file with one tensor.
        side: height and width of its maps.
        size: of the file, in bytes.
        images: rows of each image.
        classes: of the N rows.
        scores: of the N rows.
        failed: reasons, by row.
        checksums: of the N rows, one after the other.
    """

    file: Path
    side: int
    size: int
    images: dict[str, range]
    classes: list[int]
    scores: "array[float]"
    failed: dict[int, str]
    checksums: bytes

    @classmethod
    def open(cls, file: Path, store: str, side: int) -> "Shard | None":
        """Learn what a shard holds; None if the file is cut, altered, or no shard of this store.

        Args:
            file: any file.
            store: key of the store that it should belong to.
            side: height and width of the store's maps.
        """
        try:
            size = file.stat().st_size
            with safe_open(file, framework="pt") as opened:
                notes = opened.metadata() or {}
                names, maps = list(opened.keys()), opened.get_slice("maps")
                kind, shape = maps.get_dtype(), maps.get_shape()
        except (SafetensorError, OSError):
            return None
        text = notes.get("table", "")
        if names != ["maps"] or notes.get("checksum") != _checksum(text.encode()).hex():
            return None
        table = json.loads(text)
        if table["store"] != store or (kind, shape) != ("U8", [len(table["classes"]), side, side]):
            return None
        return cls(file, side, size, **_columns(table))

    def read(self, image_id: str) -> Entry:
        """The maps of an image; what is damaged or can't be read is left out."""
        rows = self.images[image_id]
        return self._entry(image_id, rows, self._bytes(rows))

    def read_all(self) -> dict[str, Entry]:
        """The maps of all images, of which any may have lost some or all; read in one piece."""
        data, pixels = self._bytes(range(len(self.classes))), self.side**2
        return {
            image_id: self._entry(image_id, rows, data[rows.start * pixels : rows.stop * pixels])
            for image_id, rows in self.images.items()
        }

    def _bytes(self, rows: range) -> bytes:
        """Of consecutive rows; fewer if the file is cut by now."""
        pixels = self.side**2
        # The format allows no gap and no rest: the only tensor ends with the file.
        start = self.size - (len(self.classes) - rows.start) * pixels
        try:
            with self.file.open("rb") as opened:
                opened.seek(start)
                return opened.read(len(rows) * pixels)
        except OSError:
            return b""

    def _entry(self, image_id: str, rows: range, data: bytes) -> Entry:
        pixels = self.side**2
        entry: Entry = {}
        for position, row in enumerate(rows):
            of_map = data[position * pixels : (position + 1) * pixels]
            said = (image_id, self.classes[row], self.scores[row], self.failed.get(row, ""))
            if _row_checksum(of_map, *said) == self.checksums[row * CHECKSUM_BYTES : (row + 1) * CHECKSUM_BYTES]:
                # A bytearray, because a tensor is writable.
                single = torch.frombuffer(bytearray(of_map), dtype=torch.uint8).view(self.side, self.side)
                entry[said[1]] = TeacherMap(single, *said[2:])
        return entry


def _columns(table: Mapping[str, Any]) -> dict[str, Any]:
    images, first = {}, 0
    for image_id, count in table["images"]:
        images[image_id] = range(first, first + count)
        first += count
    return {
        "images": images,
        "classes": table["classes"],
        "scores": array("d", table["scores"]),
        "failed": {int(row): reason for row, reason in table["failed"].items()},
        "checksums": bytes.fromhex(table["checksums"]),
    }


def encode(entries: Mapping[str, Entry], store: str) -> bytes:
    """The content of a shard.

    Args:
        entries: at least one map in all, and all of one size.
        store: key of the store that it is for.
    """
    rows = [(image_id, target, kept) for image_id, entry in entries.items() for target, kept in entry.items()]
    maps = torch.stack([kept.map.cpu() for _, _, kept in rows])
    checksums = [
        _row_checksum(single.numpy().tobytes(), image_id, target, kept.score, kept.failed)
        for single, (image_id, target, kept) in zip(maps, rows, strict=True)
    ]
    table = {
        "store": store,
        "images": [(image_id, len(entry)) for image_id, entry in entries.items()],
        "classes": [target for _, target, _ in rows],
        "scores": [kept.score for _, _, kept in rows],
        "failed": {row: kept.failed for row, (_, _, kept) in enumerate(rows) if kept.failed},
        "checksums": b"".join(checksums).hex(),
    }
    text = json.dumps(table, separators=(",", ":"))
    return save({"maps": maps}, {"table": text, "checksum": _checksum(text.encode()).hex()})


def _row_checksum(of_map: bytes, image_id: str, target: int, score: float, failed: str) -> bytes:
    return _checksum(of_map, json.dumps([image_id, target, score, failed]).encode())


def _checksum(*parts: bytes) -> bytes:
    total = blake2b(digest_size=CHECKSUM_BYTES)
    for part in parts:
        total.update(part)
    return total.digest()
