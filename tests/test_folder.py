"""The user's own images are read as labels.csv says, or the row that is wrong is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_data import batches, options, save_image

from datamodules import VOID, DataOptions, build_datamodule
from datamodules.folder import FolderDataModule
from datamodules.images import BadImageError


def folder(root, table, images=("a.png", "b.png", "c.png")):
    for name in images:
        save_image(root / name)
    (root / "labels.csv").write_bytes(table.encode() if isinstance(table, str) else table)
    return build_datamodule("folder", options(root))


GOOD = "image,split,labels\na.png,train,dog;cat\nb.png,train,\nc.png,val,cat\n"


def test_folder_reads_names_splits_and_labels(tmp_path):
    module = folder(tmp_path, GOOD)
    batch = next(iter(module.dataloader("train")))
    assert module.classes == ("cat", "dog")
    assert batch.image_id == ("a.png", "b.png")
    assert batch.labels.tolist() == [[1, 1], [0, 0]]
    assert batch.mask is None and batch.cue_mask is None and batch.skipped == ()
    assert module.split_ids() == {"train": ["a.png", "b.png"], "val": ["c.png"]}


def test_folder_bears_windows_files_and_spaces(tmp_path):
    table = "\ufeffimage , split,labels\r\nsub\\a.png, train ,  cat ; dog;;cat\r\n\r\nb.png,train,\r\n"
    module = folder(tmp_path, table, images=("sub/a.png", "b.png"))
    (tmp_path / "classes.txt").write_bytes("\ufeffdog\r\n\r\n cat \r\nowl\r\n".encode())
    assert module.classes == ("dog", "cat", "owl")
    assert next(iter(module.dataloader("train"))).labels.tolist() == [[1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,labels\na.png,cat\n", "lacks the column.*split.*first line has: image, labels"),
        ("image;split;labels\na.png;train;cat\n", "Columns are separated by commas"),
        ("", "lacks the column"),
        ("image,split,labels\na.png,training,cat\n", "Row 2 .*unknown split 'training'; valid are: train, val, test"),
        ("image,split,labels\na.png,train,cat,dog\n", "Row 2 .*too many cells; several labels are separated by ';'"),
        ("image,split,labels\na.png,train,cat\nb.png,val,\na.png,val,cat\n", "a.png in row 2 and again in row 4"),
        ("image,split,labels\n,train,cat\n", "Row 2 .*names no image"),
        ("image,split,labels\na.png,train,\n", "names no class in any row"),
        ("image,split,labels\na.png,train,Käfer\n".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_folder_says_which_row_of_the_table_is_wrong(tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        folder(tmp_path, table).setup("fit")


def test_folder_names_row_and_label_of_an_unknown_class(tmp_path):
    module = folder(tmp_path, GOOD)
    (tmp_path / "classes.txt").write_text("cat\nowl\n")
    with pytest.raises(ValueError, match=r"Row 2 of labels.csv \(a.png\): unknown class 'dog'; valid are: cat, owl"):
        module.setup("fit")


def test_folder_refuses_a_class_listed_twice(tmp_path):
    module = folder(tmp_path, GOOD)
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(ValueError, match="lists cat more than once"):
        _ = module.classes


def test_a_missing_folder_or_table_is_named(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"labels\.csv.*--data_root"):
            build_datamodule("folder", options(root)).setup("fit")


def test_folder_names_missing_images_before_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"1 image\(s\).*missing, first: b.png \(row 3\)"):
        folder(tmp_path, GOOD, images=("a.png", "c.png")).setup("fit")


def test_folder_masks_follow_the_images_path(tmp_path):
    module = folder(tmp_path, "image,split,labels\nsub/a.jpg,train,dog\nb.png,train,cat\n", ("sub/a.jpg", "b.png"))
    (tmp_path / "masks" / "sub").mkdir(parents=True)
    indices = np.zeros((6, 12), np.uint8)
    indices[:, 6:] = 2
    indices[:3, 6:] = VOID
    Image.fromarray(indices).save(tmp_path / "masks" / "sub" / "a.png")
    batch = next(iter(module.dataloader("train")))
    assert batch.mask[0, ::7, ::7].tolist() == [[0, VOID], [0, 2]]
    assert (batch.mask[1] == VOID).all()


def test_a_mask_value_beyond_the_classes_is_named(tmp_path):
    module = folder(tmp_path, GOOD)
    (tmp_path / "masks").mkdir()
    Image.new("L", (12, 6), 7).save(tmp_path / "masks" / "a.png")
    with pytest.raises(BadImageError, match=r"a\.png holds the value 7, but with 2 classes"):
        batches(module.dataloader("train"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_stops_with_its_name_or_is_skipped_and_counted(tmp_path, workers):
    module = folder(tmp_path, GOOD)
    (tmp_path / "b.png").write_bytes(b"broken")
    module.options.workers = workers
    with pytest.raises(
        BadImageError, match=r"^Cannot read image .*b\.png.*--on_bad_image skip to leave such files out.$"
    ):
        batches(module.dataloader("train"))
    with pytest.raises(BadImageError, match=r"b\.png"):
        module.dataset("train")[1]
    skipping = build_datamodule("folder", options(tmp_path, on_bad_image="skip", workers=workers))
    (batch,) = batches(skipping.dataloader("train"))
    assert (batch.image_id, batch.skipped) == (("a.png",), ("b.png",))
    assert len(batch.image) == len(batch.labels) == 1


def test_a_missing_image_can_be_skipped_too(tmp_path):
    folder(tmp_path, GOOD, images=("a.png", "c.png"))
    (batch,) = batches(build_datamodule("folder", options(tmp_path, on_bad_image="skip")).dataloader("train"))
    assert batch.skipped == ("b.png",)


def test_a_batch_of_nothing_but_broken_images_is_an_error(tmp_path):
    folder(tmp_path, GOOD)
    (tmp_path / "c.png").write_bytes(b"broken")
    with pytest.raises(BadImageError, match=r"All 1 image\(s\) of a batch are unreadable.*c\.png"):
        batches(build_datamodule("folder", options(tmp_path, on_bad_image="skip")).dataloader("val"))


def test_a_corrected_label_changes_the_label_version(tmp_path: Path) -> None:
    def version(label: str) -> str:
        (tmp_path / "labels.csv").write_text(f"image,split,labels\na.png,train,cat;dog\nb.png,train,{label}\n")
        return FolderDataModule(DataOptions(data_root=tmp_path)).label_version

    assert version("cat") == version("cat") != version("dog")
