"""What was scored so far: one line of JSON for each image, method and table, appended as soon as it is known.

A line is keyed by all that decides it (see `keys.py`), so that an evaluation that was stopped, or is asked for more
images, methods or tables, goes on where it was. Each process appends to a file of its own and reads those of all.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, nextafter
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class Record:
    """An image's scores in one table, by one method.

    Args:
        rows: one row, or one for each class.
        failed: why the method failed on it; empty if it did not.
        left_out: why the table has no place for the image, whatever the method; empty if it has.
    """

    rows: list[Row] = field(default_factory=list)
    failed: str = ""
    left_out: str = ""


class Records:
    """The records in a folder.

    Args:
        folder: created when the first line is written; processes that share the work must share it.
        rank: of this process.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self.rank = rank
        self._known: dict[tuple[str, str], tuple[float, str, Record]] = {}
        self.read()

    def read(self) -> None:
        """Read what all processes have written; of several lines for the same image the latest counts."""
        self._known.clear()
        for file in sorted(self.folder.glob("rank*.jsonl")):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            when, job, image, content, *values = json.loads(line)
            record = Record(*values)
        except (ValueError, TypeError):  # the line that was being written when the process was killed
            return
        earlier = self._known.get((job, image))
        if earlier is None or earlier[0] <= when:
            self._known[job, image] = when, content, record

    def is_done(self, job: str, image: str, content: str) -> bool:
        """Whether an image with this content has been scored; one that failed is tried again."""
        known = self._known.get((job, image))
        return known is not None and known[1] == content and not known[2].failed

    def add(self, job: str, image: str, content: str, record: Record) -> None:
        """Write a record down."""
        earlier = self._known.get((job, image))
        # Clocks differ, and are set back; the record must count as later than the one it replaces nevertheless.
        when = time.time() if earlier is None else max(time.time(), nextafter(earlier[0], inf))
        self._known[job, image] = when, content, record
        line = json.dumps([when, job, image, content, record.rows, record.failed, record.left_out])
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"rank{self.rank}.jsonl").open("a+b", buffering=0) as opened:
            begin = "" if _ends_with_line(opened) else "\n"  # after a line that was cut short
            opened.write(f"{begin}{line}\n".encode())  # at once, lest it mix with a line of another evaluation

    def of(self, job: str, images: Sequence[str]) -> list[tuple[str, Record]]:
        """The records of a job, in the order of the images; an image without one is not listed."""
        return [(image, self._known[job, image][2]) for image in images if (job, image) in self._known]


def _ends_with_line(opened: Any) -> bool:
    if opened.tell() == 0:
        return True
    opened.seek(-1, 2)
    return bool(opened.read(1) == b"\n")


@dataclass
class MethodScores:
    """All that a table's summary needs of one method.

    Args:
        method: name of the row.
        rows: by image, in order; images without a score are not in it.
        failed: why, by image.
        classifier: name of the explanandum, where a table compares several.
    """

    method: str
    rows: dict[str, list[Row]]
    failed: dict[str, str]
    classifier: str = ""

    @property
    def flat(self) -> Iterable[Row]:
        """All rows, each with its image."""
        return ({"image": image, **row} for image, rows in self.rows.items() for row in rows)
