"""The user's own images are read as labels.csv says, or the row that is wrong is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
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
    assert module.dataset("train").labels() == [(0, 1), ()]
    assert batch.mask is None and batch.cue_mask is None and batch.boxes is None and batch.skipped == ()
    assert module.split_ids() == {"train": ["a.png", "b.png"], "val": ["c.png"]}


def test_a_folder_for_each_class_says_the_same_of_images_with_one_class(tmp_path):
    for name in ("train/dog/b.png", "train/cat/more/a.JPG", "val/dog/c.png", "train/.trash/x.png", "train/cat/.x.png"):
        save_image(tmp_path / name)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    module = build_datamodule("folder", options(tmp_path))
    assert module.classes == ("cat", "dog") and module.single_label
    assert module.split_ids() == {"train": ["train/cat/more/a.JPG", "train/dog/b.png"], "val": ["val/dog/c.png"]}
    assert next(iter(module.dataloader("train"))).labels.tolist() == [[1, 0], [0, 1]]
    (tmp_path / "labels.csv").write_text("image,split,labels\ntrain/dog/b.png,train,dog;hen\n")
    listed = build_datamodule("folder", options(tmp_path))  # a table has the last word
    assert listed.classes == ("dog", "hen") and not listed.single_label


def test_a_folder_for_each_class_without_images_says_what_should_be_there(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="train/cat/1.jpg"):
        _ = build_datamodule("folder", options(tmp_path)).classes


def test_the_names_of_the_classifiers_outputs_fix_the_order_of_the_classes(tmp_path):
    folder(tmp_path, GOOD)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    module = build_datamodule("folder", options(tmp_path, class_names=("hen", "dog", "cat")))
    assert module.classes == ("hen", "dog", "cat")
    assert module.dataset("train").labels()[0] == (1, 2)


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


def photographs(root, count, broken, split="val", **changes):
    """So many images in one split, those of the given numbers broken, with broken ones skipped."""
    names = [f"{split}{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        save_image(root / name, colour=(10 * number, 0, 0))
        if number in broken:
            (root / name).write_bytes(b"broken")
    rows = [f"{name},{split},{'cat' if number % 2 else 'dog'}\n" for number, name in enumerate(names)]
    (root / "labels.csv").write_text("image,split,labels\n" + "".join(rows))
    return build_datamodule("folder", options(root, **{"on_bad_image": "skip", "batch_size": 2, **changes}))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({0, 1}, [((2, 3), (0, 1)), ((4, 5), ())]),
        ({2, 3}, [((0, 1), ()), ((4, 5), (2, 3))]),
        ({4, 5}, [((0, 1), ()), ((2, 3), (4, 5))]),
        ({0, 1, 3, 4, 5}, [((2,), (0, 1, 3, 4, 5))]),
    ],
)
def test_a_batch_of_nothing_but_broken_images_passes_its_names_on(tmp_path, workers, broken, expected):
    module = photographs(tmp_path, 6, broken, workers=workers)
    found = [(batch.image_id, batch.skipped) for batch in module.val_dataloader()]
    assert found == [tuple(tuple(f"val{number}.png" for number in part) for part in batch) for batch in expected]
    assert module.unreadable() == [f"val{number}.png" for number in sorted(broken)]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_split_of_nothing_but_broken_images_is_an_error(tmp_path, split, workers):
    module = photographs(tmp_path, 6, range(6), split, workers=workers)
    loader = module.train_dataloader() if split == "train" else module.val_dataloader()
    with pytest.raises(BadImageError, match=rf"^All 6 image\(s\) are unreadable.*For example: .*{split}\d\.png"):
        batches(loader)


def trained_on(module, epoch=0):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return batches(loader)


def test_in_training_another_image_takes_the_place_of_a_broken_one(tmp_path):
    module = photographs(tmp_path, 8, {0, 1, 2, 3, 4}, "train", batch_size=4)
    readable, broken = ({f"train{number}.png" for number in numbers} for numbers in (range(5, 8), range(5)))
    substitutes = set()
    for epoch in range(4):
        found = trained_on(module, epoch)
        assert [len(batch.image) for batch in found] == [4, 4], "as planned: no lone image, no missing step"
        names = [name for batch in found for name in batch.image_id]
        assert set(names) == readable
        assert {name for batch in found for name in batch.skipped} == broken
        substitutes.add(tuple(sorted(names)))
    assert len(substitutes) > 1, "the same images would be shown twice all the time"
    assert module.unreadable() == sorted(broken)


def test_the_substitutes_depend_on_the_epoch_alone(tmp_path):
    loads = [
        [
            (batch.image_id, batch.skipped)
            for batch in trained_on(photographs(tmp_path, 8, {1, 2}, "train", workers=w), 3)
        ]
        for w in (0, 0, 2)
    ]
    assert loads[0] == loads[1] == loads[2]


def test_all_processes_take_equally_many_training_steps_whichever_images_are_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    sizes = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        module = photographs(tmp_path, 8, {0, 1, 2, 3, 5, 6, 7}, "train")
        sizes.append([len(batch.image) for batch in trained_on(module)])
    assert sizes == [[2, 2], [2, 2]]


def test_a_preview_is_spread_over_the_split_and_goes_round_broken_images(tmp_path):
    def preview(broken, **changes):
        batch = photographs(tmp_path, 9, broken, **changes).val_dataloader().preview(3)
        return batch and [int(name[3]) for name in batch.image_id]

    assert preview(()) == [0, 4, 8]
    assert preview({0, 8}) == [1, 2, 4]
    assert preview(set(range(9)) - {5}) == [5]
    assert preview(range(9)) is None
    with pytest.raises(BadImageError, match="val8"):
        preview({8}, on_bad_image="error")


def test_a_test_split_with_a_missing_image_is_not_passed_over(tmp_path):
    table = "image,split,labels\na.png,train,cat\nb.png,val,dog\nc.png,test,cat\n"
    assert folder(tmp_path, table).is_available("test")
    (tmp_path / "c.png").unlink()
    module = build_datamodule("folder", options(tmp_path))
    for ask in (module.split_ids, lambda: module.is_available("test")):
        with pytest.raises(FileNotFoundError, match=r"missing, first: c.png \(row 4\)"):
            ask()
    assert not folder(tmp_path, GOOD).is_available("test"), "none is listed"


@pytest.mark.parametrize("listed", [None, "cat\n"])
def test_a_single_class_is_refused(tmp_path, listed):
    module = folder(tmp_path, "image,split,labels\na.png,train,cat\nb.png,val,cat\n")
    if listed:
        (tmp_path / "classes.txt").write_text(listed)
    with pytest.raises(ValueError, match=r"a single class, 'cat'; at least two .*another class.*classes\.txt"):
        module.setup("fit")


def test_a_second_class_may_have_no_image(tmp_path):
    module = folder(tmp_path, "image,split,labels\na.png,train,cat\nb.png,val,\n")
    (tmp_path / "classes.txt").write_text("cat\nother\n")
    module.setup("fit")
    assert module.classes == ("cat", "other")


def test_a_corrected_label_changes_the_label_version(tmp_path: Path) -> None:
    def version(label: str) -> str:
        (tmp_path / "labels.csv").write_text(f"image,split,labels\na.png,train,cat;dog\nb.png,train,{label}\n")
        return FolderDataModule(DataOptions(data_root=tmp_path)).label_version

    assert version("cat") == version("cat") != version("dog")


def test_a_photograph_that_takes_a_name_over_has_another_version_and_a_copy_has_not(tmp_path: Path) -> None:
    save_image(tmp_path / "a.jpg")
    save_image(tmp_path / "b.bmp")
    (tmp_path / "labels.csv").write_text("image,split,labels\na.jpg,train,cat\nb.bmp,val,dog\n")

    def versions() -> dict[str, str]:
        return FolderDataModule(DataOptions(data_root=tmp_path)).image_versions

    before = versions()
    assert before.keys() == {"a.jpg", "b.bmp"}
    os.utime(tmp_path / "a.jpg", (1, 1))
    assert versions() == before
    changed = bytearray((tmp_path / "b.bmp").read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / "b.bmp").write_bytes(changed)
    assert versions()["a.jpg"] == before["a.jpg"]
    assert versions()["b.bmp"] != before["b.bmp"]
