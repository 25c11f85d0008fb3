"""ImageNet's folders: the classes' order is the classifier's, splits come from val/ and train/, and errors say more."""

import pytest
import torch
from small_data import REAL_DATA, batches, options, real, save_image

from datamodules import BadImageError, Box, build_datamodule

WNIDS = ("n02012849", "n01440764", "n03126707")
CLASSES = "0 n02012849 crane\n1 n01440764 tench\n2 n03126707 crane\n"


def tree(root, classes=CLASSES, val=2, train=0, wnids=WNIDS[:2]):
    """So many images of each class; classes.txt in an order of its own."""
    for folder, count in (("val", val), ("train", train)):
        for wnid in wnids:
            for number in range(count):
                save_image(root / folder / wnid / f"{folder}_{wnid[-2:]}_{number}.JPEG", (90 * number, 10, 20))
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return root


def imagenet(root, **changes):
    return build_datamodule("imagenet", options(root, **changes))


def classes_of(root, text):
    (root / "classes.txt").write_text(text)
    return imagenet(root).classes


def test_the_order_of_classes_txt_is_the_order_of_the_outputs(tmp_path):
    module = imagenet(tree(tmp_path))
    assert module.classes == ("crane (n02012849)", "tench", "crane (n03126707)")
    assert module.num_classes == 3 and module.single_label
    (batch,) = batches(module.test_dataloader())
    assert batch.image_id == tuple(f"val/{wnid}/val_{wnid[-2:]}_{n}.JPEG" for wnid in sorted(WNIDS[:2]) for n in (0, 1))
    assert batch.labels.tolist() == [[0, 1, 0]] * 2 + [[1, 0, 0]] * 2
    assert module.dataset("test").labels() == [(1,)] * 2 + [(0,)] * 2
    assert batch.mask is None and batch.cue_mask is None and batch.boxes is None
    assert batch.image.shape == (4, 3, 8, 8), "squashed, as in every data set"
    torch.testing.assert_close(batch.image[1, :, 0, 0], torch.tensor([90.0, 10, 20]) / 255, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "n01440764 great_white_shark\nn02012849\n",
        "0 n01440764 great white shark\n\n1 n02012849\n",
        "\ufeffn01440764 great white shark, white shark, man-eater\r\nn02012849\r\n",
    ],
)
def test_lines_may_have_an_index_a_name_both_or_neither(tmp_path, text):
    (tmp_path / "classes.txt").write_bytes(text.encode())
    assert imagenet(tmp_path).classes == ("great white shark", "n02012849")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tench\ncrane\n", r"classes.txt has the line 'tench'; expected a class as 'n01440764'"),
        ("0\n1\n", "has the line '0'"),
        ("1 n01440764\n2 n02012849\n", "gives n01440764 the index 1, but it is class 0"),
        ("0 n01440764\n2 n02012849\n", "gives n02012849 the index 2, but it is class 1"),
        ("n01440764 a\nn01440764 b\n", "lists n01440764 more than once"),
        ("n01440764\n", r"lists 1 class\(es\); at least two"),
        ("", r"lists 0 class\(es\)"),
    ],
)
def test_a_list_of_classes_that_cannot_be_meant_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        classes_of(tmp_path, text)


def test_all_1000_folders_need_no_list(tmp_path):
    wnids = ["n01440764", *(f"n02{number:06}" for number in range(998)), "n15075141"]
    for wnid in wnids[:-1]:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    (tmp_path / "train" / wnids[-1]).mkdir(parents=True)
    module = imagenet(tmp_path)
    assert module.num_classes == 1000 == len(set(module.classes))
    assert (module.classes[0], module.classes[1], module.classes[999]) == ("tench", "goldfish", "toilet tissue")


@pytest.mark.parametrize("folders", [WNIDS[:2], ()])
def test_fewer_folders_need_a_list_that_says_their_indices(tmp_path, folders):
    tree(tmp_path, None, wnids=folders)
    (tmp_path / "val").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=rf"has {len(folders)} class folders.*no classes.txt.*all 1000 .* else just"):
        imagenet(tmp_path).setup("test")


def test_missing_folders_are_absent_splits_with_what_should_lie_there(tmp_path):
    module = imagenet(tree(tmp_path))
    assert [split for split in ("train", "val", "test") if module.is_available(split)] == ["test"]
    with pytest.raises(FileNotFoundError, match=r"train' is missing, which split 'val' .*val/n01440764/.*classes.txt"):
        module.dataset("val")
    for root in (tmp_path / "nowhere", tmp_path / "val"):
        with pytest.raises(FileNotFoundError, match=r"neither val/ nor train/ in .*--data_root.*val/n01440764"):
            _ = imagenet(root).classes
        assert not imagenet(root).is_available("test") or root.name == "val"


def test_folders_that_are_no_class_are_named(tmp_path):
    module = imagenet(tree(tmp_path, "n01440764\nn09999999\n"))
    with pytest.raises(ValueError, match=r"1 folder\(s\) of '.*val' are no class, first: n02012849. Add them to"):
        module.setup("test")


def test_images_that_lie_flat_are_not_taken_for_an_empty_split(tmp_path):
    (tmp_path / "classes.txt").write_text(CLASSES)
    save_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match=r"val' has no class folders; move each image into the folder of its class"):
        imagenet(tmp_path).setup("test")


