"""Training images made by explanations: as the papers say, from each image alone, and never outside of training.

B images, C classes, N maps, H×W pixels.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from reference.augmentation import fine_tuning_image
from reference.convert import nested
from reference.nn_explainer import sigmoid, softmax
from small_runs import arguments
from test_finetune import Data, Killed, Net, OneLabel, Spy, differing, job, kill_at, make_trainer, weights
from torch import nn
from toy_models import BreakableNet, BrokenError, SmallNet, card, freeze, state_of

import train
from explainer.augmentation import (
    Augmentation,
    GroupCAMAugmentation,
    fitting_explainer,
    make_augmentation,
    salient_region,
)
from explainer.capture import CannotExplain, captured_activation
from explainer.classifiers import build_classifier
from explainer.finetune import ExplanandumModule, FinetuneOptions, finetune
from explainer.masking import apply_mask, merge_masks
from explainer.network import Explainer
from explainer.passes import recorded, totals
from explainer.run_folder import RunFolder, save_explainer
from programs.recipes import parse

OUTPUTS = pytest.mark.parametrize("output", ["multi_label", "single_label"])
LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]])
ONE_EACH = torch.eye(3)[[0, 2, 0, 1, 0]]


def images(count=5, height=28, width=32, seed=3):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def small_net():
    """Random weights with which each class finds something salient in each image."""
    return SmallNet(seed=1).eval()


# Group-CAM, Sec. 5


def reference(model, layer, output, groups):
    """The plain loops for one image and its labels, asking the model in float64."""
    squash = {"multi_label": lambda logits: [sigmoid(logit) for logit in logits], "single_label": softmax}[output]

    def probabilities(picture):
        with torch.no_grad():
            return squash(nested(model(torch.tensor(picture, dtype=torch.float64)[None])[0]))

    def augmented(image, labels):
        with torch.no_grad(), captured_activation(model, layer) as captured:
            model(image.double()[None])
        activations = nested(captured.value[0])
        settings = {"groups": groups, "blur_size": 51, "blur_sigma": 50.0}
        return torch.tensor(fine_tuning_image(nested(image), labels.tolist(), activations, probabilities, **settings))

    return augmented


@pytest.mark.parametrize(("layer", "groups"), [("features", 16), ("features.5", 3)], ids=["16 groups", "uneven groups"])
@pytest.mark.parametrize(("output", "labels"), [("multi_label", LABELS), ("single_label", ONE_EACH)])
def test_the_batch_is_that_of_the_paper_step_by_step(output, labels, layer, groups):
    image = images()
    step_by_step = reference(small_net().double(), layer, output, groups)
    expected = torch.stack([step_by_step(*pair) for pair in zip(image, labels, strict=True)])
    augmented, same_labels = GroupCAMAugmentation(layer, output, groups)(small_net(), image, labels)
    torch.testing.assert_close(augmented, expected.float(), rtol=1e-4, atol=1e-5)
    changed = (augmented != image).any(dim=1).float().mean(dim=(1, 2))
    assert ((changed > 0.1) & (changed < 0.9)).sum() >= 3, "nothing is there to compare"
    assert torch.equal(same_labels, labels)


def test_a_pixel_stays_sharp_if_it_is_above_the_mean_of_its_own_map():
    maps = torch.tensor([[[0.0, 1], [2, 1]], [[0, 100], [0, 0]], [[0, 0], [0, 8]]])  # means 1, 25 and 2
    region = salient_region(maps, torch.tensor([0, 2, 2]), 3)
    assert region.tolist() == [
        [[False, False], [True, False]],
        [[True, True], [True, True]],  # without a map
        [[False, True], [False, True]],
    ]


def test_what_is_salient_for_any_class_of_an_image_stays_sharp():
    augment, image = GroupCAMAugmentation("features", "multi_label"), images()
    sharp = {}
    for classes in ([0], [1], [0, 1]):
        labels = torch.zeros(5, 3)
        labels[:, classes] = 1
        sharp[tuple(classes)] = (augment(small_net(), image, labels)[0] == image).all(dim=1)
    assert all((~part).any(dim=2).any(dim=1).all() for part in sharp.values()), "nothing is blurred"
    assert (sharp[0,] != sharp[1,]).any(dim=2).any(dim=1).all()
    assert torch.equal(sharp[0, 1], sharp[0,] | sharp[1,])


def test_an_image_without_a_class_stays_as_it_is():
    image = images()
    augmented, labels = GroupCAMAugmentation("features", "multi_label")(small_net(), image, LABELS)
    assert torch.equal(augmented[2], image[2])
    assert not torch.equal(augmented[3], image[3])
    nothing, _ = GroupCAMAugmentation("features", "multi_label")(small_net(), image, torch.zeros(5, 3))
    assert torch.equal(nothing, image)


@pytest.mark.parametrize("sign", [0.0, -1.0], ids=["all groups flat", "no group adds to the score"])
def test_an_image_of_which_nothing_is_salient_stays_as_it_is(sign):
    class Darkness(nn.Module):
        """Its score falls with brightness, which only a blurred image lacks."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1, bias=False)
            nn.init.constant_(self.layer.weight, abs(sign))

        def forward(self, image):
            return sign * self.layer(image).relu().mean(dim=(2, 3))[:, :3]

    image = images()
    augmented, _ = GroupCAMAugmentation("layer", "multi_label")(Darkness(), image, torch.ones(5, 3))
    assert torch.equal(augmented, image)


