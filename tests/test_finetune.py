"""The classifier's own training: what is frozen stays, the best weights are kept, and nothing is trained twice."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler
from toy_models import card, freeze

from datamodules.batch import Batch
from explainer.classifier_scores import SCORES
from explainer.classifiers import build_classifier
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.explanandum_cache import ClassifierRequest, ExplanandumCache, _built
from explainer.feature_cache import FeatureCache
from explainer.finetune import ExplanandumModule, FinetuneJob, FinetuneOptions, finetune
from explainer.machine import MachineOptions
from explainer.machine import make_trainer as machine_trainer
from explainer.network import Explainer
from explainer.run_folder import RunFolder, save_explainer

SIZES = {"train": 40, "val": 16, "test": 12}
METRICS = {f"{stage}/{name}" for stage in ("val", "test") for name in ("f_score", "precision", "recall", "mAP")}
SINGLE_LABEL_METRICS = {name.replace("mAP", "accuracy") for name in METRICS}


class Net(nn.Module):
    """Frozen part with BatchNorm and dropout, head with dropout, as a VGG has it."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, image):
        return self.head(self.pool(self.features(image)).flatten(1))


class Data(pl.LightningDataModule):
    """Noise whose channels are brighter where their class is present; in an order that a test can repeat."""

    def __init__(self, augment=False, with_test=True, batch_size=8):
        super().__init__()
        self.options = SimpleNamespace(augment=augment)
        self.with_test, self.batch_size = with_test, batch_size
        self.passes = {split: 0 for split in SIZES}

    def is_available(self, split):
        return self.with_test or split != "test"

    def items(self, split):
        generator = torch.Generator().manual_seed(len(split))
        image = torch.randn(SIZES[split], 3, 16, 16, generator=generator)
        labels = (torch.rand(SIZES[split], 3, generator=generator) > 0.5).float()
        labels[:2] = torch.tensor([[1.0, 1, 1], [0, 0, 0]])
        return image + labels[:, :, None, None], labels

    def loader(self, split, sampler=None):
        self.passes[split] += 1
        items = list(zip(*self.items(split), strict=True))
        return DataLoader(items, self.batch_size, sampler=sampler, collate_fn=collate, generator=torch.Generator())

    def dataloader(self, split):
        return self.loader(split)

    def train_dataloader(self):
        return self.loader("train", DistributedSampler(range(SIZES["train"]), num_replicas=1, rank=0, seed=7))

    def val_dataloader(self):
        return self.loader("val")

    def test_dataloader(self):
        if not self.with_test:
            raise FileNotFoundError("no test split")
        return self.loader("test")


def collate(items):
    images, labels = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.stack(labels), tuple("" for _ in items))


def make_trainer(**keywords):
    """A quiet Trainer on the CPU, as train.py makes it."""
    machine = MachineOptions(accelerator="cpu", precision=keywords.pop("precision", "32-true"))
    return machine_trainer(machine, **keywords)


def job(tmp_path, model=None, callbacks=(), seed=7, **options):
    options = {"epochs": 2, "lr": 1e-2, "batch_size": 8, **options}
    return FinetuneJob(model or Net(), "head", 3, FinetuneOptions(**options), seed, tmp_path / "work", list(callbacks))


def cached_loaders(work, data=None):
    """Loaders of the head's inputs."""
    cache = FeatureCache(work.model, work.head, make_trainer())
    return cache.loaders(data or Data(), work.options.batch_size, work.seed)


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def differing(state, other):
    return {name for name, value in state.items() if not torch.equal(value, other[name])}


class Spy(Callback):
    """Notes losses and modes, and can do something at an epoch's end."""

    def __init__(self, at_epoch_end=None):
        self.losses, self.modes, self.epochs = [], [], 0
        self.at_epoch_end = at_epoch_end or (lambda trainer, epoch: None)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        self.losses.append(float(outputs["loss"]))
        self.modes.append({name: part.training for name, part in module.model.named_modules()})

    def on_train_epoch_end(self, trainer, module):
        self.epochs += 1
        self.at_epoch_end(trainer, trainer.current_epoch)


