"""explain.py: whatever images a user has become masks of their own size, and what can't be explained is told."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from own_code import NET, no_own_code, write_code
from PIL import Image

import explain
from datamodules.shapes import CLASSES
from explainer import Explainer
from explainer.attribution.grad_cam import GradCAM
from explainer.explaining import prepare
from explainer.own_classifier import use_own_code
from explainer.run_folder import RunFolder

__all__ = ["no_own_code"]


def noise(size, seed=0):
    """A picture (W, H) that is nowhere flat."""
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def pictures(tmp_path):
    """Files of many kinds, two folders deep, one of them broken."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    noise((60, 40)).save(folder / "a.png")
    noise((33, 90)).save(folder / "more" / "a.jpg")
    noise((20, 20)).convert("L").save(folder / "more" / "grey.TIF")
    noise((30, 10)).quantize(8).save(folder / "palette.gif")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    noise((9, 9)).save(folder / ".hidden.png")
    return folder


def run(*arguments):
    """The results' folder and its summary; `failed` must then be looked at."""
    status = 0
    try:
        explain.main([*map(str, arguments), "--workers", "0", "--accelerator", "cpu"])
    except SystemExit as stop:
        status = stop.code
    folder = next(argument for name, argument in zip(arguments, arguments[1:], strict=False) if name == "--output")
    return status, json.loads((folder / "explanations.json").read_text())


def test_every_image_is_explained_at_its_own_size_and_the_broken_one_told(small_run, pictures, tmp_path, capsys):
    output = tmp_path / "out"
    status, summary = run(pictures, "--run", small_run, "--output", output, "--batch_size", 2)
    assert status == 1
    assert [one["folder"] for one in summary["images"]] == ["a.png", "more/a.jpg", "more/grey.TIF", "palette.gif"]
    assert [(one["width"], one["height"]) for one in summary["images"]] == [(60, 40), (33, 90), (20, 20), (30, 10)]
    assert [failure["file"] for failure in summary["failed"]] == [str(pictures / "broken.jpg")]
    printed = capsys.readouterr()
    assert "Explained 4 of 5 images" in printed.out
    assert "broken.jpg: Cannot read image" in printed.err and "--on_bad_image" not in printed.err


def test_a_mask_is_the_same_in_all_its_files(small_run, pictures, tmp_path):
    output = tmp_path / "out"
    status, summary = run(pictures / "more" / "a.jpg", "--run", small_run, "--output", output)
    assert status == 0
    (image,) = summary["images"]
    said = image["methods"]["explainer"]
    arrays = np.load(output / said["arrays"], allow_pickle=False)
    assert arrays["masks"].dtype == np.float32 and arrays["masks"].shape == (len(said["classes"]), 90, 33)
    assert arrays["classes"].tolist() == [one["class"] for one in said["classes"]]
    for one, mask, probability in zip(said["classes"], arrays["masks"], arrays["probabilities"], strict=True):
        assert mask.min() >= 0 and mask.max() <= 1
        with Image.open(output / one["mask"]) as grey:
            assert grey.mode == "L"
            assert np.abs(np.asarray(grey) / 255 - mask).max() <= 0.5 / 255 + 1e-6
        with Image.open(output / one["overlay"]) as overlay:
            assert overlay.size == (33, 90)
        assert one["area"] == pytest.approx(mask.mean(), abs=1e-5)
        assert one["probability"] == pytest.approx(probability, abs=1e-5)
    with Image.open(output / image["sheet"]) as sheet:
        assert sheet.width > 300


def test_the_masks_are_those_of_the_trained_explainer(small_run, tmp_path):
    noise((32, 32)).save(tmp_path / "x.png")
    run(tmp_path / "x.png", "--run", small_run, "--output", tmp_path / "out", "--classes", "star", "--write", "arrays")
    folder = RunFolder(small_run)
    explanandum = folder.load_explanandum()
    with torch.no_grad():
        expected = folder.load_explainer()(prepare(noise((32, 32)), explanandum.card)[None]).sigmoid()
    masks = np.load(tmp_path / "out" / "x.png" / "explainer" / "masks.npz")["masks"]
    np.testing.assert_allclose(masks[0], expected[0, CLASSES.index("star")].numpy(), atol=1e-5)


def test_several_methods_stand_side_by_side_and_only_what_is_asked_for_is_written(small_run, tmp_path):
    noise((40, 30)).save(tmp_path / "x.png")
    methods = ["explainer", "grad_cam", "rise:masks=8,cells=4"]
    status, summary = run(
        *(tmp_path / "x.png", "--run", small_run, "--output", tmp_path / "out"),
        *("--methods", *methods, "--classes", "star", "disc", "--write", "sheets", "masks"),
    )
    assert status == 0
    (image,) = summary["images"]
    assert list(image["methods"]) == methods
    assert {one["class"] for one in image["methods"]["grad_cam"]["classes"]} == {"star", "disc"}
    written = sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.*"))
    assert "x.png/sheet.jpg" in written and "x.png/grad_cam/mask_star.png" in written
    assert not [name for name in written if name.endswith("npz") or "overlay" in name]


