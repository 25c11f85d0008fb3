"""Reading image and mask files of every kind people have, or saying which file is broken and why.

Images come out as 8-bit RGB, upright; masks come out as class indices, never as colours.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

REMEDY = "Repair or remove the file, or pass --on_bad_image skip to leave such files out."
WHITE = (255, 255, 255, 255)
NOT_OPENED = {"EPS", "WMF"}
"""Formats that are programs rather than pixels: to read them, Pillow starts another program on the file."""


class BadImageError(ValueError):
    """A file that should hold an image or a mask cannot be used; the message names the file, reason and remedy.

    Args:
        message: names all of them.
        reason: alone, for whoever does not know the file by its path; empty where nobody asks for it.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def complaint(self) -> str:
        """The message without the remedy, which is that of programs that read data sets."""
        return str(self).removesuffix(REMEDY).strip()


def load_image(path: Path | str, *, use_exif: bool = True, most_pixels: int | None = None) -> Image.Image:
    """Read an image file as 8-bit RGB.

    Grey, palette, CMYK and 16-bit files are converted, transparent pixels are laid over white.

    Args:
        path: The file.
        use_exif: Turn the image as its EXIF orientation says. Off where annotations refer to the pixels as stored.
        most_pixels: That it may have; `Image.MAX_IMAGE_PIXELS` if not given.

    Returns:
        A PIL image of mode "RGB".

    Raises:
        BadImageError: If the file is missing, truncated, empty or not an image, or has too many pixels: a small file
            may unpack to more than the memory holds.
    """
    return _read(path, upright_rgb if use_exif else _to_rgb, most_pixels)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB, turned as its EXIF orientation says; see `load_image`."""
    return _to_rgb(ImageOps.exif_transpose(image))


def load_mask(path: Path | str, size: tuple[int, int], image_path: Path | str = "its image") -> Image.Image:
    """Read a class-index mask: the stored palette indices or grey values, not their colours.

    Args:
        path: The file, usually a palette or grey PNG.
        size: (width, height) of the image that the mask belongs to.
        image_path: That image's file, named in the error.

    Returns:
        A PIL image of mode "L": 0 background, i + 1 for class i, 255 void.

    Raises:
        BadImageError: If the file cannot be read, holds colours instead of indices, or is not of the given size.
    """
    mask = _read(path, Image.Image.copy)
    if mask.size != size:
        raise BadImageError(f"Mask {path} is {_by(mask.size)} but {image_path} is {_by(size)} pixels (width x height); "
                            f"they must agree. {REMEDY}")  # fmt: skip
    indices = np.asarray(mask)
    if indices.ndim != 2 or indices.dtype.kind not in "bui" or indices.min() < 0 or indices.max() > 255:
        raise BadImageError(
            f"Mask {path} has mode {mask.mode}; expected one channel of class indices 0..255 "
            f"(a palette or grey PNG: 0 background, i + 1 for class i, 255 void). {REMEDY}"
        )
    return Image.fromarray(indices.astype(np.uint8))


def _read(
    path: Path | str, convert: Callable[[Image.Image], Image.Image], most_pixels: int | None = None
) -> Image.Image:
    """Open, decode and convert; anything that a decoder throws at us means that the file is bad."""
    try:
        # A file's odd metadata is not the user's worry.
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            with Image.open(file, formats=openable_formats()) as image:
                refuse_bombs(image, most_pixels)
                image.load()
                return convert(image)
    except MemoryError:
        raise
    except Exception as error:
        reason = _reason(error)
        raise BadImageError(f"Cannot read image {path}: {reason}. {REMEDY}", reason) from error


def openable_formats() -> list[str]:
    """The formats that are read: all that Pillow knows, except NOT_OPENED."""
    Image.init()
    return [name for name in Image.ID if name not in NOT_OPENED]


def refuse_bombs(image: Image.Image, most_pixels: int | None = None) -> None:
    """Check an opened image before it is unpacked; Pillow only warns of what is not twice too large.

    Raises:
        Image.DecompressionBombError: if it has more than `most_pixels` or, if not given, `Image.MAX_IMAGE_PIXELS`.
    """
    limit = Image.MAX_IMAGE_PIXELS if most_pixels is None else most_pixels
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(
            f"it has {_by(image.size)} pixels, more than the {limit:,} that are taken for a photograph's and not for a "
            "decompression bomb's; make it smaller"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, WHITE)
        return Image.alpha_composite(backdrop, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale a grey image of 16-bit, 32-bit or float values [H,W] to 0..255; PIL itself would clip at 255.

    The range is the type's usual one (16 bits for whole numbers, 0..1 or 0..255 for floats), so that equal values
    look equal in all files; values outside it have no convention and are stretched from least to greatest.
    """
    values = grey.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise ValueError("it holds values that are not finite")
    if low < 0 or high > 65535 or (grey.dtype.kind == "f" and high > 255):
        values, top = values - low, high - low
    elif grey.dtype.kind == "f":
        top = 1.0 if high <= 1 else 255.0
    else:
        top = 65535.0
    scaled: NDArray[np.uint8] = np.round(values * (255 / top if top else 0)).astype(np.uint8)
    return scaled
