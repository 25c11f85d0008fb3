"""COCO comes out as its annotations say: 80 classes, bare images without a class, crowds as void."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from small_data import REAL_DATA, inside, options, real, save_image

from datamodules import VOID, Box, build_datamodule
from datamodules.coco import COCO_CLASSES, _part, _read
from datamodules.images import BadImageError


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def coco_tree(root, names=COCO_CLASSES):
    """Train2014: 20 bare images. Val2014: a cat before a large dog inside a crowd of people; and a bare image."""
    for subset, ids in (("train2014", range(1, 21)), ("val2014", (1, 2))):
        images = [{"id": n, "file_name": f"COCO_{subset}_{n:012d}.jpg", "width": 12, "height": 6} for n in ids]
        for image in images:
            save_image(root / subset / image["file_name"])
        categories = [{"id": 3 * index + 1, "name": name} for index, name in enumerate(names)]
        category = {one["name"]: one["id"] for one in categories}
        annotations = []
        if subset == "val2014":
            whole = {"size": [6, 12], "counts": [0, 72]}
            annotations = [
                {"category_id": category["cat"], "segmentation": box(0, 0, 2, 2), "area": 4, "iscrowd": 0},
                {"category_id": category["dog"], "segmentation": box(0, 0, 6, 6), "area": 36, "iscrowd": 0},
                {"category_id": category["person"], "segmentation": whole, "area": 2, "iscrowd": 1},
                {"category_id": category["dog"], "segmentation": [[1, 1, 2, 2]], "area": 0, "iscrowd": 0},
            ]
            boxes = ([0, 0, 2, 2], [0, 0, 6, 6], [0, 0, 12, 6], [1.5, 1, 0.75, 2])
            annotations = [
                {**one, "bbox": bbox, "id": n, "image_id": 1}
                for n, (one, bbox) in enumerate(zip(annotations, boxes, strict=True), start=1)
            ]
        path = root / "annotations" / f"instances_{subset}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return build_datamodule("coco", options(root))


def test_coco_labels_any_annotation_and_an_image_without_any_has_no_class(tmp_path):
    batch = next(iter(coco_tree(tmp_path).test_dataloader()))
    named = [{COCO_CLASSES[index] for index in row.nonzero().flatten()} for row in batch.labels]
    assert named == [{"cat", "dog", "person"}, set()]
    labels = coco_tree(tmp_path).dataset("test").labels()
    assert labels == [tuple(row.nonzero().flatten().tolist()) for row in batch.labels]
    assert batch.image_id == ("COCO_val2014_000000000001", "COCO_val2014_000000000002")
    assert (batch.mask[1] == 0).all()


def test_coco_paints_small_instances_over_large_ones_and_both_over_a_crowd(tmp_path):
    mask = np.asarray(coco_tree(tmp_path).source("test")[0].mask)
    cat, dog = COCO_CLASSES.index("cat") + 1, COCO_CLASSES.index("dog") + 1
    expected = np.full((6, 12), VOID)
    expected[:, :6] = dog
    expected[:2, :2] = cat
    np.testing.assert_array_equal(mask, expected)


def test_coco_boxes_are_fractions_and_every_label_has_one_crowds_included(tmp_path):
    batch = next(iter(coco_tree(tmp_path).test_dataloader()))
    cat, dog, person = (COCO_CLASSES.index(name) for name in ("cat", "dog", "person"))
    assert batch.boxes == (
        (
            Box(cat, 0, 0, 2 / 12, 2 / 6),
            Box(dog, 0, 0, 6 / 12, 1),
            Box(person, 0, 0, 1, 1),
            Box(dog, 1.5 / 12, 1 / 6, 2.25 / 12, 3 / 6),
        ),
        (),
    )
    assert batch.original_size == ((6, 12),) * 2


def test_coco_images_without_any_annotation_have_no_boxes(tmp_path):
    assert next(iter(coco_tree(tmp_path).val_dataloader())).boxes is None


def test_coco_train_and_val_part_train2014_the_same_way_whatever_the_seed(tmp_path):
    ids = coco_tree(tmp_path).split_ids()
    assert (len(ids["train"]), len(ids["val"]), len(ids["test"])) == (18, 2, 2)
    assert len(set(ids["train"]) | set(ids["val"])) == 20
    assert build_datamodule("coco", options(tmp_path, seed=7)).split_ids() == ids


def test_coco_parts_the_whole_of_train2014_as_ever():
    # By position among 82783 images: should NumPy's stream change, old and new results would not compare.
    images = tuple(range(82783))
    parts = {split: np.array(_part(images, split), np.int32) for split in ("train", "val")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 74505, "val": 8278}
    digests = {split: hashlib.sha256(part.tobytes()).hexdigest()[:16] for split, part in parts.items()}
    assert digests == {"train": "6476fe15d326bc5e", "val": "9854690ad7dc7c7d"}


def test_coco_without_its_test_images_has_no_test_split(tmp_path):
    coco_tree(tmp_path)
    shutil.rmtree(tmp_path / "val2014")  # the archive of annotations holds those of both
    assert sorted(build_datamodule("coco", options(tmp_path)).split_ids()) == ["train", "val"]


def test_coco_prints_nothing(tmp_path, capsys):
    coco_tree(tmp_path).setup("fit")
    assert capsys.readouterr().out == ""


def test_coco_with_other_categories_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 79 categories.*expected COCO's 80.*--dataset folder"):
        coco_tree(tmp_path, COCO_CLASSES[:-1]).setup("fit")


def test_coco_says_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train2014\.json' is missing.*annotations_trainval2014\.zip"):
        build_datamodule("coco", options(tmp_path)).setup("fit")


def test_coco_refuses_an_image_that_is_not_the_annotated_one(tmp_path):
    module = coco_tree(tmp_path)
    save_image(tmp_path / "val2014" / "COCO_val2014_000000000001.jpg", size=(6, 12))
    with pytest.raises(BadImageError, match="is 6x12 pixels but its annotations are for 12x6"):
        module.source("test")[0]


def test_real_coco_has_80_classes_and_masks_of_its_labels():
    root = REAL_DATA / "coco2014_sample"
    module = real("coco", root, "annotations")
    ids = module.split_ids()
    assert module.num_classes == 80
    counts = {split: len(names) for split, names in ids.items()}
    total = counts["train"] + counts["val"]
    assert total == len(_read(root / "annotations" / "instances_train2014.json"))
    assert counts["train"] == round(0.9 * total)
    assert not set(ids["train"]) & set(ids["val"])
    if total == 278:  # the sample that the project's tests use
        assert counts == {"train": 250, "val": 28, "test": 175}
    batch = next(iter(module.dataloader("test" if "test" in ids else "val")))
    for mask, labels, boxes in zip(batch.mask, batch.labels, batch.boxes, strict=True):
        painted = set(mask.unique().tolist()) - {0, VOID}
        present = set(labels.nonzero().flatten().tolist())
        assert painted <= {index + 1 for index in present}
        assert {one.label for one in boxes} == present


def test_real_coco_boxes_cover_the_masks_of_their_class():
    module = real("coco", REAL_DATA / "coco2014_sample", "annotations")
    source = module.source("test" if module.is_available("test") else "val")
    for sample in (source[index] for index in range(20)):
        mask = np.asarray(sample.mask)
        for label in sample.labels:
            painted = mask == label + 1
            # Both are rounded to whole pixels somewhere, so a tiny object may lie half outside its box.
            if painted.sum() > 100:
                assert inside(sample.boxes, label, mask.shape)[painted].mean() > 0.97
