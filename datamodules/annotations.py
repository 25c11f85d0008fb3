"""XML annotations as PASCAL VOC and ImageNet write them: an image's size, and its objects' names and edges."""

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

EDGES = ("xmin", "ymin", "xmax", "ymax")


class AnnotatedObject(NamedTuple):
    """An object's class by its name, and its left, top, right and bottom edge in pixels as written, if given.

    `difficult`: whether `<difficult>` is 1, by which annotators mark an object that people can hardly tell either.
    """

    name: str
    edges: tuple[float, float, float, float] | None
    difficult: bool = False


class Annotation(NamedTuple):
    """An image's objects, and the (width, height) in pixels that their edges refer to, if given."""

    size: tuple[float, float] | None
    objects: tuple[AnnotatedObject, ...]


def read_annotation(file: Path) -> Annotation:
    """Read an XML file; a size of 0, which some programs write for an unknown one, counts as not given.

    Raises:
        ValueError: If it is not valid XML, or an edge or a size is not a number; the message names the file.
    """
    try:
        root = ElementTree.parse(file).getroot()
        # Only direct children: an object's parts (head, hand, foot) carry names and boxes too.
        return Annotation(_size(root), tuple(_object(element) for element in root.iterfind("object")))
    except ElementTree.ParseError as error:
        raise ValueError(f"Annotation {file} is not valid XML ({error}); unpack the data set again.") from error
    except ValueError as error:
        raise ValueError(
            f"Annotation {file} is not usable: {error}. Correct it or unpack the data set again."
        ) from error


def _size(root: ElementTree.Element) -> tuple[float, float] | None:
    size = root.find("size")
    if size is None:
        return None
    width, height = _number(size, "width"), _number(size, "height")
    return (width, height) if width > 0 and height > 0 else None


def _object(element: ElementTree.Element) -> AnnotatedObject:
    name, box = element.findtext("name", "").strip(), element.find("bndbox")
    difficult = element.findtext("difficult", "").strip() == "1"
    if box is None:
        return AnnotatedObject(name, None, difficult)
    left, top, right, bottom = (_number(box, edge) for edge in EDGES)
    return AnnotatedObject(name, (left, top, right, bottom), difficult)


def _number(element: ElementTree.Element, name: str) -> float:
    text = element.findtext(name, "")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} of a {element.tag} is '{text}', expected a number") from None
