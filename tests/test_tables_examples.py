"""The examples: each picture shows what it says, of the class that it says, and a stale file spoils no evaluation.

H×W pixels.
"""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toy_models import SIZE, SmallNet, card, freeze
from toy_tables import cells, have_equal_columns, make_images, noise, own_scores, scores_of

from datamodules.batch import VOID
from explainer.evaluation.tables import ExamplesOptions, ExamplesTable
from explainer.evaluation.tables.examples import tile
from explainer.explanandum import Explanandum
from explainer.report.evaluation import write_files, write_plots
from explainer.report.examples import plot_examples
from explainer.report.gallery import CAPTION, FOOTER, GAP, OTHERS, TILE
from explainer.report.tables import read_table

CAT, DOG, HEN = range(3)
LOGITS = [[0.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
LABELS = [[CAT, DOG], [HEN], []]
ASKED = [DOG, HEN, HEN]
"""The present class with the largest logit; of the image without a label the predicted one."""


def table_of(explanandum=None, **options):
    return ExamplesTable(explanandum or freeze(SmallNet()), ExamplesOptions(**options))


def scenes(table, **facts):
    """Three images; of the first, with cat and dog, the left quarter is dog, the right one cat, the last row void."""
    mask = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    mask[0, :, : SIZE // 4], mask[0, :, -SIZE // 4 :] = DOG + 1, CAT + 1
    mask[0, -1] = VOID
    mask[1] = VOID
    images = make_images(table.explanandum, noise(3, 3, SIZE, SIZE), LABELS, **{"mask": mask, **facts})
    images.logits = torch.tensor(LOGITS)
    return images


def maps_of(values):
    """One map [H,W] for all images and classes."""
    return values.expand(3, 3, SIZE, SIZE)


def left(share):
    """A map of ones on that share of the width, from the left, else zero."""
    values = torch.zeros(SIZE, SIZE)
    values[:, : int(share * SIZE)] = 1
    return values


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def pictures(scores):
    return {row["image"]: decoded(row["tile"]) for row in scores.flat}


def test_it_asks_for_the_likeliest_of_the_present_classes_and_for_the_predicted_one_without_a_label():
    table = table_of()
    images = scenes(table)
    assert table.asks(images).nonzero().tolist() == [[index, target] for index, target in enumerate(ASKED)]
    assert table.left_out(images) == ["", "", ""]
    found = list(scores_of(table, images, noise(3, 3, SIZE, SIZE)).flat)
    assert [row["class"] for row in found] == ["dog", "hen", "hen"]
    expected = torch.tensor(LOGITS).sigmoid()[range(3), ASKED].tolist()
    assert [row["probability"] for row in found] == pytest.approx(expected)


def test_a_few_images_are_shown_but_not_none():
    assert table_of(images=4).limit == 4
    with pytest.raises(ValueError, match="examples.images is 0; give at least 1"):
        ExamplesOptions(images=0)


def test_the_map_is_shown_scaled():
    table = table_of()
    raw = torch.linspace(-3, 5, SIZE).expand(SIZE, SIZE)
    shown = pictures(scores_of(table, scenes(table), maps_of(raw)))["image0"]
    assert (shown == (255 * np.linspace(0, 1, SIZE)).round()[None]).all()
    mask = torch.full((SIZE, SIZE), 0.5)
    assert (pictures(scores_of(table, scenes(table), maps_of(mask), unit_range=True))["image0"] == 128).all()


def test_the_photograph_is_shown_as_it_was_before_it_was_normalised():
    mean, std = (0.2, 0.4, 0.6), (0.5, 0.25, 2.0)
    table = table_of(Explanandum(SmallNet(), replace(card(), mean=mean, std=std)))
    photograph = noise(3, 3, SIZE, SIZE)
    images = scenes(table)
    normalised = (photograph - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    images.batch = images.batch._replace(image=normalised)
    shown = pictures(own_scores(table, images, "photograph"))
    for index in range(3):
        expected = 255 * photograph[index].permute(1, 2, 0).numpy()
        assert np.abs(shown[f"image{index}"] - expected).max() <= 0.51


def test_of_the_ground_truth_the_target_is_white_others_are_grey_and_void_is_nothing():
    table = table_of()
    shown = pictures(own_scores(table, scenes(table), "ground_truth"))
    assert list(shown) == ["image0", "image2"]  # the second has no mask
    assert shown["image0"][0, [0, SIZE // 2, -1]].tolist() == [255, 0, round(255 * OTHERS)]
    assert not shown["image0"][-1].any() and not shown["image2"].any()
    assert not pictures(own_scores(table, scenes(table, mask=None), "ground_truth"))


@pytest.mark.parametrize("values, share", [(left(1 / 4), 1.0), (left(1 / 2), 0.5), (1 - left(1 / 4), 0.0)])
def test_the_share_on_the_target_is_that_of_the_map_and_a_flat_map_has_the_targets_area(values, share):
    table = table_of()
    first, second, third = scores_of(table, scenes(table), maps_of(values), unit_range=True).flat
    assert cells(first, "on_target", "target_area") == pytest.approx([share, 0.25])
    for row in (second, third):  # no mask, and a mask in which the class is not
        assert cells(row, "on_target", "target_area") == [None, None]


def test_void_counts_for_nothing_and_an_empty_map_has_no_share():
    table = table_of()
    only_void = torch.zeros(SIZE, SIZE)
    only_void[-1] = 1
    for values in (only_void, torch.zeros(SIZE, SIZE)):
        first = next(iter(scores_of(table, scenes(table), maps_of(values), unit_range=True).flat))
        assert cells(first, "on_target", "target_area") == [None, 0.25]
    with_void = torch.maximum(only_void, left(1 / 4))
    first = next(iter(scores_of(table, scenes(table), maps_of(with_void), unit_range=True).flat))
    assert first["on_target"] == 1.0


@pytest.mark.parametrize("size, expected", [((448, 448), (120, 120)), ((224, 448), (60, 120)), ((32, 48), (32, 48))])
def test_a_tile_is_made_smaller_never_larger_and_keeps_the_mean(size, expected):
    picture = torch.zeros(1, *size)
    picture[:, ::2, ::2] = 1
    shown = decoded(tile(picture))
    assert shown.shape == expected
    assert shown.mean() == pytest.approx(255 / 4, abs=2)


def test_readers_get_numbers_without_pictures_and_the_picture_has_all(tmp_path):
    table, scores = example_scores()
    assert have_equal_columns(*scores)
    files = table.summarise(scores)
    assert list(files) == ["examples", "examples_tiles"]
    names = ["method", "image", "class", "probability", "on_target", "target_area"]
    assert all(list(row) == names for row in files["examples"])
    assert [cells(row, "method", "image", "class") for row in files["examples"]] == [
        [one.method, f"image{index}", name] for one in scores[:2] for index, name in enumerate(("dog", "hen", "hen"))
    ]
    assert cells(files["examples"][0], "on_target", "target_area") == pytest.approx([50, 25])
    (main,) = table.main_rows(scores[:1])
    assert cells(main, "method", "on_target", "images", "failed") == ["rise", pytest.approx(50), 3, 0]
    write_files(files, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "examples.csv", "examples.md", "examples.tex", "examples_tiles.csv",
    }  # fmt: skip


def test_a_method_that_failed_throughout_keeps_its_rows_in_the_order_of_the_images(tmp_path):
    """Or there would be no table to print where all have failed."""
    table, (_, other, *own) = example_scores()
    other.rows = {}
    for scores in ([other, *own], [own[1], other, own[0]]):
        files = table.summarise(scores)
        assert [cells(row, "image", "on_target") for row in files["examples"]] == [
            [f"image{index}", None] for index in range(3)
        ]
        assert len(drawn(tmp_path, scores, table)) == 3


def example_scores():
    """Two methods, the second of which has failed on all images but the first, and the table's own rows."""
    table = table_of()
    images = scenes(table)
    rise = scores_of(table, images, maps_of(left(1 / 2)), "rise")
    other = scores_of(table, images, maps_of(left(1)), "grad_cam:target_layer=x", unit_range=True)
    other.rows = {"image0": other.rows["image0"]}
    other.failed = {"image1": "why", "image2": "why"}
    own = [own_scores(table, images, name) for name in table.own_rows]
    return table, [rise, other, *own]


def drawn(folder, scores, table):
    """The tiles [rows][columns] of the picture."""
    write_files(table.summarise(scores), folder)
    write_plots(folder)
    with Image.open(folder / "examples_tiles.png") as picture:
        pixels = np.asarray(picture)
    step = TILE + GAP
    start = pixels.shape[1] - 3 * step
    tops = range(CAPTION, pixels.shape[0] - FOOTER, step)
    return [[pixels[top : top + TILE, start + x * step : start + x * step + TILE] for x in range(3)] for top in tops]


def test_the_picture_has_photographs_truths_and_a_row_for_each_method_with_gaps(tmp_path):
    table, scores = example_scores()
    photographs, truths, rise, other = drawn(tmp_path, scores, table)
    assert photographs[0].std() > 20
    assert [truth[0, 0, 0] for truth in truths] == [255, 255, 0]  # dog, unknown, no hen
    lightness = rise[0].mean(axis=(0, 2))
    assert lightness[: TILE // 3].min() > lightness[-TILE // 3 :].max()
    blank = [(one[:10] == 255).all() for one in other]
    assert blank == [False, True, True]


def test_a_picture_without_ground_truth_and_with_names_that_look_like_numbers(tmp_path):
    table = table_of(freeze(SmallNet(), classes=("1", "2", "3")))
    images = scenes(table, mask=None)
    images.batch = images.batch._replace(image_id=("12", "007", "1e5"))
    scores = [scores_of(table, images, noise(3, 3, SIZE, SIZE)), own_scores(table, images, "photograph")]
    scores += [own_scores(table, images, "ground_truth")]
    assert len(drawn(tmp_path, scores, table)) == 2


def test_a_table_without_rows_is_removed_with_its_picture(tmp_path):
    table, scores = example_scores()
    drawn(tmp_path, scores, table)
    write_files({"examples": [], "examples_tiles": []}, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, message",
    [
        ("method,image,map\nrise,a,b\n", "lacks the columns class, probability, tile; it has method, image, map"),
        ("method,image,class,probability,tile\nphotograph,a,cat,0.5,iVBORw0K\n", "no picture in base64"),
        ("method,image,class,probability,tile\n", "has no rows"),
        ("method,image,class,probability,tile\nrise,a,cat,0.5,\n", "lacks photographs: it has 0 of 1"),
    ],
)
def test_a_file_that_can_not_be_drawn_is_told_and_the_other_figures_are_drawn(tmp_path, capsys, text, message):
    table, scores = example_scores()
    (tmp_path / "masking.csv").write_text("method,from an older version\nrise,1\n")
    drawn(tmp_path, scores, table)
    assert "No figure of masking: " in capsys.readouterr().out
    (tmp_path / "examples_tiles.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        plot_examples(tmp_path / "examples_tiles.csv", tmp_path / "examples_tiles.png")
    write_plots(tmp_path)
    assert message in capsys.readouterr().out


def test_the_tiles_survive_the_csv_file(tmp_path):
    table, scores = example_scores()
    rows = table.summarise(scores)["examples_tiles"]
    write_files({"examples_tiles": rows}, tmp_path)
    assert [row["tile"] for row in read_table(tmp_path / "examples_tiles.csv")] == [row["tile"] for row in rows]
