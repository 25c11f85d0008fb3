"""The gallery: which maps it wants, and that each small picture shows what it says."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from toy_models import SIZE, SmallNet, freeze
from toy_tables import make_images, noise, own_scores, scores_of

from datamodules.batch import VOID
from explainer.evaluation.tables import GalleryOptions, GalleryTable
from explainer.evaluation.tiles import THUMBNAIL, thumbnail
from explainer.report.evaluation import write_files
from explainer.report.page_data import open_results
from explainer.report.page_gallery import read_gallery

CAT, DOG, HEN = range(3)
LOGITS = [[0.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
LABELS = [[CAT, DOG], [CAT], []]
ASKED = [[CAT, DOG, HEN], [CAT], [HEN]]
"""The present classes and the one of the largest logit."""
NEAR = 12 / 255
"""WebP loses something."""


@pytest.fixture
def table():
    return GalleryTable(freeze(SmallNet()), GalleryOptions())


@pytest.fixture
def scenes(table):
    """Of the first image the left quarter is dog, the right one cat, the last row void; the others have no truth."""
    mask = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    mask[0, :, : SIZE // 4], mask[0, :, -SIZE // 4 :] = DOG + 1, CAT + 1
    mask[0, -1] = VOID
    mask[1:] = VOID
    images = make_images(table.explanandum, noise(3, 3, SIZE, SIZE), LABELS, mask=mask)
    images.logits = torch.tensor(LOGITS)
    return images


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) / 255


def test_it_asks_for_the_present_classes_and_the_predicted_one(table, scenes):
    pairs = [[image, target] for image, classes in enumerate(ASKED) for target in classes]
    assert table.asks(scenes).nonzero().tolist() == pairs
    found = list(scores_of(table, scenes, noise(3, 3, SIZE, SIZE)).flat)
    names = table.explanandum.card.classes
    assert [row["class"] for row in found] == [names[target] for _, target in pairs]
    assert [row["present"] for row in found] == [int(target in LABELS[image]) for image, target in pairs]
    expected = torch.tensor(LOGITS).sigmoid()
    assert [row["probability"] for row in found] == pytest.approx(
        [float(expected[image, target]) for image, target in pairs]
    )


def test_each_picture_is_its_own_map_and_the_share_is_that_on_its_class(table, scenes):
    maps = torch.zeros(3, 3, SIZE, SIZE)
    maps[0, DOG, :, : SIZE // 4] = 1  # all of it on the dog
    maps[0, CAT, :, : SIZE // 2] = 1  # none of it on the cat
    maps[0, HEN] = 1
    rows = {(row["image"], row["class"]): row for row in scores_of(table, scenes, maps, unit_range=True).flat}
    dog, cat, hen = (rows["image0", name] for name in ("dog", "cat", "hen"))
    assert (dog["on_target"], cat["on_target"], hen["on_target"]) == (1, 0, None)
    picture = decoded(dog["tile"])
    picture = picture if picture.ndim == 2 else picture[..., 0]
    assert np.abs(picture - maps[0, DOG].numpy()).mean() < NEAR


def test_the_photograph_stands_once_an_image_and_the_truth_only_where_it_is_known(table, scenes):
    photographs = own_scores(table, scenes, "photograph")
    assert [len(rows) for rows in photographs.rows.values()] == [1, 1, 1]
    truths = own_scores(table, scenes, "ground_truth")
    assert [len(rows) for rows in truths.rows.values()] == [3, 0, 0]
    scenes.batch = scenes.batch._replace(mask=None)
    assert [len(rows) for rows in own_scores(table, scenes, "ground_truth").rows.values()] == [0, 0, 0]


def test_what_the_table_writes_is_what_the_page_reads(table, scenes, tmp_path):
    scores = [scores_of(table, scenes, noise(3, 3, SIZE, SIZE), name="some method")]
    scores += [own_scores(table, scenes, name) for name in table.own_rows]
    files = table.summarise(scores)
    assert [row["method"] for row in files["gallery"]] == ["some method"]
    write_files(files, tmp_path)
    gallery = read_gallery(open_results([tmp_path]))
    assert [picked.name for picked in gallery] == ["image0", "image1", "image2"]
    assert [list(picked.maps["some method"]) for picked in gallery] == [
        [table.explanandum.card.classes[target] for target in classes] for classes in ASKED
    ]
    assert "ground_truth" in gallery[0].maps
    assert "ground_truth" not in gallery[1].maps
    assert not (tmp_path / "gallery_tiles.md").exists()


def test_a_thumbnail_is_small_and_keeps_the_shape():
    picture = decoded(thumbnail(torch.rand(3, 480, 640)))
    assert picture.shape == (120, THUMBNAIL, 3)


def test_a_gallery_without_images_is_refused():
    with pytest.raises(ValueError, match="gallery.images is 0; give at least 1"):
        GalleryOptions(images=0)