@OUTPUTS
def test_a_batch_is_its_images_one_by_one_whatever_the_labels_of_the_others(output):
    augment, image = GroupCAMAugmentation("features", output, chunk_size=7), images()
    together, _ = augment(small_net(), image, LABELS)
    for index in range(len(image)):
        alone, _ = augment(small_net(), image[index : index + 1], LABELS[index : index + 1])
        torch.testing.assert_close(alone[0], together[index])
        others = 1 - LABELS
        others[index] = LABELS[index]
        torch.testing.assert_close(augment(small_net(), image, others)[0][index], together[index])


def test_nothing_is_remembered_from_batch_to_batch():
    augment, model = GroupCAMAugmentation("features", "multi_label"), small_net()
    first, _ = augment(model, images(), LABELS)
    augment(model, images(seed=4), 1 - LABELS)
    assert torch.equal(augment(model, images(), LABELS)[0], first)
    assert not augment.state_dict()


def in_training(model):
    """Modes that are mixed, gradients that wait for the optimiser: what a step finds in the middle of training."""
    model.train()
    model.features[1].eval()
    model.features[0].requires_grad_(False)
    model(images()).sum().backward()
    return model


def test_the_classifier_is_left_as_it_was():
    model = in_training(SmallNet())
    before, random = state_of(model), torch.get_rng_state()
    GroupCAMAugmentation("features", "multi_label")(model, images(), LABELS)
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_the_classifier_is_left_as_it_was_after_an_error_too():
    model = in_training(BreakableNet())
    model.breaks.broken = True
    before = state_of(model)
    with pytest.raises(BrokenError):
        GroupCAMAugmentation("features", "multi_label")(model, images(), LABELS)
    assert state_of(model) == before


def test_dropout_and_batch_statistics_play_no_part():
    augment = GroupCAMAugmentation("features", "multi_label")
    as_trained, _ = augment(small_net().train(), images(), LABELS)
    assert torch.equal(as_trained, augment(small_net(), images(), LABELS)[0])


@pytest.mark.parametrize("labels", [LABELS, torch.ones(5, 3)])
def test_eighteen_forward_passes_an_image_whatever_the_number_of_its_classes(labels):
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))
    with recorded(model) as passes:
        GroupCAMAugmentation("0", "multi_label", chunk_size=12)(model, images(), labels)
    assert totals(passes) == (18 * 5, 0)
    assert max(single.images for single in passes) <= 12


def test_under_autocast_the_step_after_it_still_reaches_every_weight():
    # Autocast keeps its bf16 copies of the weights; copies made without gradients would cut the training off.
    model = SmallNet().train()
    module = ExplanandumModule(
        model, model, 3, FinetuneOptions(), augmentation=GroupCAMAugmentation("features", "multi_label")
    )
    with torch.autocast("cpu", torch.bfloat16):
        image, labels = module.augmentation(model, images(), LABELS)
        module(image).float().square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in model.parameters())