@pytest.mark.parametrize("augment", [False, True], ids=["cached", "uncached"])
def test_frozen_part_gets_no_gradient_and_its_statistics_do_not_drift(tmp_path, augment):
    spy = Spy()
    work = job(tmp_path, callbacks=[spy])
    before = weights(work.model)
    finetune(work, Data(augment), make_trainer)
    assert differing(before, weights(work.model)) == {f"head.{name}" for name in work.model.head.state_dict()}
    assert all(parameter.grad is None for parameter in work.model.features.parameters())
    in_training = {name for modes in spy.modes for name, training in modes.items() if training}
    expected = {"", "0", "1", "2", "3"} if not augment else {"head", "head.0", "head.1", "head.2", "head.3"}
    assert in_training == expected  # dropout of the head is on, of the frozen part off


def test_without_freezing_everything_is_trained(tmp_path):
    work = job(tmp_path, freeze=False)
    before = weights(work.model)
    finetune(work, Data(), make_trainer)
    assert differing(before, weights(work.model)) == set(before)


def test_modes_come_back_after_validation(tmp_path):
    spy = Spy()
    finetune(job(tmp_path, callbacks=[spy], freeze=False, epochs=3), Data(), make_trainer)
    assert all(all(modes.values()) for modes in spy.modes)


def test_each_image_passes_the_frozen_part_once_for_training(tmp_path):
    model, seen = Net(), []
    model.features.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    finetune(job(tmp_path, model, epochs=4), Data(with_test=False), make_trainer)
    assert sum(seen) == SIZES["train"] + 2 * SIZES["val"]  # the second time to score the whole model


def test_cached_features_give_the_logits_of_the_whole_model(tmp_path):
    work, data = job(tmp_path), Data()
    loaders = cached_loaders(work, data)
    features, labels = loaders["val_dataloaders"].dataset.tensors
    image, expected_labels = data.items("val")
    assert features.dtype == torch.float16
    assert torch.equal(labels, expected_labels)
    with torch.no_grad():
        torch.testing.assert_close(work.model.head(features.float()), work.model(image), rtol=2e-3, atol=2e-3)


def test_features_too_large_for_float16_are_kept_in_float32(tmp_path):
    model = Net()
    model.features.append(Scale(1e6))
    loaders = cached_loaders(job(tmp_path, model))
    features, _ = loaders["train_dataloaders"].dataset.tensors
    assert features.dtype == torch.float32
    assert features.isfinite().all()


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, value):
        return value * self.factor


def test_training_through_the_cache_is_training_without_it(tmp_path):
    cached, uncached = Spy(), Spy()
    through = job(tmp_path / "a", callbacks=[cached])
    without = job(tmp_path / "b", callbacks=[uncached])
    scores, _ = finetune(through, Data(), make_trainer)
    expected, _ = finetune(without, Data(augment=True), make_trainer)  # "augmented" data that is not: no cache
    assert len(cached.losses) == 2 * SIZES["train"] // 8
    torch.testing.assert_close(cached.losses, uncached.losses, rtol=5e-3, atol=5e-3)
    for name, value in through.model.head.state_dict().items():
        torch.testing.assert_close(value, without.model.head.state_dict()[name], rtol=0.05, atol=5e-3)
    assert scores == pytest.approx(expected, abs=0.1)


def test_a_model_that_goes_on_after_its_head_is_trained_without_the_cache(tmp_path):
    class Doubled(Net):
        def forward(self, image):
            return 2 * super().forward(image)

    assert cached_loaders(job(tmp_path, Doubled())) is None
    scores, _ = finetune(job(tmp_path, Doubled()), Data(), make_trainer)
    assert scores.keys() == METRICS


