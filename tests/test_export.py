"""What python -m explainer.export writes gives PyTorch's masks, for batches and images of any size.

B images, C classes, H×W pixels.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_models import card

from explainer import Explainer
from explainer.entry import is_users_error
from explainer.export import formats
from explainer.export.__main__ import main
from explainer.export.check import batches, differences, photographs
from explainer.export.formats import exported, opened, write
from explainer.export.model import MaskModel

ROOT = Path(__file__).parents[1]
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


@pytest.fixture(params=[("torch", "32"), ("torch", "bf16"), ("onnx", "32"), ("onnx", "16")], ids="-".join)
def form(request):
    if request.param[0] == "onnx":
        needs_onnx()
    return request.param


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


def test_a_file_gives_pytorchs_masks_for_any_batch_and_size(model, form, tmp_path):
    format, precision = form
    file = tmp_path / "model"
    write(exported(model, CARD, precision), format, file, {"classes": list(CARD.classes)})
    run = opened(format, file, threads=1)
    images = [torch.rand(shape, generator=torch.Generator().manual_seed(2)) for shape in SHAPES]
    found = differences(model, run, images)
    assert list(found) == ["1x3x64x64", "3x3x64x64", "2x3x50x83"]
    assert max(found.values()) < TOLERANCES[precision]
    if precision != "32":
        assert max(found.values()) > 0  # else it would not be half precision
    assert run(images[0]).dtype == torch.float32
    assert next(model.parameters()).dtype == torch.float32


def test_the_files_carry_the_names_of_the_classes(model, tmp_path):
    program = exported(model, CARD, "32")
    write(program, "torch", tmp_path / "model.pt2", {"classes": list(CARD.classes)})
    notes = {"notes.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=notes)
    assert json.loads(notes["notes.json"])["classes"] == list(CARD.classes)
    needs_onnx()
    import onnx

    write(program, "onnx", tmp_path / "model.onnx", {"classes": list(CARD.classes)})
    found = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(found)
    assert json.loads({entry.key: entry.value for entry in found.metadata_props}["classes"]) == list(CARD.classes)


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
    assert report["versions"]["torch"] == torch.__version__
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


def test_masks_that_are_not_pytorchs_leave_no_file(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("explainer.export.__main__.opened", lambda *_: lambda image: image[:, :3] * 0 - 1)
    with pytest.raises(ValueError, match=r"differ from PyTorch's by more than 0\.001.*Try"):
        main(["--pretrained", str(saved), "--format", "torch", "--output", str(tmp_path / "masks.pt2")])
    assert not list(tmp_path.iterdir())


def test_masks_that_are_not_numbers_are_not_pytorchs(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("explainer.export.__main__.opened", lambda *_: lambda image: image[:, :3] * torch.nan)
    with pytest.raises(ValueError, match="nan"):
        main(["--pretrained", str(saved), "--format", "torch", "--output", str(tmp_path / "masks.pt2")])


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


def test_the_command_is_a_module_that_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "explainer.export", "--run", str(tmp_path), "--format", "torch"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} is not the folder of a run")


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
