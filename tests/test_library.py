"""An Explainer is of use outside its run: as a module, from a folder or the hub, and in a notebook.

B images, C classes, H×W pixels.
"""

import base64
import copy
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from toy_models import SIZE, SmallNet, card, freeze

import explainer
from explainer import METHODS, ClassifierCard, Explainer, explain_image, network
from explainer.evaluation.methods import named_method
from explainer.library.model_card import model_card
from explainer.library.origin import Origin
from explainer.run_folder import RunFolder, load_explainer

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 50, 30


def small_explainer(**options):
    torch.manual_seed(0)
    return Explainer(3, "tu-test_resnet", output_stride=16, decoder_channels=16, **options).eval()


@pytest.fixture
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def trained(small_run):
    return Explainer.from_run(small_run)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """What `save_pretrained` wrote; not to be changed."""
    saved = tmp_path_factory.mktemp("shared") / "explainer"
    trained.save_pretrained(saved)
    return saved


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_importing_the_package_imports_nothing_heavy():
    done = run_python("import explainer, sys; print(sorted({'torch', 'numpy', 'PIL', 'timm'} & set(sys.modules)))")
    assert done.stdout == "[]\n", done.stderr


def test_the_package_offers_what_its_docstring_says():
    assert set(explainer.__all__) <= set(dir(explainer))
    assert all(getattr(explainer, name) is not None for name in explainer.__all__)
    assert METHODS["explainer"].__name__ == "LearnedExplainer"
    with pytest.raises(AttributeError, match="no attribute 'Explanier'; it has: METHODS"):
        explainer.Explanier  # noqa: B018


def test_the_explainer_of_a_run_is_the_one_that_was_trained(trained, small_run):
    run, image = RunFolder(small_run), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(trained(image), run.load_explainer()(image))
        assert torch.equal(trained.explanandum(image), run.load_explanandum()(image))
    assert trained.card == run.load_explanandum().card
    assert not trained.training


def test_it_serves_as_the_network_of_the_attribution_method(trained):
    image = torch.randn(1, 3, 32, 32)
    method = named_method("explainer", trained.explanandum, "32-true", network=trained).method
    with torch.no_grad():
        expected = trained(image)[:, 4].sigmoid()
    assert torch.equal(method(image, torch.tensor([4])), expected)


def test_the_origin_is_what_the_run_wrote_down(trained, small_run):
    metrics = trained.origin.metrics
    best = float(load_metadata(small_run / "explainer.safetensors")["val_loss"])
    assert metrics["val_loss"] == pytest.approx(best, abs=1e-5)
    assert "segmentation/iou" in metrics
    assert "val/f_score" in trained.origin.classifier_metrics
    assert trained.origin.command.startswith("python ")


def load_metadata(file):
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return opened.metadata()


def test_a_run_without_an_explainer_is_refused(tmp_path, small_run):
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        Explainer.from_run(tmp_path)
    shutil.copy(small_run / "config.yaml", tmp_path)
    with pytest.raises(FileNotFoundError, match="no epoch of the Explainer is done"):
        Explainer.from_run(tmp_path)


def test_it_is_a_plain_module_whose_weights_are_the_networks_alone():
    ours = small_explainer(explanandum=freeze(SmallNet()))
    torch.manual_seed(0)
    plain = network.Explainer(3, "tu-test_resnet", output_stride=16, decoder_channels=16)
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert len(list(ours.parameters())) == len(list(plain.parameters()))
    before = copy.deepcopy(ours.explanandum.state_dict())
    optimiser = torch.optim.SGD(ours.train().parameters(), lr=0.1)
    ours(torch.randn(2, 3, 32, 32)).mean().backward()
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in ours.explanandum.state_dict().items())