def test_the_layer_is_the_classifiers_last_map_and_finding_it_changes_nothing():
    model = in_training(SmallNet())
    before = state_of(model)
    augment = make_augmentation("group_cam", None, model, card(output="single_label"))
    assert (augment.layer, augment.output, augment.groups) == ("features", "single_label", 16)
    assert state_of(model) == before
    assert make_augmentation("none", None, model, card()) is None


def test_a_classifier_without_maps_is_refused_before_it_is_trained():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    with pytest.raises(CannotExplain, match="No layer of the classifier gives a spatial map"):
        make_augmentation("group_cam", None, model, card())


# NN-Explainer, Sec. 5


def small_explainer(classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = Explainer(classes, "tu-test_resnet", decoder_channels=8)
        nn.init.normal_(network.deeplab.segmentation_head[0].weight)  # masks that are not grey all over
    return network


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with classes cat, dog and hen, images of 32 pixels and no normalisation."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.config.write_text("dataset: toy\n")
    make_explanandum().save(folder.explanandum)
    save_explainer(small_explainer(), folder.explainer)
    return folder.path


def make_explanandum():
    model, _ = build_classifier("timm:test_resnet", 3, "none")
    return freeze(model, architecture="timm:test_resnet")


def test_the_explainers_batch_is_the_images_and_what_their_target_masks_leave(run):
    augment = make_augmentation("explainer", run, small_net(), card())
    image = images(height=32)
    batch, labels = augment(small_net(), image, LABELS)
    with torch.no_grad():
        mask, _ = merge_masks(small_explainer().eval()(image), LABELS)
    assert mask.std() > 0.01
    assert torch.equal(batch[:5], image)
    torch.testing.assert_close(batch[5:], apply_mask(image, mask))
    assert torch.equal(labels, torch.cat([LABELS, LABELS]))
    assert batch[7].count_nonzero() == 0  # without a class, nothing is kept


def test_the_explainer_is_frozen_and_no_part_of_the_checkpoint(run):
    augment = make_augmentation("explainer", run, small_net(), card())
    model = SmallNet()
    module = ExplanandumModule(model, model, 3, FinetuneOptions(), augmentation=augment)
    module.train()
    assert not any(part.training for part in augment.modules())
    assert not any(value.requires_grad for value in augment.parameters())
    assert module.state_dict().keys() == model.state_dict().keys()
    before = state_of(augment)
    batch, _ = augment(model, images(height=32), LABELS)
    assert not batch.requires_grad
    assert state_of(augment) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("cat", "dog")}, r"other classes \(cat, dog, hen\) than the data set has \(cat, dog\)"),
        ({"classes": ("dog", "cat", "hen")}, "or in another order; choose a run on this data set"),
        ({"image_size": 64}, "takes images with image_size 32, the classifier with image_size 64; choose --image_size"),
        ({"mean": (0.5, 0.5, 0.5)}, r"takes images with mean \(0.0, 0.0, 0.0\)"),
        ({"std": (0.5, 0.5, 0.5)}, r"takes images with std \(1.0, 1.0, 1.0\)"),
    ],
)
def test_an_explainer_for_other_images_or_classes_is_refused(run, change, message):
    with pytest.raises(ValueError, match=message):
        make_augmentation("explainer", run, small_net(), replace(card(), **change))