def test_squeezenet_whose_logits_are_flattened_after_the_head_is_trained_without_the_cache(tmp_path):
    model, head = build_classifier("squeezenet1_1", 3, "none")
    small = replace(job(tmp_path, model), head=head)

    class Larger(Data):
        def items(self, split):
            image, labels = super().items(split)
            return nn.functional.interpolate(image[:4], size=32), labels[:4]

    assert cached_loaders(small, Larger()) is None


@pytest.mark.parametrize("augment", [False, True], ids=["cached", "uncached"])
def test_scores_have_their_names_and_lie_in_the_unit_range(tmp_path, augment):
    scores, trainer = finetune(job(tmp_path), Data(augment), make_trainer)
    assert scores.keys() == METRICS
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in scores.values())
    assert trainer.is_global_zero


def test_scores_are_right_on_easy_data(tmp_path):
    model, data = Net(), Data()
    scores, _ = finetune(job(tmp_path, model, epochs=60, lr=0.02, patience=60), data, make_trainer)
    image, labels = data.items("test")
    with torch.no_grad():
        predicted = model.eval()(image) > 0
    hits = (predicted & labels.bool()).sum(dim=0)
    f_score = (2 * hits / (predicted.sum(dim=0) + labels.sum(dim=0))).mean().item()
    assert scores["test/f_score"] == pytest.approx(f_score, abs=1e-6)
    assert scores["test/mAP"] > 0.9


def test_a_data_set_without_test_images_is_scored_on_validation_alone(tmp_path):
    scores, _ = finetune(job(tmp_path), Data(with_test=False), make_trainer)
    assert scores.keys() == {name for name in METRICS if name.startswith("val/")}


class Overfit(Data):
    """Validation labels are the training's, inverted: every epoch makes the validation loss worse."""

    def items(self, split):
        image, labels = super().items(split)
        return image, 1 - labels if split == "val" else labels


@pytest.mark.parametrize("augment", [False, True], ids=["cached", "uncached"])
def test_stops_early_and_keeps_the_best_weights_not_the_last(tmp_path, augment):
    snapshots = []
    spy = Spy(lambda trainer, epoch: snapshots.append(weights(trainer.lightning_module._trained[0])))
    work = job(tmp_path, callbacks=[spy], epochs=30, patience=2, lr=0.02)
    finetune(work, Overfit(augment), make_trainer)
    assert spy.epochs == 3  # the first, and as many as the patience allows
    assert not differing(snapshots[0], weights(work.model.head))
    assert differing(snapshots[-1], weights(work.model.head))


def test_zero_epochs_take_the_weights_as_they_are(tmp_path):
    work = job(tmp_path, epochs=0)
    before = weights(work.model)
    scores, _ = finetune(work, Data(), make_trainer)
    assert not differing(before, weights(work.model))
    assert scores.keys() == METRICS


def test_zero_epochs_want_a_trained_head(tmp_path):
    card = ClassifierCard("resnet18", ("cat", "dog"), 32, (0.5,) * 3, (0.5,) * 3)
    model, _ = build_classifier("resnet18", 2, "none")
    torch.save(model.state_dict(), tmp_path / "whole.pt")
    torch.save(
        {name: value for name, value in model.state_dict().items() if "fc" not in name}, tmp_path / "headless.pt"
    )
    request = ClassifierRequest(card, str(tmp_path / "whole.pt"), FinetuneOptions(epochs=0), 0, [])
    taken, head = _built(request)
    assert head == "fc"
    assert not differing(weights(model), weights(taken))
    with pytest.raises(ValueError, match="has no trained head"):
        _built(replace(request, weights=str(tmp_path / "headless.pt")))


class Killed(Exception):
    """Stands for a process that ends."""


def kill_at(epoch):
    def at_epoch_end(_trainer, current):
        if current == epoch:
            raise Killed

    return Spy(at_epoch_end)


