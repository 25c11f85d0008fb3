"""PASCAL VOC comes out as its annotations say, is fetched where absent, and its broken files are named."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets.voc
from PIL import Image
from small_data import REAL_DATA, batches, inside, options, real, save_image

from datamodules import VOID, Box, build_datamodule
from datamodules.annotations import read_annotation
from datamodules.voc import VOC_CLASSES


def voc_tree(root):
    """Train: a dog and a difficult chair; a person with a named head, with mask. Val: the same. No test list.

    The image with the dog has no size in its annotation; the second dog has no box.
    """
    base = root / "VOCdevkit" / "VOC2007"
    for name in ("ImageSets/Main", "Annotations", "SegmentationClass"):
        (base / name).mkdir(parents=True)
    objects = {
        "000001": f"<object><name>dog</name><difficult>0</difficult>{bndbox(1, 1, 12, 6)}</object>"
        f"<object><name>chair</name><difficult>1</difficult>{bndbox(4, 3, 6, 3)}</object>"
        "<object><name>dog</name></object>",
        "000002": f"{SIZE}<object><name>person</name>{bndbox(13, 1, 24, 6)}"
        f"<part><name>head</name>{bndbox(1, 1, 2, 2)}</part></object>",
    }
    for name, xml in objects.items():
        save_image(base / "JPEGImages" / f"{name}.jpg")
        (base / "Annotations" / f"{name}.xml").write_text(f"<annotation>{xml}</annotation>")
    mask = palette_mask([[0] * 6 + [15] * 6] * 3 + [[VOID] * 12] * 3)
    mask.save(base / "SegmentationClass" / "000002.png")
    for split in ("train", "val"):
        (base / "ImageSets" / "Main" / f"{split}.txt").write_text("000001\n000002\n")
    return base


SIZE = "<size><width>24</width><height>12</height><depth>3</depth></size>"
"""Of an annotation made at twice the size of the image."""


def bndbox(*edges):
    names = ("xmin", "ymin", "xmax", "ymax")
    return f"<bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in zip(names, edges, strict=True))}</bndbox>"


def palette_mask(rows):
    mask = Image.fromarray(np.array(rows, np.uint8))
    mask.putpalette([channel for index in range(256) for channel in (index, 255 - index, 7 * index % 256)])
    assert mask.mode == "P"
    return mask


def test_voc_labels_any_listed_object_and_reads_mask_indices(tmp_path):
    voc_tree(tmp_path)
    module = build_datamodule("voc", options(tmp_path))
    batch = next(iter(module.dataloader("train")))
    named = [{VOC_CLASSES[index] for index in row.nonzero().flatten()} for row in batch.labels]
    assert named == [{"dog", "chair"}, {"person"}]
    assert module.dataset("train").labels() == [tuple(row.nonzero().flatten().tolist()) for row in batch.labels]
    assert batch.image_id == ("000001", "000002")
    assert (batch.mask[0] == VOID).all()
    assert batch.mask[1, ::7, ::7].tolist() == [[0, 15], [VOID, VOID]]
    assert VOC_CLASSES[15 - 1] == "person"


def test_voc_boxes_count_pixels_from_1_up_to_and_with_the_last(tmp_path):
    voc_tree(tmp_path)
    batch = next(iter(build_datamodule("voc", options(tmp_path)).dataloader("train")))
    dog, chair, person = (VOC_CLASSES.index(name) for name in ("dog", "chair", "person"))
    # The dog fills the image of 12x6 pixels, the chair pixels 4 to 6 of row 3; the person's are of the 24x12 annotated.
    assert batch.boxes == (
        (Box(dog, 0, 0, 1, 1), Box(chair, 3 / 12, 2 / 6, 6 / 12, 3 / 6, difficult=True)),
        (Box(person, 12 / 24, 0, 1, 6 / 12),),
    )
    assert batch.original_size == ((6, 12),) * 2


def test_voc_takes_a_size_of_0_for_an_unknown_one(tmp_path):
    file = voc_tree(tmp_path) / "Annotations" / "000002.xml"
    file.write_text(file.read_text().replace("<width>24", "<width>0"))
    (box,) = build_datamodule("voc", options(tmp_path)).source("train")[1].boxes
    assert (box.left, box.right, box.bottom) == (1, 2, 1)


def test_voc_without_any_box_has_none(tmp_path):
    for file in (voc_tree(tmp_path) / "Annotations").iterdir():
        file.write_text("<annotation><object><name>cat</name></object></annotation>")
    batch = next(iter(build_datamodule("voc", options(tmp_path)).val_dataloader()))
    assert batch.boxes is None and batch.labels[:, VOC_CLASSES.index("cat")].all()


def test_voc_reads_each_annotation_once(tmp_path, monkeypatch):
    voc_tree(tmp_path)
    read = []
    monkeypatch.setattr("datamodules.voc.read_annotation", lambda file: read.append(file.stem) or read_annotation(file))
    dataset = build_datamodule("voc", options(tmp_path)).dataset("train")
    assert all(dataset[index].boxes for index in (0, 1, 0, 1))
    assert read == ["000001", "000002"]


def test_voc_writes_down_only_splits_on_disk_and_downloads_none_for_that(tmp_path, monkeypatch):
    voc_tree(tmp_path)
    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", lambda *_, **__: pytest.fail())
    assert sorted(build_datamodule("voc", options(tmp_path)).split_ids()) == ["train", "val"]


def test_voc_says_where_its_data_should_lie_when_the_download_fails(tmp_path, monkeypatch):
    def no_net(*_, **__):
        raise URLError("no net")

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", no_net)
    module = build_datamodule("voc", options(tmp_path / "new"))
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded.*no net.*VOCdevkit/VOC2007/.*JPEGImages"):
        module.prepare_data()


def test_voc_downloads_what_is_absent_once(tmp_path, monkeypatch):
    fetched = []

    def fetch(url, root, **_):
        fetched.append(Path(url).name)
        voc_tree(Path(root))

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", fetch)
    module = build_datamodule("voc", options(tmp_path))
    module.prepare_data()
    module.setup("fit")
    assert fetched == ["VOCtrainval_06-Nov-2007.tar"]


def test_voc_test_alone_is_enough_to_test_and_only_its_archive_is_fetched(tmp_path, monkeypatch):
    fetched = []

    def fetch(url, root, **_):
        fetched.append(Path(url).name)
        lists = voc_tree(Path(root)) / "ImageSets" / "Main"
        (lists / "train.txt").rename(lists / "test.txt")
        (lists / "val.txt").unlink()

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", fetch)
    for _ in range(2):
        module = build_datamodule("voc", options(tmp_path))
        module.setup("test")
        assert len(batches(module.dataloader("test"))) == 1
    assert fetched == ["VOCtest_06-Nov-2007.tar"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            None,
            FileNotFoundError,
            r"1 of the 2 files .*train\.txt lists are missing in .*Annotations, first: 000001\.xml",
        ),
        ("<annotation>", ValueError, r"000001\.xml is not valid XML"),
        ("<annotation><object><name>owl</name></object></annotation>", ValueError, "unknown class 'owl'.*aeroplane"),
        (
            f"<annotation><object><name>dog</name>{bndbox(1, 'two', 3, 4)}</object></annotation>",
            ValueError,
            r"000001\.xml is not usable: ymin of a bndbox is 'two', expected a number",
        ),
        ("<annotation><size><width>3</width></size></annotation>", ValueError, "height of a size is '', expected"),
    ],
)
def test_voc_names_a_bad_annotation(tmp_path, text, error, message):
    annotation = voc_tree(tmp_path) / "Annotations" / "000001.xml"
    if text is None:
        annotation.unlink()
    else:
        annotation.write_text(text)
    with pytest.raises(error, match=message):
        build_datamodule("voc", options(tmp_path)).setup("fit")


def test_voc_names_what_a_killed_extraction_left_out(tmp_path):
    base = voc_tree(tmp_path)
    (base / "JPEGImages" / "000002.jpg").unlink()
    message = (
        r"1 of the 2 files .*lists are missing in .*JPEGImages, first: 000002\.jpg\. Unpack .* again.*on_bad_image"
    )
    for ask in ("prepare", "is_available"):
        module = build_datamodule("voc", options(tmp_path))
        with pytest.raises(FileNotFoundError, match=message):
            module.setup("fit") if ask == "prepare" else module.is_available("train")
    skipping = build_datamodule("voc", options(tmp_path, on_bad_image="skip"))
    assert next(iter(skipping.val_dataloader())).skipped == ("000002",)
    for file in (base / "JPEGImages").iterdir():
        file.unlink()
    (base / "JPEGImages").rmdir()
    with pytest.raises(FileNotFoundError, match="2 of the 2 files"):
        build_datamodule("voc", options(tmp_path)).setup("fit")


KNOWN_SAMPLE = {"train": 4149, "val": 437, "test": 209}
"""Images of the sample that the project's tests use; a full VOC has other numbers."""


