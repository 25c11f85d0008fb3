"""PASCAL VOC comes out as its annotations say, is fetched where absent, and its broken files are named."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets.voc
from PIL import Image
from small_data import REAL_DATA, options, real, save_image

from datamodules import VOID, build_datamodule
from datamodules.voc import VOC_CLASSES


def voc_tree(root):
    """Train: a dog and a difficult chair; a person with a named head, with mask. Val: the same. No test list."""
    base = root / "VOCdevkit" / "VOC2007"
    for name in ("ImageSets/Main", "Annotations", "SegmentationClass"):
        (base / name).mkdir(parents=True)
    objects = {
        "000001": "<object><name>dog</name><difficult>0</difficult></object>"
        "<object><name>chair</name><difficult>1</difficult></object><object><name>dog</name></object>",
        "000002": "<object><name>person</name><part><name>head</name></part></object>",
    }
    for name, xml in objects.items():
        save_image(base / "JPEGImages" / f"{name}.jpg")
        (base / "Annotations" / f"{name}.xml").write_text(f"<annotation>{xml}</annotation>")
    mask = palette_mask([[0] * 6 + [15] * 6] * 3 + [[VOID] * 12] * 3)
    mask.save(base / "SegmentationClass" / "000002.png")
    for split in ("train", "val"):
        (base / "ImageSets" / "Main" / f"{split}.txt").write_text("000001\n000002\n")
    return base


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
    assert batch.image_id == ("000001", "000002")
    assert (batch.mask[0] == VOID).all()
    assert batch.mask[1, ::7, ::7].tolist() == [[0, 15], [VOID, VOID]]
    assert VOC_CLASSES[15 - 1] == "person"


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
