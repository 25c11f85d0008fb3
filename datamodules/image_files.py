"""Finding the image files that a user names, one by one or by folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from datamodules.images import openable_formats


class ImageFile(NamedTuple):
    """A file, and a name for it that no other one has: its path below the folder that was named, with `/`."""

    path: Path
    name: str


def find_images(places: Sequence[Path], apart_from: Path) -> list[ImageFile]:
    """The files that are named, and those with an image's suffix in and below the folders that are named, in order.

    Hidden files and folders are left out, and so is a folder that results are written to. A file that is named must be
    there, whatever its suffix; whether it holds an image shows when it is opened.

    Args:
        places: files and folders.
        apart_from: a folder, which need not exist.

    Raises:
        FileNotFoundError: If a place is not there.
        ValueError: If a folder holds no image.
    """
    found: list[ImageFile] = []
    for place in places:
        if place.is_dir():
            found += _in_folder(place, apart_from)
        elif place.exists():
            found.append(ImageFile(place, place.name))
        else:
            raise FileNotFoundError(f"There is no file or folder {place}; name image files, or folders of them.")
    return _distinct(found)


def _in_folder(folder: Path, apart_from: Path) -> list[ImageFile]:
    suffixes, results = image_suffixes(), apart_from.resolve()
    inside = results.is_relative_to(folder.resolve())  # else it may as well be the folder's parent
    files = [
        ImageFile(file, file.relative_to(folder).as_posix())
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in suffixes
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and not (inside and file.resolve().is_relative_to(results))
    ]
    if not files:
        raise ValueError(
            f"{folder} holds no image file, nor does a folder in it; known are {', '.join(sorted(suffixes))}."
        )
    return files


def image_suffixes() -> set[str]:
    """Those of the formats that are read, as `.jpg`."""
    formats = set(openable_formats())
    return {suffix for suffix, name in Image.registered_extensions().items() if name in formats}


def _distinct(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Each file once; one whose name an earlier one has gets a number."""
    once = {file.path.resolve(): file for file in reversed(files)}
    taken: set[str] = set()
    distinct = []
    for file in [file for file in files if once.get(file.path.resolve()) is file]:
        name, number = file.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{file.name}-{number}"
        taken.add(name.casefold())
        distinct.append(ImageFile(file.path, name))
    return distinct
