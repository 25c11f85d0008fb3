"""A classifier that the user's own code makes: it runs only when named, and what is wrong with it is said at once."""

import json
import re
import sys

import pytest
import torch
from own_code import NET, no_own_code, write_code
from safetensors.torch import save_file
from torch import nn
from toy_models import FlatNet, SmallNet, WindowNet, card

from explainer.capture import CannotExplain
from explainer.classifier_check import check_classifier
from explainer.classifiers import build_classifier, require_known, trained_classifier
from explainer.explanandum import Explanandum, open_explanandum
from explainer.explanandum_cache import ClassifierRequest
from explainer.finetune import FinetuneOptions
from explainer.own_classifier import is_own, own_name, use_own_code

__all__ = ["no_own_code"]
pytestmark = pytest.mark.usefixtures("no_own_code")
IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
NAME = "net.py:make_model"


def saved(tmp_path, text=NET):
    """An explanandum file of own code, its name and the state dict."""
    code = use_own_code(write_code(tmp_path, text))
    torch.manual_seed(0)
    model = code.build(3, 32)
    file = tmp_path / "explanandum.safetensors"
    Explanandum(model, card(code.name, version=code.version)).save(file)
    return file, model.state_dict()


@pytest.mark.parametrize(
    ("text", "own"), [("a/b.py:make", True), ("pkg.mod:make", True), ("timm:resnet18", False), ("vgg16", False)]
)
def test_own_code_is_told_from_architectures(text, own):
    assert is_own(text) is own
    assert own_name(text) == ("b.py:make" if text.startswith("a/") else text)


def test_code_that_nobody_named_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    text = f"open({str(marker)!r}, 'w')\n{NET}"
    write_code(tmp_path, text)
    for ask in (require_known, lambda name: build_classifier(name, 3, "none")):
        with pytest.raises(ValueError, match=r"'net\.py:make_model', which runs only if you name it.*--explanandum"):
            ask(NAME)
    assert not marker.exists()


def test_a_saved_classifier_does_not_run_its_code_either(tmp_path, monkeypatch):
    file, _ = saved(tmp_path)
    monkeypatch.setattr("explainer.own_classifier._IN_USE", {})
    with pytest.raises(ValueError, match="runs only if you name it"):
        Explanandum.load(file)


def test_a_saved_classifier_comes_back_and_its_name_has_no_folder(tmp_path):
    file, state = saved(tmp_path)
    explanandum = Explanandum.load(file)
    assert explanandum.card.architecture == NAME
    assert all(torch.equal(value, state[name]) for name, value in explanandum.model.state_dict().items())


def test_code_that_computes_something_else_by_now_is_refused_but_a_comment_may_change(tmp_path):
    file, _ = saved(tmp_path)
    use_own_code(write_code(tmp_path, NET + "\n# a comment\n"))
    commented = Explanandum.load(file)
    use_own_code(write_code(tmp_path, NET.replace(".relu()", ".tanh()")))
    with pytest.raises(ValueError, match="its code has changed"):
        Explanandum.load(file)
    use_own_code(write_code(tmp_path, NET))
    assert commented.fingerprint != Explanandum.load(file).fingerprint  # kept maps are not trusted across versions


def test_a_function_is_told_the_number_of_classes_and_the_size_if_it_asks(tmp_path):
    text = """
        from torch import nn
        def make_model(image_size, num_classes, width=2):
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes * width))
    """
    model = use_own_code(write_code(tmp_path, text)).build(5, 7)
    assert model[1].weight.shape == (10, 147)


