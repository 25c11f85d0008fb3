"""The training step assembles the loss as NN-Explainer's Eq. 1, 6 and 8 say, written as plain loops in `reference`.

B images, C classes, H×W pixels.
"""

import math
from dataclasses import asdict

import pytest
import torch
from reference import nn_explainer as reference
from reference.convert import nested
from torch import nn
from toy_models import FlatNet, freeze

from datamodules import Batch
from explainer.losses import LossWeights
from explainer.module import ExplainerModule, loss_names
from explainer.objective import Explain

CLASSES, SIZE = ("cat", "dog", "hen", "pig"), 6
# No two alike, the classification loss's 1 included, and no bound at its default: a mix-up must show.
WEIGHTS = LossWeights(
    entropy=0.7, area_target=0.11, area_nontarget=0.31, bound=1.3, tv=1.7, min_area=0.25, max_area=0.5
)
LABELS = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]])
"""Some classes, none, all, and one."""
TERMS = tuple(Explain().weights)


class FixedMasks(nn.Module):
    """Class mask logits that do not depend on the image, as an Explainer's forward gives them."""

    num_classes = len(CLASSES)

    def __init__(self):
        super().__init__()
        values = torch.randn(len(LABELS), len(CLASSES), SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        self.logits = nn.Parameter(1.5 * values)

    def forward(self, image):
        return self.logits[: len(image)]


@pytest.fixture
def image():
    return torch.randn(len(LABELS), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def made_module(monkeypatch, output="multi_label"):
    torch.manual_seed(2)
    explanandum = freeze(FlatNet(len(CLASSES), SIZE), classes=CLASSES, size=SIZE, output=output)
    made = ExplainerModule(FixedMasks(), explanandum, Explain(WEIGHTS))
    monkeypatch.setattr(made, "log", lambda *_, **__: None)  # there is no Trainer to log to
    return made


@pytest.fixture
def module(monkeypatch):
    """Masks that are learned pixel by pixel, against a linear classifier."""
    return made_module(monkeypatch)


@pytest.fixture
def single_label_module(monkeypatch):
    """The same masks and classifier, whose outputs are taken for a softmax's."""
    return made_module(monkeypatch, "single_label")


def judged(module, image, labels):
    """The terms, and the masked images' logits."""
    batch = Batch(image, labels, ("",) * len(image))
    found = module.objective.judge(module.explanandum, batch, module.network(image), fresh=True)
    return found.terms, found.masked_logits


def expected_terms(module, image):
    """Each term's mean over the images, from plain loops."""
    linear = module.explanandum.model.linear
    weight = nested(linear.weight.reshape(len(CLASSES), 3, SIZE, SIZE))
    bias = nested(linear.bias)

    def classifier(pixels):
        return [
            bias[c]
            + sum(weight[c][k][i][j] * pixels[k][i][j] for k in range(3) for i in range(SIZE) for j in range(SIZE))
            for c in range(len(CLASSES))
        ]

    by_image = [
        reference.loss_terms(nested(picture), nested(labels), nested(logits), classifier, (0.25, 0.5))
        for picture, labels, logits in zip(image, LABELS, module.network.logits, strict=True)
    ]
    return {name: sum(terms[name] for terms in by_image) / len(by_image) for name in by_image[0]}


def test_every_term_is_that_of_the_plain_loops(module, image):
    terms, masked_logits = judged(module, image, LABELS)
    expected = expected_terms(module, image)
    assert tuple(terms) == tuple(expected) == TERMS
    for name, term in terms.items():
        assert term.shape == ()
        assert term.item() == pytest.approx(expected[name], abs=1e-5), name
    assert masked_logits.shape == LABELS.shape


def test_each_image_alone_has_the_terms_of_the_plain_loops(module, image):
    # A wrong term of one image can't hide behind another's.
    logits = module.network.logits.detach()
    for index in range(len(LABELS)):
        module.network.logits = nn.Parameter(logits[[index]])
        terms, _ = judged(module, image[[index]], LABELS[[index]])
        whole = dict(zip(("image", "labels", "logits"), (image, LABELS, logits), strict=True))
        linear = module.explanandum.model.linear

        def classifier(pixels, linear=linear):
            return nested(linear(torch.tensor(pixels).flatten()))

        expected = reference.loss_terms(*(nested(value[index]) for value in whole.values()), classifier, (0.25, 0.5))
        for name, term in terms.items():
            assert term.item() == pytest.approx(expected[name], abs=1e-5), (index, name)


def test_the_terms_weigh_what_they_are_told(module, image):
    expected = reference.explainer_loss(expected_terms(module, image), asdict(WEIGHTS))
    batch = Batch(image, LABELS, ("a", "b", "c", "d"))
    assert module.training_step(batch, 0).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("stage", ["train", "val"])
def test_what_is_logged_is_what_the_loops_say(module, image, stage):
    batch = Batch(image, LABELS, ("a", "b", "c", "d"))
    (module.training_step if stage == "train" else module.validation_step)(batch, 0)
    expected = expected_terms(module, image)
    weights = {"classification": 1.0} | asdict(WEIGHTS)
    means = {name: module.means[name].compute().item() for name in loss_names(TERMS) if name.startswith(stage)}
    for name, value in expected.items():
        assert means[f"{stage}/{name}"] == pytest.approx(value, abs=1e-5)
        assert means[f"{stage}/{name}_weighted"] == pytest.approx(weights[name] * value, abs=1e-5)
    assert means[f"{stage}_loss"] == pytest.approx(reference.explainer_loss(expected, weights), abs=1e-5)


def test_the_loss_has_the_gradient_of_the_plain_loops(module, image):
    """By finite differences of the reference, along one direction for each image."""
    direction = torch.randn(module.network.logits.shape, generator=torch.Generator().manual_seed(3))
    module.training_step(Batch(image, LABELS, ("a", "b", "c", "d")), 0).backward()
    slope = (module.network.logits.grad * direction).sum().item()
    start, values = module.network.logits.detach().double(), []
    for step in (-1e-4, 1e-4):
        module.network.logits = nn.Parameter(start + step * direction)
        values.append(reference.explainer_loss(expected_terms(module, image), asdict(WEIGHTS)))
    assert slope == pytest.approx((values[1] - values[0]) / 2e-4, abs=1e-4)
    assert abs(slope) > 1e-2


def test_the_explanandum_learns_nothing(module, image):
    module.training_step(Batch(image, LABELS, ("a", "b", "c", "d")), 0).backward()
    assert all(parameter.grad is None for parameter in module.explanandum.parameters())
    assert all(name.startswith("network.") for name in module.state_dict())


ONE_LABEL = torch.eye(len(CLASSES))[[2, 0, 2, 3]]


def test_only_the_classification_loss_differs_for_a_single_label_explanandum(module, single_label_module, image):
    terms, masked_logits = judged(single_label_module, image, ONE_LABEL)
    of_multi_label, _ = judged(module, image, ONE_LABEL)
    true = ONE_LABEL.argmax(dim=1).tolist()
    rows = [-math.log(reference.softmax(row)[c]) for row, c in zip(nested(masked_logits), true, strict=True)]
    assert terms["classification"].item() == pytest.approx(sum(rows) / len(rows), abs=1e-5)
    assert terms["classification"].item() != pytest.approx(of_multi_label["classification"].item(), abs=1e-2)
    assert all(torch.equal(terms[name], of_multi_label[name]) for name in TERMS if name != "classification")


def test_a_single_label_explanandum_recognises_its_most_probable_class_alone(single_label_module, image):
    """Whether any logit passes a multi-label classifier's threshold does not matter."""
    module, batch = single_label_module, Batch(image, ONE_LABEL, ("a", "b", "c", "d"))
    module.explanandum.model.linear.bias.data -= 100  # none passes a threshold
    module.validation_step(batch, 0)
    with torch.no_grad():
        plain, (_, masked) = module.explanandum(image), judged(module, image, ONE_LABEL)
    for f_score, logits in ((module.unmasked_f_score, plain), (module.val_f_score, masked)):
        assert f_score.compute().item() == pytest.approx(macro_f_score(logits.argmax(dim=1), ONE_LABEL.argmax(dim=1)))


def test_f_score_of_a_single_label_explanandum_by_hand(single_label_module):
    """Cat is right, one of two hens is taken for a dog, the pig is right: F = (1 + 0 + 2/3 + 1) / 4."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1], [-9, -5, -4, -9], [7, 8, 2, 2], [-3, -3, -3, -2.0]])
    labels = torch.eye(4)[[0, 2, 2, 3]]
    single_label_module._score(single_label_module.val_f_score, logits, labels)
    assert single_label_module.val_f_score.compute().item() == pytest.approx((1 + 0 + 2 / 3 + 1) / 4)


def macro_f_score(predicted, true):
    """Mean over the classes that occur or are predicted."""
    scores = []
    for c in range(len(CLASSES)):
        hits = sum(p == c == t for p, t in zip(predicted.tolist(), true.tolist(), strict=True))
        whole = sum(p == c for p in predicted.tolist()) + sum(t == c for t in true.tolist())
        scores += [2 * hits / whole] if whole else []
    return sum(scores) / len(scores)