def test_a_method_that_fails_on_a_class_is_told_and_the_others_are_there(small_run, tmp_path, monkeypatch, capsys):
    def fails(self, image, target):
        raise RuntimeError("out of order")

    monkeypatch.setattr(GradCAM, "present_class_maps", fails)
    noise((40, 30)).save(tmp_path / "x.png")
    status, summary = run(
        *(tmp_path / "x.png", "--run", small_run, "--output", tmp_path / "out", "--classes", "star"),
        *("--methods", "grad_cam", "explainer"),
    )
    assert status == 1
    assert summary["failed"][0]["method"] == "grad_cam" and "out of order" in summary["failed"][0]["reason"]
    assert "x.png grad_cam star: RuntimeError: out of order" in capsys.readouterr().err
    assert (tmp_path / "out" / "x.png" / "explainer" / "mask_star.png").is_file()
    assert (tmp_path / "out" / "x.png" / "sheet.jpg").is_file()


def test_results_are_no_images_to_be_explained_the_next_time(small_run, tmp_path):
    noise((20, 20)).save(tmp_path / "x.png")
    for _ in range(2):
        _, summary = run(tmp_path, "--run", small_run, "--output", tmp_path / "out", "--write", "masks", "--top", 1)
        assert [one["folder"] for one in summary["images"]] == ["x.png"]


def test_results_may_lie_above_the_images_but_not_in_their_place(small_run, tmp_path):
    (tmp_path / "in").mkdir()
    noise((20, 20)).save(tmp_path / "in" / "x.png")
    given = ("--run", small_run, "--write", "masks", "--top", 1)
    assert run(tmp_path / "in", *given, "--output", tmp_path)[0] == 0
    with pytest.raises(ValueError, match="would take the place of .*x.png; name another --output"):
        run(tmp_path / "in" / "x.png", *given, "--output", tmp_path / "in")


