"""What python -m explainer.export writes gives PyTorch's masks, for batches and images of any size.

B images, C classes, H×W pixels.
"""

import json
import runpy
import sys
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import skip_if_nothing_can_be_exported
from timm.layers import padding
from toy_models import card

from explainer import Explainer
from explainer.entry import is_users_error
from explainer.export import formats
from explainer.export.__main__ import main
from explainer.export.check import batches, differences, photographs
from explainer.export.formats import exported, opened, whole_number_padding, write
from explainer.export.model import MaskModel

skip_if_nothing_can_be_exported()

CARD = card(size=64)
SHAPES = [(1, 3, 64, 64), (3, 3, 64, 64), (2, 3, 50, 83)]
TOLERANCES = {"32": 1e-4, "16": 0.02, "bf16": 0.1}


def small(classes=3, **options):
    torch.manual_seed(0)
    network = Explainer(classes, "tu-test_resnet", output_stride=16, decoder_channels=16, **options).eval()
    for value in network.buffers():  # running statistics that are not those of a fresh network
        if value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    return network


@pytest.fixture(scope="module")
def model():
    return MaskModel(small(), CARD).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An Explainer in a folder, with a card that normalises."""
    folder = tmp_path_factory.mktemp("saved") / "explainer"
    normalising = type(CARD)("toy", CARD.classes, CARD.image_size, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    small(card=normalising).save_pretrained(folder)
    return folder


def needs_onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'explainer[export]'")


@pytest.fixture(scope="module")
def program(model):
    """The model as torch.export has it, by precision; made once."""
    return cache(lambda precision: exported(model, CARD, precision))


@pytest.fixture(
    scope="module", params=[("torch", "32"), ("torch", "bf16"), ("onnx", "32"), ("onnx", "16")], ids="-".join
)
def form(request, program, tmp_path_factory):
    """Format and precision, and a file of it."""
    format, precision = request.param
    if format == "onnx":
        needs_onnx()
    file = tmp_path_factory.mktemp("model") / "model"
    write(program(precision), format, file, {"classes": list(CARD.classes)})
    return format, precision, file


def test_the_model_takes_plain_images_and_gives_the_explainers_masks():
    network, image = small(card=CARD), torch.rand(2, 3, 64, 64)
    normalising = type(CARD)("toy", CARD.classes, 64, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    with torch.no_grad():
        masks = MaskModel(network, normalising)(image)
        mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.4])[:, None, None]
        torch.testing.assert_close(masks, network((image - mean) / std).sigmoid())


def test_only_the_masks_that_were_asked_for_come_out_in_their_order():
    network, image = small(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        everything, some = MaskModel(network, CARD)(image), MaskModel(network, CARD, [2, 0])(image)
    assert torch.equal(some, everything[:, [2, 0]])


def test_a_file_gives_pytorchs_masks_for_any_batch_and_size(model, form):
    format, precision, file = form
    run = opened(format, file, threads=1)
    images = [torch.rand(shape, generator=torch.Generator().manual_seed(2)) for shape in SHAPES]
    found = differences(model, run, images)
    assert list(found) == ["1x3x64x64", "3x3x64x64", "2x3x50x83"]
    assert max(found.values()) < TOLERANCES[precision]
    if precision != "32":
        assert max(found.values()) > 1e-5  # else it would not be half precision
    assert run(images[0]).dtype == torch.float32
    assert next(model.parameters()).dtype == torch.float32


def test_a_file_carries_the_names_of_the_classes(form):
    format, _, file = form
    if format == "torch":
        notes = {"notes.json": ""}
        with file.open("rb") as archive:
            torch.export.load(archive, extra_files=notes)
        found = json.loads(notes["notes.json"])["classes"]
    else:
        import onnx

        saved = onnx.load(file, format="protobuf")
        onnx.checker.check_model(saved)
        found = json.loads({entry.key: entry.value for entry in saved.metadata_props}["classes"])
    assert found == list(CARD.classes)


def test_the_command_writes_the_file_and_says_how_far_it_is_from_pytorch(saved, tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    file = main(
        [*("--pretrained", str(saved), "--format", "torch", "--output", str(tmp_path / "masks.pt2")),
         *("--images", str(tmp_path / "a.png"), "--classes", "hen", "cat")]
    )  # fmt: skip
    report = json.loads((tmp_path / "masks.pt2.json").read_text())
    assert report["classes"] == ["hen", "cat"]
    assert max(report["largest_difference_from_pytorch"].values()) < 1e-4
    assert len(report["largest_difference_from_pytorch"]) == 3
    assert (report["image_size"], report["precision"], report["format"]) == (64, "32", "torch")
    assert torch.__version__.startswith(report["versions"]["torch"])
    printed = capsys.readouterr().out
    assert "masks of 2 classes" in printed
    assert "largest difference from PyTorch in float32, images 1x3x64x64" in printed
    again, image = Explainer.from_pretrained(saved), torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(values)[:, None, None] for values in (again.card.mean, again.card.std))
    with torch.no_grad():
        torch.testing.assert_close(
            opened("torch", file)(image), again((image - mean) / std).sigmoid()[:, [2, 0]], atol=1e-5, rtol=0
        )


def test_a_runs_explainer_is_exported_into_its_folder(small_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "explainer.safetensors", "explanandum.safetensors", "metrics.csv", "environment.txt"):
        (run / name).symlink_to(small_run / name)
    assert main(["--run", str(run), "--format", "torch"]) == run / "explainer.pt2"
    assert len(json.loads((run / "explainer.pt2.json").read_text())["classes"]) == 10


@pytest.mark.parametrize("wrong", [-1, torch.nan])
def test_masks_that_are_not_pytorchs_leave_no_file(saved, program, tmp_path, monkeypatch, wrong):
    monkeypatch.setattr("explainer.export.__main__.exported", lambda *_: program("32"))
    monkeypatch.setattr("explainer.export.__main__.opened", lambda *_: lambda image: image[:, :3] * 0 + wrong)
    with pytest.raises(ValueError, match=r"differ from PyTorch's by more than 0\.001.*Try"):
        main(["--pretrained", str(saved), "--format", "torch", "--output", str(tmp_path / "masks.pt2")])
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_torch_cannot_export_is_an_error_for_people(model, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no such operator\nand a page of details")

    monkeypatch.setattr("torch.export.export", fails)
    with pytest.raises(
        ValueError, match=r"can't export this Explainer \(RuntimeError: no such operator\); try another"
    ):
        exported(model, CARD, "32")


def test_padding_in_whole_numbers_is_timms_padding():
    sizes = [(size, kernel, stride, dilation) for size in range(1, 40) for kernel in (1, 2, 3, 5) for stride in (1, 2, 3) for dilation in (1, 2)]  # fmt: skip  # noqa: E501
    expected = [padding.get_same_padding(*each) for each in sizes]
    original = padding.get_same_padding
    with whole_number_padding():
        assert padding.get_same_padding is not original
        assert [padding.get_same_padding(*each) for each in sizes] == expected
    assert padding.get_same_padding is original


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onnx", "--precision", "bf16"], "onnxruntime can't run bf16.*--precision 16"),
        (["--format", "torch", "--classes", "cow"], "Unknown class 'cow'.*cat, dog, hen"),
        (["--format", "torch", "--images", "nothing.jpg"], "nothing.jpg"),
    ],
)
def test_what_cannot_be_exported_says_why(saved, arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        main(["--pretrained", str(saved), *arguments])


def test_without_the_packages_for_onnx_the_error_names_the_extra(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it was not installed
    with pytest.raises(ImportError, match=r"pip install 'explainer\[export\]'") as caught:
        main(["--pretrained", str(saved), "--format", "onnx"])
    assert is_users_error(caught.value)


def test_the_command_is_a_module_that_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export", "--run", str(tmp_path), "--format", "torch"])
    monkeypatch.delitem(sys.modules, "explainer.export.__main__")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("explainer.export", run_name="__main__")
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} is not the folder of a run")


def test_the_check_uses_photographs_of_several_shapes():
    pictures = photographs([])
    assert len(pictures) == 4
    assert all(picture.std() > 0.1 for picture in pictures)
    assert [tuple(batch.shape) for batch in batches(pictures, 64)] == [(4, 3, 64, 64), (1, 3, 48, 73), (1, 3, 78, 64)]


def test_a_compiled_explainer_gives_the_same_masks():
    network, image = small(), torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        expected = network(image)
        network.compile(backend="aot_eager")  # what differs between backends is torch's business
        torch.testing.assert_close(network(image), expected)
        torch.testing.assert_close(network(image, enlarged=False).shape, torch.Size([2, 3, 3, 3]))


def test_formats_have_a_suffix_each():
    assert set(formats.SUFFIXES.values()) == {".onnx", ".pt2"}


@pytest.mark.parametrize(
    ("version", "old"), [("2.11.0", True), ("2.13.1+cpu", True), ("2.14.0+cu130", False), ("3.0", False)]
)
def test_an_old_pytorch_is_refused_before_anything_is_loaded(monkeypatch, version, old):
    monkeypatch.setattr(torch, "__version__", version)
    if old:
        with pytest.raises(
            ImportError, match="Exporting needs PyTorch 2.14 or newer.*pip install --upgrade torch"
        ) as refused:
            main(["--run", "nowhere", "--format", "torch"])
        assert is_users_error(refused.value)
    else:
        formats.require_recent_torch()
