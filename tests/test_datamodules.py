"""Whatever the data set: its batches hold what was promised, and hold it again, on any number of processes."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.utilities import move_data_to_device
from small_data import batches, options
from torch.utils.data._utils.pin_memory import pin_memory

from datamodules import DATASETS, VOID, Batch, Box, ImageDataModule, build_datamodule
from datamodules.base import EmptySplitError, Sample


class MemorySource:
    """Images whose red channel is 255 exactly where the mask, and a box, say class 0; the second image has neither."""

    has_masks = True
    has_cues = True
    has_boxes = True

    def __init__(self, count):
        self.image_ids = [f"image{index}" for index in range(count)]
        self.labels = [(0,)] * count

    def __len__(self):
        return len(self.image_ids)

    def __getitem__(self, index):
        red = np.zeros((24, 48), np.uint8)
        width = 12 + 3 * (index % 5)
        red[:, :width] = 255
        picture = Image.fromarray(np.stack([red, np.full_like(red, 90), 255 - red], axis=2))
        mask = None if index == 1 else Image.fromarray(red // 255)
        boxes = None if index == 1 else (Box(0, 0.0, 0.0, width / 48, 1.0),)
        return Sample(picture, (0,), self.image_ids[index], mask, Image.fromarray(red), boxes)


class MemoryModule(ImageDataModule):
    """Ten such images in each split."""

    classes = ("left", "right")
    count = 10

    def source(self, split):
        return MemorySource(self.count)


def epoch_of(module, epoch):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return batches(loader)


def test_a_batch_has_the_promised_shapes_types_and_values():
    first = next(iter(MemoryModule(options()).val_dataloader()))
    assert isinstance(first, Batch)
    assert (first.image.shape, first.image.dtype) == ((4, 3, 8, 8), torch.float32)
    assert (first.mask.shape, first.mask.dtype) == ((4, 8, 8), torch.uint8)
    assert (first.cue_mask.shape, first.cue_mask.dtype) == ((4, 8, 8), torch.bool)
    assert first.labels.tolist() == [[1.0, 0.0]] * 4
    assert first.image_id == ("image0", "image1", "image2", "image3")
    assert type(first.image) is type(first.mask) is torch.Tensor
    assert first.image[0, :, 0, 0].tolist() == pytest.approx([1, 90 / 255, 0], abs=0.01)


def test_an_image_without_mask_is_all_void_in_a_split_that_has_masks():
    first = next(iter(MemoryModule(options()).val_dataloader()))
    assert (first.mask[1] == VOID).all()
    assert set(first.mask[0].unique().tolist()) == {0, 1}


def test_a_batch_holds_the_boxes_and_the_size_that_the_photographs_had():
    first = next(iter(MemoryModule(options()).val_dataloader()))
    assert first.boxes == tuple(() if index == 1 else (Box(0, 0, 0, (4 + index) / 16, 1),) for index in range(4))
    assert first.original_size == ((24, 48),) * 4, "(height, width)"


def test_augmented_images_have_no_boxes_but_still_a_size():
    module = MemoryModule(options(augment=True))
    assert all(batch.boxes is None and batch.original_size == ((24, 48),) * 4 for batch in epoch_of(module, 0)[:2])
    assert all(batch.boxes for batch in batches(module.dataloader("train")))
    assert all(batch.boxes for batch in epoch_of(MemoryModule(options()), 0))


def test_a_split_without_boxes_has_none(monkeypatch):
    monkeypatch.setattr(MemorySource, "has_boxes", False)
    assert all(batch.boxes is None for batch in MemoryModule(options()).val_dataloader())


@pytest.mark.parametrize("way", ["workers", "pinned", "moved"])
def test_boxes_sizes_and_names_come_through_as_they_were(way, monkeypatch):
    batch = next(iter(MemoryModule(options()).val_dataloader()))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())  # the real one needs a GPU
    if way == "workers":
        there = next(iter(MemoryModule(options(workers=1)).val_dataloader()))
    else:
        there = pin_memory(batch) if way == "pinned" else move_data_to_device(batch, torch.device("cpu"))
    assert isinstance(there, Batch) and isinstance(there.boxes[0][0], Box)
    for name in ("boxes", "original_size", "image_id", "skipped"):
        assert getattr(there, name) == getattr(batch, name) and isinstance(getattr(there, name), tuple)
    for name in ("image", "labels", "mask", "cue_mask"):
        assert torch.equal(getattr(there, name), getattr(batch, name))


def test_every_tensor_of_a_batch_is_pinned(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    batch = next(iter(MemoryModule(options()).val_dataloader()))
    pin_memory(batch)
    tensors = [value for value in batch if isinstance(value, torch.Tensor)]
    assert [id(value) for value in pinned] == [id(value) for value in tensors] and len(tensors) == 4
    assert pin_memory(batch._replace(mask=None, cue_mask=None)).mask is None


def test_the_labels_of_a_limited_split_are_known_without_reading_an_image(monkeypatch):
    monkeypatch.setattr(MemorySource, "__getitem__", lambda *_: pytest.fail("read"))
    dataset = MemoryModule(options(limit_val=4)).dataset("val")
    dataset.source.labels = [(index,) for index in range(10)]
    assert dataset.image_ids == ["image0", "image2", "image5", "image7"]
    assert dataset.labels() == [(0,), (2,), (5,), (7,)]


def test_images_are_normalised_with_the_given_mean_and_std():
    plain = next(iter(MemoryModule(options()).val_dataloader())).image
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normalised = next(iter(MemoryModule(options(mean=mean, std=std)).val_dataloader())).image
    expected = (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalised, expected)


def test_shrinking_antialiases_the_image_and_not_the_mask():
    checks = np.indices((64, 64)).sum(0) % 2
    module = MemoryModule(options())
    sample = Sample(Image.fromarray((255 * checks).astype(np.uint8)).convert("RGB"), (), "checks")
    mask = Image.fromarray(np.where(checks, 3, VOID).astype(np.uint8))
    views = module.dataset("val").transform(sample._replace(mask=mask))
    assert (views.image[:, 1:-1, 1:-1] - 0.5).abs().max() < 0.02
    assert set(views.mask.unique().tolist()) <= {3, VOID}


def test_augmentation_depends_on_seed_epoch_and_index_but_not_on_the_workers():
    in_process = epoch_of(MemoryModule(options(augment=True)), 3)
    in_workers = epoch_of(MemoryModule(options(augment=True, workers=2)), 3)
    for one, other in zip(in_process, in_workers, strict=True):
        assert one.image_id == other.image_id
        assert torch.equal(one.image, other.image) and torch.equal(one.mask, other.mask)
    dataset = MemoryModule(options(augment=True)).dataset("train")
    again = MemoryModule(options(augment=True)).dataset("train")
    other_seed = MemoryModule(options(augment=True, seed=1)).dataset("train")
    assert torch.equal(dataset[(3, 0)].image, again[(3, 0)].image)
    for different in (dataset[(4, 0)], other_seed[(3, 0)], dataset[0]):
        assert not torch.equal(dataset[(3, 0)].image, different.image)


def test_loading_leaves_the_global_random_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    epoch_of(MemoryModule(options(augment=True)), 0)
    assert torch.equal(torch.rand(1), expected)


def test_image_mask_and_cue_mask_move_together():
    dataset = MemoryModule(options(augment=True, image_size=64)).dataset("train")
    flips = 0
    for epoch in range(12):
        item = dataset[(epoch, 0)]
        known = item.mask != VOID
        looks_red = item.image[0] > item.image[2]
        agreement = (looks_red == (item.mask == 1))[known].float().mean()
        assert agreement > 0.97  # all but the edge, which rotation blurs in the image only
        assert torch.equal(item.cue_mask, item.mask == 1)  # corners: void in the mask, no cue in the cue mask
        flips += int((item.mask == 1)[:, 32:].sum() > (item.mask == 1)[:, :32].sum())
    assert 0 < flips < 12
    assert (~known).any()


def test_only_training_images_are_augmented():
    module, plain = MemoryModule(options(augment=True)), MemoryModule(options())
    for split in ("train", "val", "test"):
        for one, other in zip(module.dataloader(split), plain.dataloader(split), strict=True):
            assert torch.equal(one.image, other.image)


class Recorder(pl.LightningModule):
    """Trains nothing, notes which images each training epoch and each validation brought."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.trained, self.validated = {}, []

    def training_step(self, batch, _):
        self.trained.setdefault(self.current_epoch, []).extend(batch.image_id)

    def validation_step(self, batch, _):
        self.validated.extend(batch.image_id)

    def configure_optimizers(self):
        return None


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on workers, loggers and optimisers
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 on torch 2.15
def test_lightning_brings_all_images_in_another_order_each_epoch():
    recorder, module = Recorder(), MemoryModule(options(workers=1))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        max_epochs=2, use_distributed_sampler=False, num_sanity_val_steps=0, enable_checkpointing=False, **quiet
    )
    trainer.fit(recorder, module)
    names = MemorySource(10).image_ids
    assert sorted(recorder.trained[0]) == sorted(recorder.trained[1]) == names
    assert recorder.trained[0] != recorder.trained[1]
    assert recorder.validated == names * 2