def test_files_of_one_name_get_folders_of_their_own_and_the_same_file_is_explained_once(small_run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        noise((20, 20)).save(tmp_path / name / "x.png")
    places = (tmp_path / "a", tmp_path / "b", tmp_path / "a" / "x.png")
    _, summary = run(*places, "--run", small_run, "--output", tmp_path / "out", "--write", "masks")
    assert [one["folder"] for one in summary["images"]] == ["x.png", "x.png-2"]


def test_the_explainers_file_or_its_folder_are_enough(small_run, tmp_path):
    noise((20, 20)).save(tmp_path / "x.png")
    _, expected = run(tmp_path / "x.png", "--run", small_run, "--output", tmp_path / "0", "--write", "masks")
    Explainer.from_run(small_run).save_pretrained(tmp_path / "saved")
    for number, place in enumerate((small_run, small_run / "explainer.safetensors", tmp_path / "saved"), 1):
        _, summary = run(
            tmp_path / "x.png", "--explainer", place, "--output", tmp_path / str(number), "--write", "masks"
        )
        assert summary["images"] == expected["images"]


def test_an_explainer_whose_classifier_is_missing_says_what_to_name(small_run, tmp_path):
    noise((20, 20)).save(tmp_path / "x.png")
    shutil.copy(small_run / "explainer.safetensors", tmp_path)
    given = [str(tmp_path / "x.png"), "--explainer", str(tmp_path / "explainer.safetensors")]
    with pytest.raises(ValueError, match="Name the classifier that is to be explained: --explanandum"):
        explain.main(given)
    explain.main(
        [*given, "--explanandum_weights", str(small_run / "explanandum.safetensors"), "--workers", "0"]
        + ["--output", str(tmp_path / "out"), "--write", "masks"]
    )
    with pytest.raises(ValueError, match="trained for 10 classes, the classifier has 3"):
        explain.main([*given, "--explanandum", write_seeded(tmp_path), "--class_names", "a", "b", "c"])


def write_seeded(folder):
    """Code that gives its classifier weights of its own."""
    return write_code(folder, NET.replace("    return Net", "    import torch; torch.manual_seed(1)\n    return Net"))


def test_the_classifiers_file_is_enough_for_what_is_not_trained(small_run, tmp_path):
    noise((20, 20)).save(tmp_path / "x.png")
    status, summary = run(
        *(tmp_path / "x.png", "--explanandum_weights", small_run / "explanandum.safetensors"),
        *("--output", tmp_path / "out", "--write", "masks"),
    )
    assert status == 0 and list(summary["images"][0]["methods"]) == ["grad_cam"]


@pytest.mark.usefixtures("no_own_code")
def test_own_code_names_and_normalisation_are_taken_as_they_are_given(tmp_path):
    code = use_own_code(write_code(tmp_path))
    torch.manual_seed(1)
    torch.save(code.build(3, 32).state_dict(), tmp_path / "net.pt")
    noise((50, 20)).save(tmp_path / "x.png")
    given = (
        *("--explanandum", f"{tmp_path}/net.py:make_model", "--explanandum_weights", tmp_path / "net.pt"),
        *("--class_names", "../up", "sea cow", "Sea Cow", "--output_kind", "single_label", "--image_size", 32),
        *("--mean", 0.1, 0.2, 0.3, "--std", 0.5, 0.5, 0.5, "--target_layer", "features.0", "--method", "grad_cam"),
    )
    status, summary = run(tmp_path / "x.png", *given, "--output", tmp_path / "out")
    assert status == 0
    said = summary["images"][0]["methods"]["grad_cam"]["classes"]
    assert sum(one["probability"] for one in said) == pytest.approx(1, abs=1e-4)
    assert sum(one["recognised"] for one in said) == 1
    names = {file.name for file in (tmp_path / "out" / "x.png" / "grad_cam").iterdir()}
    assert names >= {"mask_up.png", "mask_sea_cow.png", "mask_Sea_Cow_2.png"}  # none led out of the folder
    with pytest.raises(SystemExit):  # as --class_names stands for its outputs
        explain.main([str(tmp_path / "x.png"), *map(str, given), "--class_names", "a", "a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.png"], "Say what explains"),
        (["x.png", "--run", "RUN", "--explainer", "FILE"], "not both"),
        (["x.png", "--run", "RUN", "--image_size", "3"], "--image_size is the run's own"),
        (["x.png", "--run", "RUN", "--mean", "0", "0", "0", "--std", "1", "1", "1"], "--mean is the run's own"),
        (["x.png", "--run", "RUN", "--top", "0"], "--top must be at least 1"),
        (["x.png", "--run", "RUN", "--methods", "gradcam"], "Unknown method 'gradcam'"),
        (["--run", "RUN"], "images"),
    ],
)
def test_a_command_line_that_cannot_work_is_refused_at_once(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        explain.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_not_there_is_an_error(small_run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no file or folder nowhere"):
        explain.main(["nowhere", "--run", str(small_run)])
    with pytest.raises(ValueError, match="holds no image file.*jpg"):
        explain.main([str(tmp_path / "empty"), "--run", str(small_run)])
    noise((9, 9)).save(tmp_path / "x.png")
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        explain.main([str(tmp_path / "x.png"), "--run", str(tmp_path)])
    with pytest.raises(ValueError, match="Unknown class 'cat'"):
        explain.main([str(tmp_path / "x.png"), "--run", str(small_run), "--classes", "cat"])
    with pytest.raises(ValueError, match="is trained; name a run"):
        weights = ["--explanandum_weights", str(small_run / "explanandum.safetensors")]
        explain.main([str(tmp_path / "x.png"), *weights, "--methods", "explainer"])


class Malicious:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.usefixtures("no_own_code")
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "ran"
    write_code(tmp_path, NET)
    noise((9, 9)).save(tmp_path / "x.png")
    given = ["--explanandum", f"{tmp_path}/net.py:make_model", "--class_names", "a", "b", "c"]
    for name, save in (
        ("zip.pt", lambda file: torch.save({"state_dict": Malicious(marker)}, file)),
        ("plain.pt", lambda file: file.write_bytes(pickle.dumps({"weight": Malicious(marker)}))),
        ("named.safetensors", lambda file: file.write_bytes(pickle.dumps(Malicious(marker)))),
    ):
        save(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is not (a plain state dict|a readable)"):
            explain.main([str(tmp_path / "x.png"), *given, "--explanandum_weights", str(tmp_path / name)])
    assert not marker.exists()


def test_a_decompression_bomb_is_told_and_the_others_are_explained(small_run, tmp_path, monkeypatch):
    noise((10, 10)).save(tmp_path / "ok.png")
    noise((40, 40)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    status, summary = run(tmp_path, "--run", small_run, "--output", tmp_path / "out", "--write", "masks")
    assert status == 1
    assert [one["folder"] for one in summary["images"]] == ["ok.png"]
    assert "decompression bomb" in summary["failed"][0]["reason"]


def test_large_photographs_come_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(explain, "PIXELS_AT_ONCE", 250)
    files = [explain.Photograph(None, Image.new("L", (10, 10)), None) for _ in range(7)]
    assert [len(batch) for batch in explain.batches(files, 5)] == [3, 3, 1]
    assert [len(batch) for batch in explain.batches([explain.Unreadable(None, "")] * 7, 5)] == [5, 2]