@pytest.mark.parametrize("augment", [False, True], ids=["cached", "uncached"])
def test_a_killed_training_goes_on_and_ends_as_an_unbroken_one(tmp_path, augment):
    unbroken = job(tmp_path / "a", epochs=4)
    expected, _ = finetune(unbroken, Data(augment), make_trainer)
    with pytest.raises(Killed):
        finetune(job(tmp_path / "b", callbacks=[kill_at(2)], epochs=4), Data(augment), make_trainer)
    assert (tmp_path / "b" / "work" / "last.ckpt").is_file()
    spy = Spy()
    resumed = job(tmp_path / "b", callbacks=[spy], epochs=4)
    scores, _ = finetune(resumed, Data(augment), make_trainer)
    assert 1 <= spy.epochs < 4
    assert not differing(weights(unbroken.model), weights(resumed.model))
    assert scores == expected


def test_a_training_killed_after_its_last_epoch_only_scores(tmp_path):
    first = job(tmp_path, epochs=2)
    expected, _ = finetune(first, Data(), make_trainer)
    spy = Spy()
    second = job(tmp_path, model=Net(), callbacks=[spy], epochs=2)
    scores, _ = finetune(second, Data(), make_trainer)
    assert spy.epochs == 0
    assert scores == expected
    assert not differing(weights(first.model), weights(second.model))


def test_a_loss_that_is_not_finite_says_what_to_try(tmp_path):
    model = Net()
    nn.init.constant_(model.head[0].weight, torch.nan)
    with pytest.raises(ArithmeticError, match=r"--finetune.lr"):
        finetune(job(tmp_path, model), Data(), make_trainer)


def test_switching_modes_leaves_the_frozen_part_in_eval_mode():
    model = Net()
    module = ExplanandumModule(model, model.head, 3, FinetuneOptions())
    for switch in (module.train, module.eval, module.train):
        switch()
        assert not model.features[1].training
        assert model.head[2].training == module.training


class OneLabel(Data):
    """Each image has exactly one class, whose channel is brighter."""

    def items(self, split):
        generator = torch.Generator().manual_seed(len(split))
        image = torch.randn(SIZES[split], 3, 16, 16, generator=generator)
        labels = torch.eye(3)[torch.randint(3, (SIZES[split],), generator=generator)]
        return image + labels[:, :, None, None], labels


def single_label_job(tmp_path, model=None, **options):
    return replace(job(tmp_path, model, **options), output="single_label")


@pytest.mark.parametrize("augment", [False, True], ids=["cached", "uncached"])
def test_a_single_label_classifier_is_trained_with_cross_entropy(tmp_path, augment):
    spy, data = Spy(), OneLabel(augment, batch_size=SIZES["train"])
    model = Net()
    model.head[2].p = 0.0
    image, labels = data.items("train")
    with torch.no_grad():
        probabilities = model.eval()(image).softmax(dim=1)
    finetune(single_label_job(tmp_path, model, callbacks=[spy], batch_size=SIZES["train"]), data, make_trainer)
    expected = -probabilities[labels.bool()].log().mean().item()
    assert spy.losses[0] == pytest.approx(expected, abs=5e-3 if not augment else 1e-5)  # features in float16


@pytest.mark.parametrize("augment", [False, True], ids=["cached", "uncached"])
def test_scores_of_a_single_label_classifier_are_right(tmp_path, augment):
    model, data = Net(), OneLabel(augment)
    scores, _ = finetune(single_label_job(tmp_path, model, epochs=6), data, make_trainer)
    assert scores.keys() == SINGLE_LABEL_METRICS
    image, labels = data.items("test")
    with torch.no_grad():
        predicted, true = model.eval()(image).argmax(dim=1), labels.argmax(dim=1)
    assert scores["test/accuracy"] == pytest.approx((predicted == true).float().mean().item())
    counts = [((predicted == c) & (true == c), predicted == c, true == c) for c in range(3)]
    counts = [[int(part.sum()) for part in parts] for parts in counts]
    precision = [hits / max(1, found) for hits, found, _ in counts]
    recall = [hits / max(1, present) for hits, _, present in counts]
    f_score = [2 * hits / (found + present) for hits, found, present in counts]
    for name, values in (("precision", precision), ("recall", recall), ("f_score", f_score)):
        assert scores[f"test/{name}"] == pytest.approx(sum(values) / 3, abs=1e-6), name


