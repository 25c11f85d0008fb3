"""A thousand classes give the masks, losses and gradients that they would give if all masks were enlarged at once.

B images, C classes, h×w cells, H×W pixels.
"""

import copy

import pytest
import torch
from toy_models import SmallNet, freeze

from datamodules.batch import Batch
from explainer import masking
from explainer.attribution import LearnedExplainer
from explainer.callbacks import MaskPanels
from explainer.losses import bound_loss
from explainer.masking import CoarseLogits, class_areas, enlarge, merge_masks, target_mask
from explainer.module import ExplainerModule
from explainer.network import FEW_CLASSES, Explainer, mask_logits

CLASSES = FEW_CLASSES + 10
SIZE = 40
SHAPES = [((5, 5), (40, 40)), ((5, 7), (33, 47)), ((1, 1), (8, 8)), ((6, 4), (6, 4)), ((9, 9), (5, 7))]
"""Of cells and pixels: even and uneven strides, a single cell, as many pixels as cells, and fewer."""


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def some_labels(images, classes, seed=1):
    """About every tenth class; none in the first image, all in the last."""
    labels = (torch.rand(images, classes, generator=torch.Generator().manual_seed(seed)) < 0.1).float()
    labels[0], labels[-1] = 0, 1
    return labels


def pair(shape, classes=37, dtype=torch.float32):
    """The same logits twice, each a leaf: to be enlarged at once, and a few at a time."""
    cells, size = shape
    values = random(4, classes, *cells, dtype=dtype)
    whole, coarse = values.clone().requires_grad_(), values.clone().requires_grad_()
    return whole, coarse, enlarge(whole, size), CoarseLogits(coarse, size)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks_and_gradients_are_those_of_all_masks_enlarged_at_once(shape):
    whole, coarse, dense, lazy = pair(shape, dtype=torch.float64)
    labels = some_labels(4, 37)
    for ours, theirs in zip(merge_masks(lazy, labels), merge_masks(dense, labels), strict=True):
        torch.testing.assert_close(ours, theirs)
    weights = random(4, *shape[1], seed=3, dtype=torch.float64)
    for leaf, logits in ((whole, dense), (coarse, lazy)):
        target, nontarget = merge_masks(logits, labels)
        (((target + 2 * nontarget) * weights).sum() + bound_loss(logits, labels)).backward()
        assert leaf.grad.abs().max() > 0
    torch.testing.assert_close(coarse.grad, whole.grad)


def test_the_maximum_is_taken_of_enlarged_masks_not_of_cells():
    cells = torch.tensor([[[[4.0, -4.0]], [[-4.0, 4.0]]]])  # two classes, each strong in the other's weak cell
    logits, everything = CoarseLogits(cells, (1, 4)), torch.ones(1, 2, dtype=torch.bool)
    enlarged_maximum = enlarge(cells.amax(dim=1, keepdim=True), (1, 4))[:, 0]
    strongest = logits.strongest(everything)
    assert enlarged_maximum.eq(4).all()
    torch.testing.assert_close(strongest, enlarge(cells, (1, 4)).amax(dim=1))
    assert strongest.flatten().tolist() == [4, 2, 2, 4]


def test_of_equal_classes_the_first_takes_the_gradient():
    _, coarse, _, logits = pair(((2, 2), (8, 8)))
    same = CoarseLogits(coarse[:, :1].expand(-1, 40, -1, -1), (8, 8))
    winners = same._winners(torch.ones(4, 40, dtype=torch.bool))
    assert winners.eq(0).all()


def test_a_mask_over_no_class_is_zero_and_takes_no_gradient():
    _, coarse, _, logits = pair(SHAPES[0])
    mask = target_mask(logits, torch.zeros(4, 37))
    mask.sum().backward()
    assert mask.eq(0).all()
    assert coarse.grad.eq(0).all()


def test_a_class_that_is_not_a_number_shows_in_the_mask():
    cells = random(1, 40, 3, 3)
    cells[0, 7] = torch.nan
    assert CoarseLogits(cells, (9, 9)).strongest(torch.ones(1, 40, dtype=torch.bool)).isnan().all()