def test_real_voc_has_the_known_counts_and_masks_of_its_labels():
    module = real("voc", REAL_DATA, "VOCdevkit")
    ids = module.split_ids()
    assert {"train", "val"} <= ids.keys()
    for split in ids:
        listed = (REAL_DATA / "VOCdevkit/VOC2007/ImageSets/Main" / f"{split}.txt").read_text().split()
        assert ids[split] == listed and len(set(listed)) == len(listed)
    assert not set(ids["train"]) & set(ids["val"])
    if {split: len(names) for split, names in ids.items()} == KNOWN_SAMPLE:
        assert len(module.dataset("test").source.masked) == 209
        assert not module.dataset("train").source.has_masks
    split = next(name for name in ("test", "val", "train") if name in ids and module.dataset(name).source.has_masks)
    dataset = module.dataset(split)
    masked = [index for index, name in enumerate(dataset.image_ids) if name in dataset.source.masked][:8]
    for item in (dataset[index] for index in masked):
        painted = set(item.mask.unique().tolist()) - {0, VOID}
        assert painted and painted <= {index + 1 for index in item.labels.nonzero().flatten().tolist()}


def test_real_voc_boxes_cover_the_masks_of_their_class():
    module = real("voc", REAL_DATA, "VOCdevkit")
    source = next((module.source(split) for split in ("test", "val") if module.source(split).has_masks), None)
    if source is None:
        pytest.skip("no image with a mask")
    masked = [index for index, name in enumerate(source.image_ids) if name in source.masked][:40]
    covered = []
    for sample in (source[index] for index in masked):
        mask = np.asarray(sample.mask)
        for label in sample.labels:
            covered.append(inside(sample.boxes, label, mask.shape)[mask == label + 1])
    assert np.concatenate(covered).mean() > 0.98
    assert np.mean([one.mean() > 0.9 for one in covered if len(one)]) > 0.95
