"""Pictures that are there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A path beside the file, whose place it takes at the end; after an error nothing is left.

    It has the file's suffix, by which libraries know the format. The folder is made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".tmp.{file.name}")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