def test_half_precision_cells_are_enlarged_in_float32():
    cells = random(2, 40, 3, 3).to(torch.bfloat16)
    logits, chosen = CoarseLogits(cells, (9, 9)), torch.ones(2, 40, dtype=torch.bool)
    assert logits.strongest(chosen).dtype == torch.float32
    torch.testing.assert_close(logits.strongest(chosen), enlarge(cells.float(), (9, 9)).amax(dim=1))


def test_never_more_masks_are_enlarged_than_fit_at_once(monkeypatch):
    asked = []
    monkeypatch.setattr(masking, "enlarge", lambda cells, size: asked.append(cells.shape[1]) or enlarge(cells, size))
    _, _, _, logits = pair(SHAPES[0], classes=100)
    merge_masks(logits, some_labels(4, 100))
    assert max(asked) == masking.CLASSES_AT_ONCE


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Explainer(CLASSES, "tu-test_resnet", output_stride=16, decoder_channels=16).eval()


@pytest.fixture(scope="module")
def explanandum():
    return freeze(SmallNet(CLASSES), classes=[f"class {index}" for index in range(CLASSES)], size=SIZE)


@pytest.fixture(scope="module")
def batch():
    image = random(3, 3, SIZE, SIZE, seed=5)
    return Batch(image, some_labels(4, CLASSES)[:3], ("a", "b", "c"))


def test_few_classes_are_enlarged_at_once_as_they_always_were():
    torch.manual_seed(0)
    few = Explainer(FEW_CLASSES, "tu-test_resnet", output_stride=16, decoder_channels=16).eval()
    image = random(1, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(mask_logits(few, image), few(image))


def step(network, explanandum, batch):
    """Loss and gradients of one training step."""
    module = ExplainerModule(copy.deepcopy(network), explanandum)
    module.log = lambda *_, **__: None  # there is no Trainer to log to
    module.eval()  # no dropout
    loss = module.training_step(batch, 0)
    loss.backward()
    return loss.detach(), {name: value.grad for name, value in module.network.named_parameters()}


def test_a_training_step_has_the_loss_and_gradients_of_masks_enlarged_at_once(network, explanandum, batch, monkeypatch):
    loss, gradients = step(network, explanandum, batch)
    monkeypatch.setattr("explainer.network.FEW_CLASSES", CLASSES)
    expected, others = step(network, explanandum, batch)
    torch.testing.assert_close(loss, expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-3, atol=1e-6, msg=name)


def test_the_method_enlarges_only_the_masks_that_it_is_asked_for(network, explanandum, batch, monkeypatch):
    method, labels = LearnedExplainer(explanandum, network), batch.labels.clone()
    labels[2] = 0
    labels[2, [3, 90]] = 1
    with torch.no_grad():
        dense = network(batch.image).sigmoid()
    asked = []
    monkeypatch.setattr(masking, "enlarge", lambda cells, size: asked.append(cells.shape) or enlarge(cells, size))
    maps, image_index, target = method.present_class_maps(batch.image, labels)
    torch.testing.assert_close(maps, dense[image_index, target])
    torch.testing.assert_close(method(batch.image, torch.tensor([1, 2, 109])), dense[range(3), [1, 2, 109]])
    assert [tuple(shape[:2]) for shape in asked] == [(int(labels.sum()), 1), (3, 1)]


def test_the_panels_show_what_they_would_show_of_masks_enlarged_at_once(network, explanandum, batch, monkeypatch):
    module = ExplainerModule(network, explanandum)
    panels = MaskPanels(explanandum.card.classes, (0.0,) * 3, (1.0,) * 3)
    panels._batch = batch
    pictures = panels.draw(None, module)
    monkeypatch.setattr("explainer.network.FEW_CLASSES", CLASSES)
    for (name, picture), (other, expected) in zip(pictures, panels.draw(None, module), strict=True):
        assert name == other
        assert abs(picture.astype(int) - expected).max() <= 1  # a rounding


def test_areas_are_those_of_the_enlarged_masks():
    _, _, dense, logits = pair(SHAPES[1])
    torch.testing.assert_close(class_areas(logits), class_areas(dense))