def test_a_module_in_the_working_directory_can_be_named_and_neighbours_imported(tmp_path, monkeypatch):
    (tmp_path / "own_package_x").mkdir()
    (tmp_path / "own_package_x" / "__init__.py").write_text("")
    write_code(tmp_path / "own_package_x", name="nets.py")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    code = use_own_code("own_package_x.nets:make_model")
    assert code.name == "own_package_x.nets:make_model"
    write_code(tmp_path / "own_package_x", "from nets import make_model", "neighbour.py")
    assert use_own_code("own_package_x/neighbour.py:make_model").build(3, 32).head.out_features == 3
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise RuntimeError('broken')", r"net\.py:make_model fails \(line 1\): RuntimeError: broken"),
        ("def make_model(:", "SyntaxError"),
        ("import no_such_module_x", "No module named 'no_such_module_x'"),
        ("def build(): pass", r"has no function 'make_model'; it has: build\."),
        ("make_model = 3", "has no function 'make_model'"),
        ("def make_model(width): pass", r"fails.*missing 1 required positional argument: 'width'"),
        ("def make_model():\n    return 1 / 0", r"fails \(line 2\): ZeroDivisionError"),
        ("def make_model(): return 3", r"returns a int; it must return a torch\.nn\.Module"),
        ("from torch import nn\ndef make_model(): return nn.ReLU()", "without parameters"),
    ],
)
def test_broken_code_is_an_error_that_says_what_and_where(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        use_own_code(write_code(tmp_path, text)).build(3, 32)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/net.py:make", "No file nowhere/net.py"),
        ("no_such_package_x.nets:make", "No module named 'no_such_package_x'.*path/to/file.py"),
        ("a-b:make", "neither an architecture nor code"),
    ],
)
def test_what_is_not_there_is_named_with_a_remedy(name, message):
    with pytest.raises(ValueError, match=message):
        use_own_code(name)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"epoch": 3, "model_state_dict": s}]
)
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.backbone."])
def test_weights_are_read_as_training_scripts_save_them(tmp_path, wrap, prefix):
    _, state = saved(tmp_path)
    torch.save(wrap({prefix + name: value for name, value in state.items()}), tmp_path / "weights.pt")
    model = trained_classifier(NAME, 3, str(tmp_path / "weights.pt"))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_of_another_classifier_are_refused(tmp_path):
    saved(tmp_path)
    save_file({"other": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        trained_classifier(NAME, 3, str(tmp_path / "weights.safetensors"))
    with pytest.raises(ValueError, match=r"--explanandum_weights FILE, or none"):
        trained_classifier(NAME, 3, "imagenet")


def test_random_weights_are_no_trained_classifier(tmp_path):
    code = use_own_code(write_code(tmp_path))
    with pytest.raises(ValueError, match="random weights, others each time"):
        open_explanandum("none", card(NAME, version=code.version))
    seeded = NET.replace(
        "    return Net(num_classes)", "    import torch\n    torch.manual_seed(1)\n    return Net(num_classes)"
    )
    code = use_own_code(write_code(tmp_path, seeded))
    assert open_explanandum("none", card(NAME, version=code.version)).num_classes == 3


def test_the_key_of_a_classifier_sees_the_code_the_weights_that_it_gives_and_no_layer(tmp_path):
    def key(text, **changes):
        code = use_own_code(write_code(tmp_path, text))
        one = card(code.name, version=code.version, **changes)
        return ClassifierRequest(one, "none", FinetuneOptions(epochs=0), 1, "data").key

    (tmp_path / "weights.txt").write_text("1")
    reading = NET.replace(
        "    return Net(num_classes)",
        "    import torch\n    from pathlib import Path\n"
        "    torch.manual_seed(int((Path(__file__).parent / 'weights.txt').read_text()))\n    return Net(num_classes)",
    )
    first = key(reading)
    assert key(reading) == first == key(reading, target_layer="features.0")
    assert key(reading + "# changed") != first
    (tmp_path / "weights.txt").write_text("2")
    assert key(reading) != first


def test_the_keys_of_other_classifiers_are_what_they_were_before_there_were_own_ones():
    facts = card("vgg16").facts()
    assert json.dumps(facts, sort_keys=True) == (
        '{"architecture": "vgg16", "classes": ["cat", "dog", "hen"], "hidden": 4096, "image_size": 32, '
        '"mean": [0.0, 0.0, 0.0], "output": "multi_label", "std": [1.0, 1.0, 1.0]}'
    )


def test_another_layer_can_be_read_which_other_maps_come_from():
    explanandum = Explanandum(SmallNet(), card())
    found, before = explanandum.target_layer, explanandum.fingerprint
    assert found == "features"
    assert explanandum.reading("features.3").target_layer == "features.3"
    assert explanandum.fingerprint != before
    with pytest.raises(CannotExplain, match="Unknown target layer 'featurs.3'; did you mean features.3"):
        explanandum.reading("featurs.3")


class Answer(nn.Module):
    """SmallNet, its logits or its images passed through a function."""

    def __init__(self, after=lambda logits: logits, before=lambda image: image):
        super().__init__()
        self.net, self.after, self.before = SmallNet(), after, before

    def forward(self, image):
        return self.after(self.net(self.before(image)))


class BatchStatistics(SmallNet):
    """Normalises with the statistics of the batch also in eval mode."""

    def forward(self, image):
        return super().forward(image - image.mean(dim=0))


WRONG = {
    "no tensor": (Answer(lambda logits: (logits, None)), "returns a tuple, not a tensor"),
    "a map": (Answer(lambda logits: logits[..., None, None]), r"\[2, 3, 1, 1\] for 2 images"),
    "labels": (Answer(lambda logits: logits.argmax(1)), r"torch\.int64 \[2\] for 2 images"),
    "another number": (SmallNet(4), "has 4 outputs, but there are 3 classes.*--class_names"),
    "not finite": (Answer(lambda logits: logits / 0), "6 of 6 logits of the classifier are NaN or infinite"),
    "softmax": (Answer(lambda logits: logits.softmax(1)), "returns probabilities.*softmax or sigmoid"),
    "sigmoid": (nn.Sequential(SmallNet(), nn.Sigmoid()), "returns probabilities"),
    "detached": (Answer(lambda logits: logits.detach()), "no gradient reaches the image"),
    "constant": (Answer(before=torch.zeros_like), "gradient reaches the image"),
    "rounding": (Answer(before=torch.round), "a zero gradient reaches the image"),
    "mixed up": (BatchStatistics(), "changes with the batch"),
    "random": (Answer(lambda logits: nn.functional.dropout(logits, 0.5)), "changes with the batch that it comes in"),
    "size": (FlatNet(size=16), r"fails on a batch of images \[2, 3, 32, 32\].*--image_size"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_classifier_that_cannot_be_explained_is_told_why(wrong):
    model, message = WRONG[wrong]
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        check_classifier(model, 3, 32)


SOUND = [
    *(SmallNet(), WindowNet(), FlatNet(), SmallNet().requires_grad_(False)),
    Answer(before=lambda image: image.sub_(0.5)),  # changes its input
]


@pytest.mark.parametrize("model", SOUND)
def test_a_sound_classifier_passes_and_stays_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        check_classifier(model.train(), 3, 32)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_two_logits_that_are_each_others_negative_are_no_constant():
    check_classifier(Answer(lambda logits: torch.cat([logits[:, :1], -logits[:, :1]], dim=1)), 2, 32)


def test_a_target_layer_that_is_not_there_is_found_at_once():
    with pytest.raises(CannotExplain, match="Unknown target layer 'layer9'"):
        check_classifier(SmallNet(), 3, 32, "layer9")