def test_a_folder_that_is_no_run_or_has_no_explainer_yet_is_refused(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        fitting_explainer(tmp_path, card())
    (tmp_path / "config.yaml").write_text("dataset: toy\n")
    make_explanandum().save(tmp_path / "explanandum.safetensors")
    with pytest.raises(FileNotFoundError, match="has no explainer.safetensors yet"):
        fitting_explainer(tmp_path, card())


# In training


class Calls(Augmentation):
    """Notes what it is asked, and gives the images back, darker."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, classifier, image, labels):
        self.seen.append(image.clone())
        return image / 2, labels


@pytest.mark.parametrize("freeze_", [True, False])
def test_training_images_alone_are_augmented(tmp_path, freeze_):
    calls, data = Calls(), Data()
    given = {name: [] for name in ("train", "val", "test")}
    model = Net()

    class Watch(Spy):
        stage = "train"

        def on_train_batch_start(self, *arguments):
            self.stage = "train"

        def on_validation_batch_start(self, *arguments):
            self.stage = "val"

        def on_test_batch_start(self, *arguments):
            self.stage = "test"

    watch = Watch()
    model.register_forward_pre_hook(lambda _module, inputs: given[watch.stage].append(inputs[0].clone()))
    finetune(replace(job(tmp_path, model, [watch], freeze=freeze_), augmentation=calls), data, make_trainer)
    assert len(calls.seen) == len(given["train"]) == 2 * 40 // 8
    for before, after in zip(calls.seen, given["train"], strict=True):
        assert torch.equal(after, before / 2)
    for split in ("val", "test"):
        image, _ = data.items(split)
        assert torch.equal(torch.cat(given[split])[: len(image)], image)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("data", [Data, OneLabel])
@pytest.mark.parametrize("name", ["group_cam", "explainer"])
def test_every_weight_is_trained_in_every_precision(tmp_path, run, name, data, precision):
    output = "single_label" if data is OneLabel else "multi_label"
    work = augmented_job(tmp_path, run, name, output, freeze=False)
    before, masks = weights(work.model), weights(work.augmentation)
    scores, _ = finetune(work, data(), partial(make_trainer, precision=precision))
    assert differing(before, weights(work.model)) == set(before)
    assert not differing(masks, weights(work.augmentation))
    assert all(0 <= value <= 1 for value in scores.values())


def augmented_job(tmp_path, run, name, output="multi_label", **options):
    model = Net()
    augmentation = make_augmentation(name, run, model, card(output=output))
    return replace(job(tmp_path, model, **options), output=output, augmentation=augmentation)


def test_the_augmentation_decides_what_is_learned(tmp_path, run):
    names = ("none", "group_cam", "explainer")
    trained = {name: augmented_job(tmp_path / name, run, name, freeze=False) for name in names}
    for work in trained.values():
        finetune(work, Data(), make_trainer)
    for name, other in (names[:2], names[1:], names[::2]):
        assert differing(weights(trained[name].model), weights(trained[other].model))


@pytest.mark.parametrize("name", ["group_cam", "explainer"])
def test_a_killed_training_goes_on_and_ends_as_an_unbroken_one(tmp_path, run, name):
    options = {"epochs": 3, "freeze": False}
    unbroken = augmented_job(tmp_path / "a", run, name, **options)
    expected, _ = finetune(unbroken, Data(), make_trainer)
    with pytest.raises(Killed):
        finetune(augmented_job(tmp_path / "b", run, name, callbacks=[kill_at(1)], **options), Data(), make_trainer)
    spy = Spy()
    resumed = augmented_job(tmp_path / "b", run, name, callbacks=[spy], **options)
    scores, _ = finetune(resumed, Data(), make_trainer)
    assert 1 <= spy.epochs < 3
    assert not differing(weights(unbroken.model), weights(resumed.model))
    assert scores == expected


# On the command line


@pytest.mark.parametrize("half", ["augment explainer", "run x", "augment group_cam run x"])
def test_a_run_is_named_for_the_explainer_and_for_nothing_else(half):
    with pytest.raises(ValueError, match="needs the folder of a run whose Explainer is trained"):
        parse([f"--finetune.{word}" if word in ("augment", "run") else word for word in half.split()])


def test_a_run_of_other_images_is_refused_before_there_is_a_folder(tmp_path, run):
    options = ("--stage", "explanandum", "--finetune.augment", "explainer", "--finetune.run", run)
    with pytest.raises(ValueError, match="knows other classes"):
        train.main(arguments(tmp_path, *options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["group_cam", "explainer"])
def test_a_run_trains_its_classifier_on_augmented_images(small_run, tmp_path, name):
    source = ("--finetune.run", small_run) if name == "explainer" else ()
    start = ("--explanandum_weights", small_run / "explanandum.safetensors")
    options = ("--stage", "explanandum", "--finetune.augment", name, *source, *start)
    folder = train.main(arguments(tmp_path, *options))
    assert folder.load_explanandum().fingerprint != RunFolder(small_run).load_explanandum().fingerprint
    assert parse(["--config", str(folder.config)])[0].finetune.augment == name
