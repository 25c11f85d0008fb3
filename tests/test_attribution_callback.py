"""AttributionCallback shows maps of any LightningModule in training, which goes on as if nobody had looked."""

import random
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset
from toy_models import SIZE, Breaks, SmallNet, card, state_of

from explainer import AttributionCallback
from explainer.library.untouched import untouched
from explainer.report.gallery import GAP, TILE

EPOCHS = 3
METHODS = ["grad_cam", "smooth_grad:samples=2", "rise:masks=8", "group_cam:groups=2", "guided_backprop", "full_grad"]


class Noisy(Dataset):
    """Images whose every access draws random numbers of Python, NumPy and torch."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, SIZE, SIZE, generator=generator)
        return image + random.random() + np.random.rand() + torch.rand(()), index % 3


class Module(pl.LightningModule):
    """What may go wrong: dropout, BatchNorm, a buffer that every pass changes, and a log in the forward pass."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()
        self.breaks = Breaks()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, image):
        self.passes += 1
        self.log("passes", self.passes, on_epoch=True)
        return self.breaks(self.net(image))

    def loss(self, logits, target):
        return F.cross_entropy(logits, target)

    def training_step(self, batch, _):
        return self.loss(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_loss", self.loss(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class MultiLabel(Module):
    """Several classes an image; the classifier is not the module itself, whose forward gives something else."""

    def forward(self, image):
        return {"answers": super().forward(image)}

    def training_step(self, batch, _):
        return self.loss(self(batch[0])["answers"], batch[1])

    def validation_step(self, batch, _):
        self.log("val_loss", self.loss(self(batch[0])["answers"], batch[1]))

    def loss(self, logits, target):
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(target, 3).float())


class Pictures(CSVLogger):
    """A logger that keeps the pictures that it gets."""

    def __init__(self, folder):
        super().__init__(folder)
        self.pictures = {}
        self.experiment.add_image = self.add_image

    def add_image(self, tag, picture, step, dataformats):
        assert dataformats == "HWC"
        self.pictures[tag, step] = picture


def fit(folder, *callbacks, module=None, logger=None, epochs=EPOCHS, **options):
    """Train; what is left: the module, the trainer and the pictures."""
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    module, logger = module or Module(), logger or Pictures(folder)
    trainer = pl.Trainer(
        **{"max_epochs": epochs, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
        **{"callbacks": list(callbacks), "logger": logger, "num_sanity_val_steps": 0, "enable_checkpointing": False},
        **options,
    )
    data = Noisy()
    trainer.fit(module, DataLoader(data, 4, shuffle=True), DataLoader(data, 4))
    return module, trainer, getattr(logger, "pictures", None)


def everything(module, trainer):
    """Bit by bit: weights, gradients, modes and hooks, the optimiser, and the next random numbers."""
    optimiser = [
        value.numpy().tobytes() for of_one in trainer.optimizers[0].state.values() for value in of_one.values()
    ]
    return state_of(module), optimiser, random.random(), np.random.rand(), torch.rand(3).tolist()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    module, trainer, _ = fit(tmp_path_factory.mktemp("undisturbed"))
    return everything(module, trainer), {name: value.item() for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"methods": METHODS, "images": 5},
        {"methods": METHODS[:2], "images": torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))},
        {"methods": METHODS[:1], "classifier": lambda module: nn.Sequential(module.net, nn.Identity())},
        {"methods": ["i_gos:iterations=2", "lrp", "occlusion:window=16,step=16"], "every_n_epochs": 2},
    ],
    ids=["first images", "tensor", "classifier of its own", "every second epoch"],
)
def test_training_with_the_callback_is_training_without_it_bit_by_bit(tmp_path, undisturbed, options):
    module, trainer, pictures = fit(tmp_path, AttributionCallback(**options))
    assert pictures
    assert everything(module, trainer) == undisturbed[0]
    assert {name: value.item() for name, value in trainer.callback_metrics.items()} == undisturbed[1]


def test_accumulated_gradients_survive_with_the_tensors_that_hold_them():
    module = SmallNet()
    module(torch.randn(2, 3, SIZE, SIZE)).sum().backward()
    before, held = state_of(module), [parameter.grad for parameter in module.parameters()]
    with pytest.raises(KeyError), untouched(module):
        assert not any(part.training for part in module.modules())
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.parameters())
        module.features[1].running_mean.add_(1)
        module.features[1].running_var = torch.ones(6)
        raise KeyError
    assert state_of(module) == before
    assert all(parameter.grad is gradient for parameter, gradient in zip(module.parameters(), held, strict=True))


def test_random_numbers_are_the_same_after_an_error():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(2).tolist()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = drawn()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(KeyError), untouched(SmallNet()):
        drawn()
        raise KeyError
    assert drawn() == expected


def test_every_n_epochs_a_picture_has_a_row_a_method_and_a_column_an_image(tmp_path):
    one = fit(tmp_path, AttributionCallback(METHODS[:1], images=2))[2]
    more = fit(tmp_path, AttributionCallback(METHODS[:3], images=5, every_n_epochs=2, tag="maps"))[2]
    assert sorted(one) == [("attribution", epoch) for epoch in range(EPOCHS)]
    assert sorted(more) == [("maps", 1)]
    small, large = one["attribution", 1], more["maps", 1]
    assert small.dtype == np.uint8
    assert large.shape[0] - small.shape[0] == 2 * (TILE + GAP)
    assert large.shape[1] - small.shape[1] >= 3 * (TILE + GAP)  # longer names take more room
    assert not np.array_equal(one["attribution", 0], one["attribution", 2])  # the classifier has learned


