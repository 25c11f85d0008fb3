"""Rows' methods: their keys are equal exactly where their maps are."""

import pytest
import torch
from toy_models import SmallNet, freeze

from explainer.attribution import METHODS
from explainer.attribution.spec import deciding_options, parse_method
from explainer.evaluation import named_method
from explainer.network import Explainer


def key(text="group_cam", seed=0, precision="32-true", **resources):
    """Of a method for a small classifier."""
    return named_method(text, freeze(SmallNet(seed=seed)), precision, **resources).key


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("group_cam", "group_cam:groups=32"),
        ("group_cam", "group_cam:sigma=50"),  # the default is 50.0
        ("group_cam", "group_cam:theta=70,groups=32"),
        ("group_cam:groups=4,theta=50", "group_cam:theta=50,groups=4"),
        ("group_cam", "group_cam:chunk_size=2"),
        ("pami", "pami:workers=2"),
        ("pami_window", "pami_window:radius=40.0"),
        ("pami", "pami:segmentation=all"),
    ],
)
def test_texts_that_say_the_same_have_one_key(text, other):
    assert key(text) == key(other)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("group_cam", "group_cam:groups=31"),
        ("group_cam", "group_cam:theta=null"),
        ("group_cam", "group_cam_head"),
        ("grad_cam", "grad_cam:target_layer=features.4"),
        ("random", "random:seed=1"),
        ("rise", "rise:masks=100"),
        ("pami_window", "pami_window:radius=[20,40]"),
        ("pami", "pami:second_run=false"),
        ("pami", "pami:segmentation=slic"),
    ],
)
def test_options_that_change_a_map_change_the_key(text, other):
    assert key(text) != key(other)


def test_an_option_that_came_later_leaves_kept_maps_valid():
    """By the key they are found again, and it is made of the options."""
    assert deciding_options(parse_method("pami")) == {"second_run": True, "shifts": False, "masking": "blur"}
    assert deciding_options(parse_method("pami:segmentation=slic"))["segmentation"] == "slic"


def test_the_key_tells_classifiers_and_precisions_apart():
    assert key() == key()
    assert len({key(), key(seed=1), key(precision="bf16-mixed")}) == 3


def test_where_a_classifier_s_weights_lie_does_not_matter():
    moved = freeze(SmallNet()).to(memory_format=torch.channels_last)
    assert named_method("group_cam", moved, "32-true").key == key()


def test_what_only_the_computer_decides_is_not_in_the_key():
    assert key("pami", workers=0) == key("pami", workers=3)


def test_another_trained_network_is_another_method():
    networks = [Explainer(3, encoder="mobilenet_v2", output_stride=16, decoder_channels=8) for _ in range(2)]
    keys = [key("explainer", network=network) for network in networks]
    assert len(set(keys)) == 2
    assert key("explainer", network=networks[0]) == keys[0]


def test_a_row_keeps_the_text_it_was_asked_for_with():
    row = named_method("group_cam:groups=8", freeze(SmallNet()), "32-true", "vgg16")
    assert (row.name, row.classifier, row.method.groups) == ("group_cam:groups=8", "vgg16", 8)


def test_a_misspelt_option_is_an_error():
    with pytest.raises(ValueError, match="Unknown option 'group=8' of method 'group_cam'"):
        key("group_cam:group=8")


@pytest.mark.parametrize("part", ["grad_cam", "i_gos"])
def test_a_new_version_of_a_method_changes_the_keys_of_what_is_made_of_it(monkeypatch, part):
    before = key("aop"), key(part), key("rise")
    monkeypatch.setattr(METHODS[part], "version", 7)
    after = key("aop"), key(part), key("rise")
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]
