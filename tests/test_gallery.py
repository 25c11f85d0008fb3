"""The page of all methods: the pictures show maps as they are, and the columns are picked evenly.

H×W pixels of an image; a map lies in [0, 1].
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from docs import methods_page
from explainer.attribution import METHODS
from explainer.report.gallery import (
    CAPTION,
    FOOTER,
    GAP,
    HEAT,
    LABEL,
    OTHERS,
    TILE,
    Column,
    Row,
    caption_of,
    draw_gallery,
    heat,
    overlay,
    shortened,
    text_width,
    truth_shades,
    wrapped,
)

SIZE = 24
GREY = 0.4
DARKEST, LIGHTEST = heat(np.zeros(1))[0], heat(np.ones(1))[0]


def column(caption="cat 0.90", truth=None):
    return Column(np.full((SIZE, SIZE, 3), GREY), caption, truth)


def flat(value):
    return np.full((SIZE, SIZE), value)


def tiles(picture, columns):
    """The tiles of a gallery [rows][columns] without labels, captions and gaps."""
    step = TILE + GAP
    left = picture.shape[1] - columns * step
    tops = range(CAPTION, picture.shape[0] - FOOTER, step)
    return [[picture[y : y + TILE, left + x * step : left + x * step + TILE] for x in range(columns)] for y in tops]


def tile_rows(file):
    """How many rows of tiles a saved gallery has."""
    with Image.open(file) as picture:
        return (picture.height - CAPTION - FOOTER) / (TILE + GAP)


def colours(tile):
    return {tuple(colour) for colour in tile.reshape(-1, 3).tolist()}


def test_there_is_a_tile_for_each_method_and_column_below_the_photographs():
    picture = draw_gallery([column(), column(), column()], [Row("rise", [], [flat(0.0)] * 3)] * 2)
    assert picture.dtype == np.uint8
    drawn = tiles(picture, 3)
    assert [len(row) for row in drawn] == [3, 3, 3]
    assert all(colours(tile) == {(102, 102, 102)} for tile in drawn[0])


def test_the_ground_truth_is_drawn_where_it_is_known():
    half = np.zeros((SIZE, SIZE), bool)
    half[:, : SIZE // 2] = True
    nothing = np.zeros_like(half)
    columns = [column(truth=truth_shades(half, ~half)), column(truth=truth_shades(half, nothing)), column()]
    _, truth, _ = tiles(draw_gallery(columns, [Row("rise", [], [flat(0.0)] * 3)]), 3)
    corners = [(tile[0, 0, 0], tile[0, -1, 0]) for tile in truth]
    assert corners == [(255, round(255 * OTHERS)), (255, 0), (255, 255)]


@pytest.mark.parametrize(("value", "colour"), [(0.0, DARKEST), (1.0, LIGHTEST)])
def test_a_map_is_drawn_as_it_is_also_a_flat_one(value, colour):
    expected = 255 * (HEAT * colour + (1 - HEAT) * GREY)
    tile = overlay(flat(value), column().photograph)
    assert tile.shape == (TILE, TILE, 3)
    assert np.abs(tile - expected).max() <= 1


def test_a_method_without_a_map_leaves_a_white_tile_that_says_so_and_the_others_their_place():
    _, (first, second) = tiles(draw_gallery([column(), column()], [Row("rise", [], [None, flat(0.0)])]), 2)
    assert tuple(first[0, 0]) == (255, 255, 255) and first.min() < 128
    assert (second == overlay(flat(0.0), column().photograph)).all()


def test_what_matters_more_is_lighter():
    lightness = [overlay(flat(value), column().photograph).mean() for value in np.linspace(0, 1, 11)]
    assert lightness == sorted(lightness) and lightness[-1] > 2 * lightness[0]


def test_a_label_has_the_room_that_it_needs():
    def width(*details):
        return draw_gallery([column()], [Row("rise", list(details), [flat(0.0)])]).shape[1]

    assert width("a") == width() < width("a_long_word_" * 3) < width("a_long_word_" * 4)
    assert width("many short words " * 5) <= LABEL + 4 * GAP + TILE


def test_a_long_label_goes_on_in_the_next_line():
    text = "one two_two_two_two_two_two three four five six seven eight"
    lines = wrapped(text, 80)
    assert " ".join(lines) == text
    assert lines[:2] == ["one", "two_two_two_two_two_two"] and 4 <= len(lines) < 8


def test_a_caption_wider_than_its_tile_is_shortened():
    assert shortened("cat", TILE) == "cat"
    short = shortened("cat " * 50, TILE)
    assert short.startswith("cat cat") and short.endswith("…") and len(short) < 40
    assert shortened("cat", 0) == "…"


def test_a_caption_keeps_its_probability_however_long_the_name_is():
    assert caption_of("cat", 0.987) == "cat 0.99"
    long = caption_of("American egret, great white heron, Egretta albus", 0.05)
    assert long.startswith("American") and long.endswith("… 0.05")
    assert shortened(long, TILE) == long


def test_a_row_with_too_few_maps_is_an_error():
    with pytest.raises(ValueError, match="longer than argument 1"):
        draw_gallery([column(), column()], [Row("rise", [], [flat(0.0)])])


def labels(*classes):
    """Multi-hot labels of images with these classes, of 4."""
    found = torch.zeros(len(classes), 4)
    for row, present in zip(found, classes, strict=True):
        row[list(present)] = 1
    return found


def test_one_image_comes_from_each_section_and_only_the_first_with_two_classes_comes_twice():
    candidates = labels((0,), (0,), (1, 2), (3,), (1, 3), (0, 1), (2,), (2, 3))
    for seed in range(20):
        pairs = methods_page.pick(candidates, 4, seed)
        images = [image for image, _ in pairs]
        assert [image // 2 for image in images] == [0, 1, 1, 2, 3]
        assert images[1] == images[2] == 2
        assert len(set(pairs)) == 5
        assert all(candidates[image, target] for image, target in pairs)


def test_classes_that_are_not_shown_yet_go_first():
    for seed in range(20):
        pairs = methods_page.pick(labels((0, 1), (0, 2), (1, 3), (0, 1, 2, 3)), 3, seed)
        assert sorted(target for _, target in pairs) == [0, 1, 2, 3]


def test_the_choice_is_repeatable_and_depends_on_the_seed():
    candidates = labels(*[(index % 4,) for index in range(40)])
    picks = [methods_page.pick(candidates, 4, seed) for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]


def test_images_without_a_class_are_passed_over():
    assert methods_page.pick(labels((), (3,), (), ()), 2, seed=0) == [(1, 3)]
    assert methods_page.pick(labels((2,)), 5, seed=0) == [(0, 2)]
    with pytest.raises(ValueError, match="None of the images has a class"):
        methods_page.pick(labels((), ()), 2, seed=0)


def test_without_named_methods_the_page_has_all():
    assert [spec.name for spec in methods_page.chosen_specs([], 96)] == list(METHODS)


def test_lengths_shrink_with_the_image_and_never_grow():
    specs = {spec.name: spec.options for spec in methods_page.chosen_specs([], 96)}
    assert specs["pami_window"] == {"radius": 17, "step": 3}
    assert specs["group_cam"] == {"kernel_size": 21, "sigma": 21}
    assert specs["occlusion"] == {"window": 17, "step": 3}
    assert specs["rise"] == {}
    assert not any(spec.options for size in (224, 448) for spec in methods_page.chosen_specs([], size))


def test_many_methods_are_spread_over_several_pictures(tmp_path):
    rows = [Row(str(number), [], [flat(0.5)]) for number in range(25)]
    files = methods_page.save_pictures([column()], rows, tmp_path / "methods.webp")
    assert [file.name for file in files] == ["methods.webp", "methods_2.webp", "methods_3.webp"]
    assert [tile_rows(file) for file in files] == [9, 9, 10]


def test_the_page_in_the_repository_has_a_row_for_every_method():
    page = (Path(methods_page.__file__).parent / "methods.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(METHODS), "Write the page anew: python docs/methods_page.py --run RUN"


def written_page(run, folder, images, *methods):
    arguments = ["--run", run, "--images", images, "--output", folder, "--methods", *methods]
    page = methods_page.main([str(argument) for argument in arguments])
    assert page == folder / "methods.md"
    return page.read_text()


def test_the_page_of_a_run(small_run, tmp_path):
    text = written_page(small_run, tmp_path, 2, "explainer", "grad_cam", "group_cam:groups=4")
    arguments = "--run runs/run --images 2 --methods explainer grad_cam group_cam:groups=4"
    assert f"\npython docs/methods_page.py {arguments}\n" in text
    assert str(tmp_path) not in text and str(small_run) not in text
    assert "![Maps of the methods, a row each](methods.webp)" in text
    assert "- `group_cam:groups=4`" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0] == "| name | paper | passes per image and class | what |"
    assert [line.split("`")[1] for line in table[2:]] == ["explainer", "grad_cam", "group_cam"]
    assert tile_rows(tmp_path / "methods.webp") == 2 + 3


def test_a_method_that_cannot_explain_the_classifier_is_named_with_the_reason(small_run, tmp_path):
    text = written_page(small_run, tmp_path, 1, "center", "grad_cam:target_layer=fc")
    assert "No picture of `grad_cam`: A CAM method needs a layer that gives maps" in text
    assert tile_rows(tmp_path / "methods.webp") == 2 + 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_scale_has_its_label_whole_however_few_columns_there_are(count):
    columns = [Column(np.ones((4, 4, 3)), "cat")] * count
    footer = draw_gallery(columns, [Row("rise", [], [np.ones((4, 4))] * count)])[-18:]
    dark = (footer < 100).all(axis=2).any(axis=0).nonzero()[0]
    letters = text_width("1: matters most")
    assert dark[-1] - dark[dark > dark[-1] - letters][0] >= letters - 4  # as wide as it is, and not cut at the edge
    assert dark[-1] < footer.shape[1] - 1