def test_a_single_label_classifier_learns_easy_data(tmp_path):
    scores, _ = finetune(single_label_job(tmp_path, epochs=60, lr=0.02, patience=60), OneLabel(), make_trainer)
    assert scores["test/accuracy"] > 0.9


def test_classes_that_neither_occur_nor_are_predicted_do_not_lower_the_single_label_scores():
    scores = SCORES["single_label"](1000)
    scores.update(torch.eye(1000)[:4], torch.eye(1000)[[0, 1, 2, 3]])
    assert {name: value.item() for name, value in scores.compute().items()} == dict.fromkeys(scores.keys(), 1.0)


# The cache of finished classifiers. A real architecture, since the cached file must rebuild it.


@pytest.fixture
def request_():
    options = FinetuneOptions(epochs=1, lr=1e-3, batch_size=8)
    return ClassifierRequest(card("timm:test_resnet", size=16), "none", options, seed=1, data=["toy", {"ids": ["a"]}])


def obtain(tmp_path, request, data=None, **options):
    data = data or Data()
    explanandum, scores = ExplanandumCache(tmp_path).obtain(request, data, make_trainer, tmp_path / "work", **options)
    return explanandum, scores, data


def test_the_second_time_nothing_is_trained(tmp_path, request_):
    first, scores, _ = obtain(tmp_path, request_)
    second, again, data = obtain(tmp_path, request_)
    assert sum(data.passes.values()) == 0
    assert again == scores
    assert scores.keys() == METRICS
    assert second.fingerprint == first.fingerprint
    assert second.card == request_.card
    assert [file.name for file in tmp_path.iterdir()] == [ExplanandumCache(tmp_path).file(request_).name]


def test_the_same_request_trains_the_same_classifier(tmp_path, request_):
    first, scores, _ = obtain(tmp_path / "a", request_)
    torch.rand(3)
    second, again, _ = obtain(tmp_path / "b", request_)
    assert first.fingerprint == second.fingerprint
    assert scores == again


def test_the_card_says_how_a_classifier_is_trained_and_scored(tmp_path, request_):
    request = replace(request_, card=replace(request_.card, output="single_label"))
    explanandum, scores, _ = obtain(tmp_path, request, OneLabel())
    assert scores.keys() == SINGLE_LABEL_METRICS
    assert explanandum.card.output == "single_label"


def test_refit_trains_again(tmp_path, request_):
    obtain(tmp_path, request_)
    _, _, data = obtain(tmp_path, request_, refit=True)
    assert data.passes["train"] > 0


def test_whatever_decides_the_result_decides_the_key(tmp_path, request_):
    torch.save({}, tmp_path / "a.pt")
    torch.save({"other": torch.zeros(1)}, tmp_path / "b.pt")
    changed = [
        request_,
        *(replace(request_, options=replace(request_.options, **change)) for change in (
            {"lr": 2e-3}, {"schedule": "cosine"}, {"warmup_steps": 1}, {"epochs": 2}, {"patience": 1},
            {"batch_size": 4}, {"freeze": False}, {"hidden": 8}, {"augment": "group_cam"},
        )),
        *(replace(request_, card=replace(request_.card, **change)) for change in (
            {"architecture": "resnet18"}, {"classes": ("a", "b", "c")}, {"image_size": 32}, {"mean": (0.1, 0.0, 0.0)},
            {"std": (0.5, 1.0, 1.0)}, {"output": "single_label"},
        )),
        replace(request_, seed=2),
        replace(request_, data=["toy", {"ids": ["b"]}]),
        replace(request_, weights="imagenet"),
        *(replace(request_, weights=str(tmp_path / name)) for name in ("a.pt", "b.pt")),
    ]  # fmt: skip
    assert len({request.key for request in changed}) == len(changed)