def test_tensorboard_gets_the_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(tmp_path, AttributionCallback(METHODS[:1]), logger=TensorBoardLogger(tmp_path), epochs=2)
    events = EventAccumulator(str(next(tmp_path.rglob("version_0")))).Reload()
    assert [event.step for event in events.Images("attribution")] == [0, 1]


def test_a_multi_label_classifier_inside_the_module_is_asked_for_chosen_classes(tmp_path):
    asked = []

    class Asked(SmallNet):
        def forward(self, image):
            asked.append(image.shape)
            return super().forward(image)

    module = MultiLabel()
    module.net = Asked()
    callback = AttributionCallback(
        ["grad_cam"], 3, card=card(output="multi_label"), targets=[0, 1, 2], classifier=lambda module: module.net
    )
    _, _, pictures = fit(tmp_path, callback, module=module, epochs=1)
    assert list(pictures) == [("attribution", 0)]
    assert asked[-1] == (3, 3, SIZE, SIZE)


def test_files_are_prepared_as_the_card_says(tmp_path):
    Image.new("L", (50, 40), 128).save(tmp_path / "grey.png")
    Image.new("RGB", (20, 60), (255, 0, 0)).save(tmp_path / "red.jpg")
    callback = AttributionCallback(images=[tmp_path / "grey.png", str(tmp_path / "red.jpg")], card=card())
    assert [image.shape for image in callback._images] == [(3, SIZE, SIZE)] * 2
    assert callback._images[0][:, 0, 0].tolist() == pytest.approx([128 / 255] * 3)
    assert fit(tmp_path, callback, epochs=1)[2]


def test_what_fails_warns_once_and_the_other_methods_are_shown(tmp_path):
    callback = AttributionCallback(["grad_cam:target_layer=nothing", "gradient"], images=2)
    with pytest.warns(UserWarning) as told:
        _, _, pictures = fit(tmp_path, callback)
    ours = [str(warning.message) for warning in told if "AttributionCallback" in str(warning.message)]
    assert len(ours) == 1
    assert "Unknown target layer 'nothing'" in ours[0]
    assert len(pictures) == EPOCHS


def test_a_module_that_gives_no_logits_warns_once_with_the_remedy_and_trains(tmp_path, undisturbed):
    with pytest.warns(UserWarning, match="gives dict for 4 images.*pass classifier="):
        module, trainer, pictures = fit(tmp_path, AttributionCallback(), module=MultiLabel())
    assert not pictures
    assert trainer.current_epoch == EPOCHS


def test_a_classifier_that_breaks_leaves_training_as_it_was(tmp_path, undisturbed):
    class Broken(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            module.breaks.broken = not module.breaks.broken

    callbacks = Broken(), AttributionCallback(METHODS[:1]), Broken()
    with pytest.warns(UserWarning, match="BrokenError"):
        module, trainer, _ = fit(tmp_path, *callbacks)
    del module.breaks.broken
    assert everything(module, trainer) == undisturbed[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["grad_cma"]}, "Unknown method 'grad_cma'"),
        ({"methods": ["explainer"]}, "'explainer' is trained"),
        ({"images": 0}, "images is 0"),
        ({"every_n_epochs": 0}, "every_n_epochs is 0"),
        ({"images": torch.zeros(3, 8, 8)}, r"shape \[3, 8, 8\]"),
        ({"images": ["photo.jpg"]}, "need a card"),
    ],
)
def test_what_cannot_work_is_an_error_before_training(options, message):
    with pytest.raises(ValueError, match=message):
        AttributionCallback(**options)


def test_a_missing_file_is_an_error_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.jpg: there is no such file\.$"):
        AttributionCallback(images=[tmp_path / "nothing.jpg"], card=card())


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((torch.zeros(5, 3, 8, 8), torch.zeros(5)), True),
        ({"labels": torch.zeros(5), "pixel_values": torch.zeros(5, 3, 8, 8)}, True),
        ([{"views": [torch.zeros(5, 3, 8, 8)]}], True),
        (torch.zeros(5, 3, 8, 8), True),
        ((torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.zeros(5)), False),
        (torch.zeros(5, 10), False),
    ],
)
def test_images_are_found_in_batches_of_any_kind(batch, found):
    callback, trainer = AttributionCallback(images=3), pl.Trainer(logger=False, accelerator="cpu")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for index in range(2):
            callback.on_validation_batch_start(trainer, None, batch, index)
    assert len(callback._images) == 3 * found
    assert len(told) == (not found)


def test_without_a_validation_it_says_that_there_were_no_images(tmp_path):
    with pytest.warns(UserWarning, match="no validation to take images from"):
        fit(tmp_path, AttributionCallback(), limit_val_batches=0, epochs=1)


def test_a_logger_without_pictures_is_told_once(tmp_path):
    with pytest.warns(UserWarning, match="no logger takes pictures") as told:
        fit(tmp_path, AttributionCallback(), logger=CSVLogger(tmp_path), epochs=2)
    assert sum("no logger" in str(warning.message) for warning in told) == 1


def test_only_the_first_process_looks_and_never_at_weights_that_are_spread(tmp_path):
    class Elsewhere:
        is_global_zero, current_epoch, loggers = False, 0, []

    callback = AttributionCallback(images=torch.zeros(1, 3, SIZE, SIZE))
    callback.on_train_epoch_end(Elsewhere(), None)  # looks at nothing of the module
    Elsewhere.is_global_zero, Elsewhere.strategy = True, type("FSDPStrategy", (), {})()
    with pytest.warns(UserWarning, match="FSDPStrategy spreads the weights"):
        callback.on_train_epoch_end(Elsewhere(), None)