def test_the_classifier_follows_to_another_precision_and_into_a_copy():
    ours = small_explainer(explanandum=freeze(SmallNet()))
    twin = copy.deepcopy(ours).to(torch.float64)
    assert next(twin.explanandum.parameters()).dtype == torch.float64
    assert next(ours.explanandum.parameters()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_explains_much_the_same(photo, dtype):
    ours = small_explainer(explanandum=freeze(SmallNet()))
    masks = ours.explain(photo, [0, 1, 2]).masks
    halved = ours.to(dtype).explain(photo, [0, 1, 2])
    assert halved.masks.dtype == np.float32
    np.testing.assert_allclose(halved.masks, masks, atol=0.05)


def test_another_classifier_than_the_one_it_has_masks_for_is_refused():
    with pytest.raises(ValueError, match="3 class masks, the classifier 2 classes"):
        small_explainer(card=card(classes=("cat", "dog")))


def test_without_classes_there_is_no_explanation(photo):
    with pytest.raises(ValueError, match=r"does not know its classes.*from_run.*ClassifierCard"):
        small_explainer().explain(photo)


# --- saving and sharing


def test_what_is_saved_comes_back_with_all_that_belongs_to_it(trained, folder):
    again, image = Explainer.from_pretrained(folder), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(image), trained(image))
        assert torch.equal(again.explanandum(image), trained.explanandum(image))
    assert (again.card, again.origin) == (trained.card, trained.origin)
    assert not again.training


def test_only_safetensors_json_and_text_are_written(folder):
    assert {file.name for file in folder.iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "explanandum.safetensors")
    }
    assert json.loads((folder / "config.json").read_text())["classifier"]["image_size"] == 32
    assert load_file(folder / "model.safetensors")
    assert load_explainer(folder / "model.safetensors").num_classes == 10  # as train.py's own file is


def test_the_classifier_may_stay_away(folder, photo):
    again = Explainer.from_pretrained(folder, explanandum=False)
    assert again.explanandum is None
    assert again.explain(photo).scores is None


def test_a_classifier_that_only_its_code_can_rebuild_is_not_saved(tmp_path):
    small_explainer(explanandum=freeze(SmallNet(), architecture="mine.py:make")).save_pretrained(tmp_path)
    assert not (tmp_path / "explanandum.safetensors").exists()
    assert "does not come along" in (tmp_path / "README.md").read_text()
    assert Explainer.from_pretrained(tmp_path).classes == ("cat", "dog", "hen")


def test_the_model_card_holds_classes_metrics_and_the_command(folder, trained):
    text = (folder / "README.md").read_text()
    metadata = huggingface_hub.ModelCard(text).data.to_dict()
    assert metadata["library_name"] == "explainer"
    assert "`crescent`" in text
    assert trained.origin.command.split()[-1] in text
    assert re.search(r"\| `segmentation/iou` \| [\d.]+ \|", text)


def test_the_names_of_classes_cannot_break_the_model_card():
    odd = ClassifierCard("toy", tuple(["a`b|c\n# d", *map(str, range(40))]), 32, (0.0,) * 3, (1.0,) * 3, "single_label")
    text = model_card(odd, Origin(command="python train.py\n```"), with_classifier=False)
    assert "`a b c # d`" in text
    assert text.count("```") % 2 == 0
    assert "<summary>41 classes</summary>" in text