def test_train_and_val_divide_the_training_folder(tmp_path):
    root = tree(tmp_path, train=25, val=1)
    ids = imagenet(root).split_ids()
    assert {split: len(names) for split, names in ids.items()} == {"train": 48, "val": 2, "test": 2}
    assert not set(ids["train"]) & set(ids["val"])
    assert ids == imagenet(root, seed=7).split_ids(), "whatever the seed"
    assert [name.split("/")[1] for name in ids["train"]] == sorted(name.split("/")[1] for name in ids["train"])
    batch = next(iter(imagenet(root).train_dataloader()))
    assert (batch.labels.sum(dim=1) == 1).all()


def test_val_is_never_empty(tmp_path):
    ids = imagenet(tree(tmp_path, train=1, val=0)).split_ids()
    assert (len(ids["train"]), len(ids["val"])) == (1, 1)


def test_a_broken_image_is_named_or_skipped(tmp_path):
    root = tree(tmp_path)
    (root / "val" / WNIDS[0] / "val_49_0.JPEG").write_bytes(b"broken")
    (root / "val" / WNIDS[0] / "notes.txt").write_text("no image")
    with pytest.raises(BadImageError, match=r"val_49_0\.JPEG"):
        batches(imagenet(root).test_dataloader())
    (batch,) = batches(imagenet(root, on_bad_image="skip").test_dataloader())
    assert batch.skipped == (f"val/{WNIDS[0]}/val_49_0.JPEG",) and len(batch.image) == 3


def test_the_label_version_knows_the_order(tmp_path):
    versions = []
    for text in (CLASSES, "n01440764 crane\nn02012849 tench\nn03126707 crane\n", "n01440764\nn02012849\nn03126707\n"):
        (tmp_path / "classes.txt").write_text(text)
        versions.append(imagenet(tmp_path).label_version)
    assert versions[0] != versions[1] == versions[2]


def annotation(name, corners=(2, 1, 8, 6), size=(10, 8)):
    edges = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    thing = f"<object><name>{name}</name><bndbox>{edges}</bndbox></object>"
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{thing}{thing}</annotation>"


@pytest.mark.parametrize("folder", ["annotations/val", "annotations/val/n02012849"])
def test_boxes_are_fractions_of_the_size_that_was_annotated(tmp_path, folder):
    root = tree(tmp_path)
    (root / folder).mkdir(parents=True)
    (root / folder / "val_49_1.xml").write_text(annotation("n02012849"))
    dataset = imagenet(root).dataset("test")
    found = {name: dataset.source.boxes(index) for index, name in enumerate(dataset.image_ids)}
    assert found.pop("val/n02012849/val_49_1.JPEG") == (Box(0, 0.2, 0.125, 0.8, 0.75),) * 2
    assert set(found.values()) == {()}
    (batch,) = batches(imagenet(root).test_dataloader())
    assert [len(boxes) for boxes in batch.boxes] == [2 * name.endswith("val_49_1.JPEG") for name in batch.image_id]
    assert (Box(0, 0.2, 0.125, 0.8, 0.75),) * 2 in batch.boxes
    assert batch.original_size == ((6, 12),) * 4, "of the image, which need not be the annotated one"


def test_boxes_of_one_folder_are_not_taken_for_those_of_the_other(tmp_path):
    root = tree(tmp_path, train=25)
    (root / "annotations" / "val").mkdir(parents=True)
    module = imagenet(root)
    assert {split: module.source(split).has_boxes for split in ("train", "val", "test")} == {
        "train": False,
        "val": False,
        "test": True,
    }
    assert next(iter(module.test_dataloader())).boxes == ((),) * 4
    assert next(iter(module.val_dataloader())).boxes is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not valid XML"),
        (annotation("n09999999"), "its class 'n09999999' is not in the list"),
        (annotation("n02012849", size=(0, 0)), "it states no size"),
        (annotation("n02012849", corners=("", 1, 2, 3)), "xmin of a bndbox is '', expected a number"),
        ("<annotation/>", "it states no size"),
    ],
)
def test_a_bad_annotation_is_named_or_its_image_skipped(tmp_path, text, message):
    root = tree(tmp_path)
    (root / "annotations" / "val").mkdir(parents=True)
    (root / "annotations" / "val" / "val_49_0.xml").write_text(text)
    source = imagenet(root).dataset("test").source
    with pytest.raises(ValueError, match=rf"val_49_0\.xml.*{message}.*--on_bad_image skip"):
        source.boxes(source.image_ids.index("val/n02012849/val_49_0.JPEG"))
    with pytest.raises(BadImageError, match=message):
        batches(imagenet(root).test_dataloader())
    (batch,) = batches(imagenet(root, on_bad_image="skip").test_dataloader())
    assert batch.skipped == ("val/n02012849/val_49_0.JPEG",) and len(batch.boxes) == 3


def test_the_real_sample_has_the_standard_classes_and_images_of_their_folders():
    module = real("imagenet", REAL_DATA / "imagenet_sample", "val")
    assert module.num_classes == 1000
    assert (module.classes[0], module.classes[2], module.classes[999]) == (
        "tench",
        "great white shark",
        "toilet tissue",
    )
    assert module.classes[134] == "crane (n02012849)" and len(set(module.classes)) == 1000
    dataset = module.dataset("test")
    assert len(dataset) == 500
    wnids = [line.split()[1] for line in (REAL_DATA / "imagenet_sample/classes.txt").read_text().splitlines()]
    for index in (0, 250, 499):
        item = dataset[index]
        assert item.image.shape == (3, 64, 64) and item.labels.sum() == 1
        assert item.image_id.split("/")[1] == wnids[int(item.labels.argmax())]
    assert not module.is_available("train")
