"""benchmarks/methods.py counts what really goes through the classifier, and its floor does the same."""

import csv

import methods
import peers
import pytest
import torch
from methods import build_method, floor, main, photographs
from toy_models import SmallNet, freeze

from explainer.attribution.spec import parse_method
from explainer.explanandum import ClassifierCard
from explainer.passes import Pass, recorded

TINY = ["--architectures", "timm:test_resnet", "--size", "64", "--batch", "2", "--rounds", "2", "--seconds", "0"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The rows of a small run, by method, and the notes beside them."""
    file = tmp_path_factory.mktemp("benchmark") / "methods.csv"
    names = ["grad_cam", "rise:masks=8", "group_cam:groups=4", "random", "gradient", "integrated_gradients:steps=5"]
    main([*TINY, "--methods", *names, "--output", str(file)])
    with file.open(newline="") as opened:
        return {row["method"]: row for row in csv.DictReader(opened)}, file.with_suffix(".txt").read_text()


def passes(row):
    return float(row["forward_per_image"]), float(row["backward_per_image"])


def test_rows_hold_the_passes_that_the_methods_make(table):
    rows, _ = table
    assert passes(rows["grad_cam"]) == passes(rows["captum LayerGradCam"]) == (1, 1)
    assert passes(rows["rise:masks=8"]) == (8, 0)
    forward, backward = passes(rows["group_cam:groups=4"])
    assert 2 < forward <= 6  # the image, the blurred one, and each group's whose map is not flat
    assert backward == 1
    assert passes(rows["random"]) == (0, 0)
    assert passes(rows["gradient"]) == passes(rows["captum Saliency"]) == (1, 1)
    assert passes(rows["integrated_gradients:steps=5"]) == passes(rows["captum IntegratedGradients"]) == (5, 5)


def test_a_method_that_asks_the_classifier_has_a_ratio_to_its_floor(table):
    rows, _ = table
    for name in ("grad_cam", "rise:masks=8", "group_cam:groups=4"):
        row = {key: float(value) for key, value in rows[name].items() if key.endswith(("image", "ratio"))}
        assert 0 < row["lowest_ratio"] <= row["ratio"] <= row["highest_ratio"]
        assert row["s_per_image"] > 0 < row["bare_s_per_image"]
    for name in ("random", "captum LayerGradCam"):
        assert float(rows[name]["s_per_image"]) > 0
        assert rows[name]["ratio"] == rows[name]["bare_s_per_image"] == ""


def test_the_machine_is_described_beside_the_table(table):
    assert {"torch", "gpu", "threads", "torchcam"} <= {line.split(":")[0] for line in table[1].splitlines()}


OPTIONS = (
    "grad_cam",
    "rise:masks=5,chunk_size=4",
    "pami_window:radius=8,step=5,chunk_size=16",
    "i_gos:iterations=1,steps=3",
    "sigcam:iterations=1",
    "occlusion:window=16,step=8,chunk_size=5",
    *("gradient", "guided_backprop", "full_grad", "lrp"),
    "smooth_grad:samples=3,chunk_size=4",
    "integrated_gradients:steps=3",
    "xrai:segments=slic,steps=2",
)


@pytest.mark.parametrize("method", OPTIONS)
def test_the_floor_makes_the_same_passes_as_the_method(method):
    explanandum = freeze(SmallNet())
    image = photographs(explanandum.card, 2, "cpu")
    built = build_method(method, explanandum)
    with recorded(explanandum.model) as found:
        built(image, torch.tensor([0, 1]))
    repeat = floor(explanandum, found, image)
    with recorded(explanandum.model) as repeated:
        repeat()
    assert [(one.images, one.backward) for one in found] == [(one.images, one.backward) for one in repeated]
    assert [one.to_image for one in found if one.backward] == [one.to_image for one in repeated if one.backward]
    assert not explanandum.model._forward_hooks


def test_every_method_that_other_libraries_have_is_measured_if_nothing_else_is_said():
    assert set(peers.PEERS) <= {parse_method(text).name for text in methods.METHODS}


def test_a_gradient_to_the_layer_is_told_from_one_to_the_image():
    explanandum = freeze(SmallNet())
    image = photographs(explanandum.card, 2, "cpu")
    grad_cam = build_method("grad_cam", explanandum)
    with recorded(explanandum.model) as found:
        grad_cam(image, torch.tensor([0, 1]))
        explanandum(image.requires_grad_())[:, 0].sum().backward()
        explanandum(image.detach())
    assert found == [Pass(2, to_image=False, backward=1), Pass(2, to_image=True, backward=1), Pass(2, to_image=False)]


def test_images_are_photographs_that_differ_as_the_card_wants_them():
    card = ClassifierCard("toy", ("cat",), 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    image = photographs(card, 10, "cpu")
    assert image.shape == (10, 3, 32, 32)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert len(image.unique(dim=0)) == 10
    pixels = image * torch.tensor(card.std)[:, None, None] + torch.tensor(card.mean)[:, None, None]
    assert pixels.min() > -1e-3
    assert 0.5 < pixels.max() < 1.001


@pytest.mark.parametrize(
    "wrong", [["--methods", "gradcam"], ["--methods", "rise:mask=3"], ["--architectures", "vgg15"]]
)
def test_a_wrong_name_is_an_error_before_anything_is_measured(wrong, capsys):
    with pytest.raises(SystemExit):
        main(wrong)
    assert " one of: " in capsys.readouterr().err


def test_emulated_bfloat16_is_not_measured(monkeypatch, capsys):
    monkeypatch.setattr(methods, "has_native_bf16", lambda _: False)
    with pytest.raises(SystemExit):
        main(["--bf16"])
    assert "leave out --bf16" in capsys.readouterr().err