def test_ranks_split_an_evaluation_and_share_a_training_epoch(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    tested, trained = [], []
    for rank in range(4):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        module = MemoryModule(options(batch_size=2))
        tested += [name for batch in module.test_dataloader() for name in batch.image_id]
        trained.append([name for batch in module.train_dataloader() for name in batch.image_id])
    assert sorted(tested) == sorted(MemorySource(10).image_ids)
    assert [len(names) for names in trained] == [2, 2, 2, 2]  # 3 each; the third would be alone in its batch


def test_a_limit_takes_images_evenly_spaced_over_the_split():
    module = MemoryModule(options(limit_train=3, limit_val=100))
    assert module.split_ids()["train"] == ["image0", "image3", "image6"]
    assert len(module.split_ids()["val"]) == 10


def test_an_empty_split_is_named():
    module = MemoryModule(options("photos"))
    module.count = 0
    with pytest.raises(EmptySplitError, match="Split 'val' of MemoryModule is empty.*photos.*--data_root"):
        module.val_dataloader()
    assert module.split_ids() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, "--image_size must be at least 1, got 0"),
        ({"limit_val": 0}, "--limit_val must be at least 1"),
        ({"workers": -1}, "--workers must be 0 or more"),
        ({"on_bad_image": "ignore"}, "choose one of: error, skip"),
        ({"std": (1.0, 0.0, 1.0)}, "--std must be positive"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        options(**change)


def test_an_unknown_data_set_or_split_is_an_error_that_lists_the_valid_ones():
    with pytest.raises(ValueError, match="Unknown data set 'vcc'; choose one of: shapes, voc, coco, folder"):
        build_datamodule("vcc", options())
    with pytest.raises(ValueError, match="Unknown split 'dev'; choose one of: train, val, test"):
        MemoryModule(options()).dataset("dev")
    assert all(issubclass(kind, ImageDataModule) for kind in DATASETS.values())
    assert [name for name, kind in DATASETS.items() if kind(options()).single_label] == ["imagenet"]


def test_the_embedded_data_set_needs_no_files(tmp_path):
    module = build_datamodule("shapes", options(tmp_path, image_size=64, limit_train=4, limit_val=2, limit_test=2))
    batch = next(iter(module.train_dataloader()))
    assert batch.labels.shape == (4, module.num_classes)
    assert batch.boxes is None and batch.original_size == ((64, 64),) * 4
    assert sorted(module.split_ids()) == ["test", "train", "val"]