def test_nothing_is_unpickled(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "evil")
    (tmp_path / "evil" / "model.safetensors").unlink()
    torch.save({"deeplab": print}, tmp_path / "evil" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        Explainer.from_pretrained(tmp_path / "evil")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("network"), "'network'"),
        (lambda config: config["classifier"].update(colour="red"), "colour"),
        (lambda config: config["network"].update(decoder_channels=8), "does not fit"),
        (lambda config: config["network"].update(encoder="tu-os.system"), "Unknown timm model"),
    ],
)
def test_a_config_that_is_not_ours_says_what_is_wrong(folder, tmp_path, change, message):
    changed = shutil.copytree(folder, tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (changed / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        Explainer.from_pretrained(changed)


def test_a_folder_without_a_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path.name}.* has no config.json"):
        Explainer.from_pretrained(tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub in a folder: what is uploaded can be downloaded."""

    def create(self, repo_id, **_):
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload(self, *, repo_id, folder_path, **_):
        shutil.copytree(folder_path, tmp_path / repo_id)
        return f"https://huggingface.co/{repo_id}/commit/1"

    def download(repo_id, filename, **_):
        return str(tmp_path / repo_id / filename)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    monkeypatch.setattr("explainer.library.pretrained.hf_hub_download", download)
    return tmp_path


def test_what_is_pushed_to_the_hub_can_be_had_from_it(trained, hub, folder):
    assert "someone/demo" in trained.push_to_hub("someone/demo")
    assert {file.name for file in (hub / "someone/demo").iterdir()} == {file.name for file in folder.iterdir()}
    again, image = Explainer.from_pretrained("someone/demo"), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(image), trained(image))
    assert again.explanandum is not None


def test_offline_the_error_names_the_hub_id_and_the_remedy(monkeypatch, tmp_path):
    # What the hub's client raises after its retries, at once.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"'someone/demo' is no folder.*hub.*pass its folder"):
        Explainer.from_pretrained("someone/demo", cache_dir=tmp_path)


# --- one image


def test_masks_have_the_images_own_size_and_the_classifiers_scores(photo):
    explanandum = freeze(SmallNet())
    shown = small_explainer(explanandum=explanandum).explain(photo, ["hen", 0])
    assert shown.classes == ["hen", "cat"]
    assert shown.masks.shape == (2, HEIGHT, WIDTH)
    assert ((shown.masks > 0) & (shown.masks < 1)).all()
    pixels = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) / 255
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    np.testing.assert_allclose(shown.scores, explanandum(image).sigmoid()[0, [2, 0]], rtol=1e-5)
    assert shown.captions[0].startswith("hen 0.")
    assert np.array_equal(shown["cat"], shown.masks[1])


def test_an_image_of_the_networks_own_size_has_the_networks_own_masks():
    ours = small_explainer(card=card())
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = ours(torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float()).sigmoid()[0]
    masks = ours.explain(Image.fromarray(pixels), [0, 1, 2]).masks
    np.testing.assert_allclose(masks, expected, atol=1e-6)


def test_unasked_it_shows_the_most_probable_classes_or_the_largest_masks(photo):
    ours = small_explainer(explanandum=freeze(SmallNet()))
    shown = ours.explain(photo, top=2)
    assert len(shown.classes) == 2
    assert shown.scores[0] >= shown.scores[1]
    blind = small_explainer(card=card()).explain(photo, top=5)
    areas = blind.masks.mean(axis=(1, 2))
    assert len(areas) == 3
    assert areas[0] >= areas[-1]
    assert "area" in blind.captions[0]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_mode_are_explained_and_left_as_they_were(photo, mode):
    image, ours = photo.convert(mode), small_explainer(card=card()).train()
    before = image.tobytes()
    assert ours.explain(image).masks.shape[1:] == (HEIGHT, WIDTH)
    assert (image.tobytes(), image.mode) == (before, mode)
    assert ours.training


@pytest.mark.parametrize("asked", ["cow", 3, -1, None])
def test_an_unknown_class_lists_the_known_ones(photo, asked):
    with pytest.raises(ValueError, match="Unknown class .*cat, dog, hen"):
        small_explainer(card=card()).explain(photo, [asked])


def test_any_method_explains_an_image_of_any_size_in_the_order_of_the_question(photo):
    explanandum = freeze(SmallNet())
    shown = explain_image(photo, METHODS["occlusion"](explanandum, window=6, step=3), ["hen", 0])
    assert shown.classes == ["hen", "cat"]
    assert shown.masks.shape == (2, HEIGHT, WIDTH)
    expected = small_explainer(explanandum=explanandum).explain(photo, ["hen", 0])
    np.testing.assert_allclose(shown.scores, expected.scores, rtol=1e-5)


def test_unasked_any_method_explains_the_most_probable_class(photo):
    gradient = METHODS["gradient"](freeze(SmallNet(), output="single_label"))
    shown = explain_image(photo, gradient, top=1)
    everything = explain_image(photo, gradient, top=3)
    assert shown.classes == everything.classes[:1]
    assert everything.scores[0] == max(everything.scores)


def test_a_class_that_was_not_asked_for_has_no_mask(photo):
    with pytest.raises(KeyError, match="No mask of 'dog'; there are: cat"):
        small_explainer(card=card()).explain(photo, ["cat"])["dog"]


def test_an_explanation_shows_itself_in_a_notebook(photo):
    shown = small_explainer(card=card(classes=("<b>cat</b>", "dog", "hen"))).explain(photo, [0, 1])
    picture = Image.open(io.BytesIO(shown._repr_png_()))
    assert picture.width > 3 * picture.height * 0.9  # three landscapes in a row
    page = shown._repr_html_()
    assert "&lt;b&gt;cat" in page
    assert "<b>" not in page
    encoded = re.search(r"base64,([^\"]+)", page)[1]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == picture.size
    assert shown.overlay("dog").size == (WIDTH, HEIGHT)
