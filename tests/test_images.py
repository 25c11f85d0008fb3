"""Files of every kind come out as the picture that a person would see, or as an error that names them."""

import numpy as np
import pytest
from PIL import Image

from datamodules.images import BadImageError, load_image, load_mask

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(path, **options):
    """Load a file and return its pixels as rows of RGB tuples."""
    image = load_image(path, **options)
    assert image.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(image).tolist()]


def test_grey_and_bilevel_keep_their_brightness(tmp_path):
    Image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "bilevel.png")
    assert pixels(tmp_path / "grey.png") == [[(0,) * 3, (128,) * 3, (255,) * 3]]
    assert pixels(tmp_path / "bilevel.png") == [[(0,) * 3, WHITE]]


def palette_image():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([*RED, *GREEN, *BLUE])
    return image


def test_a_palette_gives_its_colours_and_its_transparent_entry_white(tmp_path):
    palette_image().save(tmp_path / "opaque.png")
    palette_image().save(tmp_path / "clear.png", transparency=1)
    palette_image().save(tmp_path / "bytes.png", transparency=bytes([0, 255, 255]))
    assert pixels(tmp_path / "opaque.png") == [[RED, GREEN, BLUE]]
    assert pixels(tmp_path / "clear.png") == [[RED, WHITE, BLUE]]
    assert pixels(tmp_path / "bytes.png") == [[WHITE, GREEN, BLUE]]


def test_transparent_pixels_lie_over_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(rgba[..., 2:], "LA").save(tmp_path / "la.png")
    assert pixels(tmp_path / "rgba.png") == [[RED, WHITE, (204,) * 3]]  # 1/5 black over 4/5 white
    assert pixels(tmp_path / "la.png") == [[(0,) * 3, WHITE, (204,) * 3]]


def test_a_colour_key_counts_as_transparency(tmp_path):
    Image.fromarray(np.array([[RED, GREEN]], np.uint8)).save(tmp_path / "keyed.png", transparency=GREEN)
    assert pixels(tmp_path / "keyed.png") == [[RED, WHITE]]


def test_cmyk_inks_become_light(tmp_path):
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[..., 1:3] = 255  # magenta and yellow make red
    Image.fromarray(inks, "CMYK").save(tmp_path / "inks.jpg", quality=100)
    assert np.abs(np.array(pixels(tmp_path / "inks.jpg")[4][4]) - RED).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], np.uint16)).save(tmp_path / f"deep.{suffix}")
    assert pixels(tmp_path / f"deep.{suffix}") == [[(0,) * 3, (1,) * 3, (128,) * 3, WHITE]]


def test_32_bit_files_are_scaled_as_16_bits_if_they_fit_else_stretched(tmp_path):
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(tmp_path / "fits.tif")
    Image.fromarray(np.array([[-100, 100, 155]], np.int32)).save(tmp_path / "signed.tif")
    assert pixels(tmp_path / "fits.tif") == [[(0,) * 3, WHITE]]
    assert pixels(tmp_path / "signed.tif") == [[(0,) * 3, (200,) * 3, WHITE]]


@pytest.mark.parametrize("values", [(0, 0.2, 1), (0, 51, 255), (-1e6, -6e5, 1e6)])
def test_float_files_have_a_sensible_range(tmp_path, values):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "float.tif")
    assert pixels(tmp_path / "float.tif") == [[(0,) * 3, (51,) * 3, WHITE]]


def test_a_flat_or_black_deep_file_is_no_division_by_zero(tmp_path):
    Image.fromarray(np.full((1, 1), -7, np.int32)).save(tmp_path / "flat.tif")
    assert pixels(tmp_path / "flat.tif") == [[(0,) * 3]]


def test_not_a_number_is_a_bad_image(tmp_path):
    Image.fromarray(np.array([[np.nan, 1]], np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(BadImageError, match=r"nan\.tif.*not finite"):
        load_image(tmp_path / "nan.tif")


def test_exif_orientation_turns_the_image_unless_told_not_to(tmp_path):
    image = Image.fromarray(np.array([[RED, GREEN]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    assert pixels(tmp_path / "turned.png") == [[RED], [GREEN]]
    assert pixels(tmp_path / "turned.png", use_exif=False) == [[RED, GREEN]]


def write_bad_files(folder):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in ("jpg", "png"):
        Image.fromarray(noise).save(folder / f"whole.{suffix}")
        whole = (folder / f"whole.{suffix}").read_bytes()
        (folder / f"truncated.{suffix}").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no image")
    (folder / "folder.jpg").mkdir()


@pytest.mark.parametrize(
    "name", ["truncated.jpg", "truncated.png", "empty.jpg", "text.jpg", "folder.jpg", "missing.jpg"]
)
def test_a_bad_file_is_named_with_a_remedy(tmp_path, name):
    write_bad_files(tmp_path)
    with pytest.raises(BadImageError, match=rf"{name}.*--on_bad_image skip"):
        load_image(tmp_path / name)


def test_a_decompression_bomb_is_refused_from_where_pil_only_warns(tmp_path, monkeypatch):
    Image.new("L", (10, 15)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    assert load_image(tmp_path / "large.png").size == (10, 15)
    for limit in (149, 50):  # PIL itself refuses from twice as many on
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(BadImageError, match=r"large\.png.*bomb"):
            load_image(tmp_path / "large.png")


def test_a_picture_that_is_a_program_is_not_run(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "drawing.eps")
    with pytest.raises(BadImageError, match="not an image of a known format"):
        load_image(tmp_path / "drawing.eps")


def test_a_mask_keeps_its_indices_whatever_the_palette_says(tmp_path):
    mask = Image.fromarray(np.array([[0, 15, 255]], np.uint8))
    mask.putpalette([channel for index in range(256) for channel in (255 - index, index, 0)])
    assert mask.mode == "P"
    mask.save(tmp_path / "palette.png")
    Image.fromarray(np.array([[0, 15, 255]], np.uint8)).save(tmp_path / "grey.png")
    for name in ("palette.png", "grey.png"):
        loaded = load_mask(tmp_path / name, (3, 1))
        assert (loaded.mode, np.asarray(loaded).tolist()) == ("L", [[0, 15, 255]])


def test_a_mask_of_another_size_is_named_together_with_its_image(tmp_path):
    palette_image().save(tmp_path / "mask.png")
    with pytest.raises(BadImageError, match=r"mask\.png is 3x1 but photo\.jpg is 4x1"):
        load_mask(tmp_path / "mask.png", (4, 1), "photo.jpg")


def test_a_mask_of_colours_is_refused(tmp_path):
    palette_image().convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(BadImageError, match=r"colours\.png has mode RGB; expected one channel"):
        load_mask(tmp_path / "colours.png", (3, 1))