def test_a_weight_file_counts_by_its_content_not_by_its_path(tmp_path, request_):
    torch.save({}, tmp_path / "a.pt")
    (tmp_path / "copy.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    keys = {replace(request_, weights=str(tmp_path / name)).key for name in ("a.pt", "copy.pt")}
    assert len(keys) == 1
    torch.save({"new": torch.ones(1)}, tmp_path / "a.pt")
    assert replace(request_, weights=str(tmp_path / "a.pt")).key not in keys


def test_the_key_is_the_same_tomorrow(request_):
    # Another key would train every cached classifier again: change this literal only if that is what you want.
    assert request_.key == "29235d341893"


def run_with_explainer(folder, seed):
    """As much of a run's folder as the key looks at."""
    torch.manual_seed(seed)
    save_explainer(Explainer(3, "tu-test_resnet", decoder_channels=8), RunFolder(folder).explainer)
    return folder


def test_the_explainer_that_masks_images_counts_by_its_weights_not_by_its_path(tmp_path, request_):
    def key(folder):
        return replace(request_, options=replace(request_.options, augment="explainer", run=folder)).key

    first = key(run_with_explainer(tmp_path / "a", seed=1))
    assert key(run_with_explainer(tmp_path / "b", seed=1)) == first
    assert key(run_with_explainer(tmp_path / "a", seed=2)) not in (first, request_.key)


def test_a_file_with_a_head_that_fits_is_gone_on_with_and_another_head_is_replaced(tmp_path, request_):
    model, head = build_classifier(request_.card.architecture, 3, "none")
    Explanandum(model, request_.card).save(tmp_path / "trained.safetensors")
    request = replace(request_, weights=str(tmp_path / "trained.safetensors"))
    started, _ = _built(request)
    assert not differing(weights(model), weights(started))
    more_classes = replace(request, card=replace(request.card, classes=("a", "b", "c", "d")))
    started, _ = _built(more_classes)
    different = {name for name, value in started.state_dict().items() if not value.equal(weights(model)[name])}
    assert different == {f"{head}.weight", f"{head}.bias"}


def test_a_killed_request_goes_on_where_it_was(tmp_path, request_):
    request = replace(request_, options=replace(request_.options, epochs=3))
    expected, _, _ = obtain(tmp_path / "unbroken", request)

    def broken(callbacks, **keywords):
        return make_trainer(callbacks=[*callbacks, kill_at(1)], **keywords)

    cache, file = ExplanandumCache(tmp_path), ExplanandumCache(tmp_path).file(request)
    work = tmp_path / "work"
    with pytest.raises(Killed):
        cache.obtain(request, Data(), broken, work)
    assert not file.exists()
    assert (work / "last.ckpt").is_file()
    spy = Spy()

    def watched(callbacks, **keywords):
        return make_trainer(callbacks=[*callbacks, spy], **keywords)

    explanandum, _ = cache.obtain(request, Data(), watched, work)
    assert spy.epochs < 3
    assert explanandum.fingerprint == expected.fingerprint
    assert not work.exists()


def test_a_file_name_tells_the_architecture(tmp_path, request_):
    name = ExplanandumCache(tmp_path).file(request_).name
    assert name == f"timm-test_resnet_{request_.key}.safetensors"


def test_a_single_label_classifier_is_an_explanandum_too(tmp_path):
    model, _ = build_classifier("timm:test_resnet", 3, "none")
    Explanandum(model, card("timm:test_resnet", output="single_label")).save(tmp_path / "file.safetensors")
    explanandum = Explanandum.load(tmp_path / "file.safetensors")
    probabilities = explanandum.probabilities(explanandum(torch.randn(2, 3, 32, 32)))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
    assert freeze(Net(), output="multi_label").card.output == "multi_label"


def test_trainers_of_several_kinds_can_be_asked_for(tmp_path):
    scores, trainer = finetune(job(tmp_path), Data(), partial(make_trainer, precision="bf16-mixed"))
    assert scores.keys() == METRICS
    assert trainer.precision == "bf16-mixed"
