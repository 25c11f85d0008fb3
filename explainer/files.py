"""Files that are there whole or not at all."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

PART = ".part"
"""Ending of a folder with a file that is being written."""
ABANDONED = 24 * 3600.0
"""Seconds after which nobody writes there any more: its process was killed."""


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `file` when the block ends; after an error nothing is left.

    So no kill and no other writer leaves half of the file. Its folder is made. The path ends in the file's own name, by
    whose suffix libraries know the format, in a folder of its own, where nobody looks for files.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{uuid4().hex}{PART}")  # no other process's, on whatever machine it runs
    aside.mkdir()
    try:
        yield aside / file.name
        (aside / file.name).replace(file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Remove what processes that were killed have left of files, at least a day ago."""
    for aside in folder.glob(f".*{PART}"):
        with suppress(OSError):  # another process tidies too; or it is another user's
            if time.time() - aside.stat().st_mtime > ABANDONED:
                shutil.rmtree(aside)


def write_whole(file: Path, text: str) -> None:
    """Write a text file so that a kill leaves the old text or the new one, never half of it."""
    write_whole_bytes(file, text.encode())


def write_whole_bytes(file: Path, content: bytes) -> None:
    """Write a file, and its folder, as `whole` does.

    Raises:
        OSError: if it can't be written; nothing is left of it then.
    """
    with whole(file) as beside, beside.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())  # else a power cut may leave the new name with old blocks
