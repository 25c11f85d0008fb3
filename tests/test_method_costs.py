"""What a method costs: its passes are those that `--list_methods` promises, and its memory does not grow.

B images, K channels, H×W pixels.
"""

import gc
from dataclasses import dataclass

import pytest
import torch
from test_attribution import EVERY, QUICK, Case, images
from toy_models import SmallNet, freeze

from explainer.attribution import METHODS
from explainer.attribution.spec import method_row, options_of, parse_method


@dataclass
class Passes:
    """Images that went through the classifier, and those of them whose logits were differentiated."""

    forward: int = 0
    backward: int = 0
    largest: int = 0


def counted(explanandum):
    """Count the passes of the explanandum from now on."""
    passes = Passes()

    def note(_module, inputs, logits):
        passes.forward += len(inputs[0])
        passes.largest = max(passes.largest, len(inputs[0]))
        if logits.requires_grad:
            logits.register_hook(lambda gradient: note_backward(int(gradient.any(dim=1).sum())))

    def note_backward(count):
        passes.backward += count

    explanandum.model.register_forward_hook(note)
    return passes


def cost(text, model=None, size=32):
    """Passes of one image and one class, the search for a target layer left aside."""
    explanandum = freeze(model or SmallNet())
    method = parse_method(text).build(explanandum)
    passes = counted(explanandum)
    method(images(1, size, size), torch.tensor([1]))
    return passes


@pytest.mark.parametrize(
    ("text", "forward", "backward"),
    [
        *((name, 1, 1) for name in ("grad_cam", "grad_cam_pp", "wgrad_cam")),
        ("group_cam:groups=4,theta=null", 4 + 2, 1),
        ("group_cam_head:groups=2", 2 + 2, 1),
        ("score_cam", 8 + 1, 0),
        *((name, 1, 1) for name in ("gradient", "guided_backprop", "full_grad")),
        ("smooth_grad:samples=7", 7, 7),
        ("integrated_gradients:steps=5", 5, 5),
        ("occlusion:window=12,step=5", 5 * 5 + 1, 0),
        ("lrp", 1, 1),
        ("xrai:segments=slic,steps=3,baselines=[0,0.5]", 6, 6),
        ("pami_window:radius=5,step=4", 8 * 8, 0),
        ("rise:masks=57", 57, 0),
        ("mask:iterations=7,score=probability", 7, 7),
        ("extremal:areas=[0.1,0.2],iterations=3", 6, 6),
        ("random", 0, 0),
        ("center", 0, 0),
    ],
)
def test_passes_are_those_of_the_formula_and_no_more(text, forward, backward):
    passes = cost(text)
    assert (passes.forward, passes.backward) == (forward, backward)


@pytest.mark.parametrize(
    ("text", "gradients", "fewest", "most"),
    [
        ("i_gos:iterations=3,steps=4", 12, 2 + 3 * 2, 2 + 3 * 13),
        ("sigcam:iterations=2", 1 + 40, 2 + 2 * 2, 2 + 2 * 13),
        ("aop:optimiser=(i_gos:iterations=2,steps=4)", 1 + 8, 2 + 2 * 2, 2 + 2 * 13),
        ("igos_pp:iterations=2,steps=3", 4 * 6, 4 * 2 * 2, 4 * 2 * 14),
    ],
)
def test_a_line_search_asks_between_two_and_so_many_times(text, gradients, fewest, most):
    passes = cost(text)
    assert passes.backward == gradients
    assert gradients + fewest <= passes.forward <= gradients + most


def test_pami_asks_about_each_superpixel_once():
    method = parse_method("pami:second_run=false").build(freeze(SmallNet()))
    passes = counted(method.explanandum)
    picture = torch.zeros(1, 3, 64, 64)  # every segmentation that follows colours finds one segment, which is the same
    picture[:, :, :, 32:] = 1
    method(picture, torch.tensor([1]))
    labels = method.segmenter.start((picture[0].permute(1, 2, 0) * 255).byte().numpy())()
    different = {(layer == label).tobytes() for layer in labels for label in set(layer.flatten())}
    assert passes.forward == len(different)
    assert passes.forward < sum(len(set(layer.flatten())) for layer in labels)


SHARING = [
    *("explainer", "score_cam", "pami_window", "rise", "occlusion"),
    *("gradient", "guided_backprop", "smooth_grad", "integrated_gradients", "full_grad", "lrp", "xrai"),
]


@pytest.mark.parametrize("name", SHARING)
def test_more_classes_of_an_image_cost_no_more_passes(name):
    case = Case(name)
    passes = counted(case.explanandum)
    case.method.present_class_maps(images(1), torch.tensor([[0.0, 1, 0]]))
    one = passes.forward
    case.method.present_class_maps(images(1), torch.ones(1, 3))
    assert passes.forward == 2 * one


def test_every_class_of_a_cam_shares_the_forward_pass():
    case = Case("grad_cam")
    passes = counted(case.explanandum)
    case.method.present_class_maps(images(2), torch.ones(2, 3))
    assert (passes.forward, passes.backward) == (2, 6)


CHUNKED = pytest.mark.parametrize("name", [name for name in METHODS if "chunk_size" in options_of(name)])


@CHUNKED
def test_no_pass_is_larger_than_the_chunk(name):
    options = QUICK.get(name, {}) | {"chunk_size": 3}
    case = Case(name, options=options)
    passes = counted(case.explanandum)
    case(images(2), [0, 1])
    assert passes.largest <= 3


@CHUNKED
def test_the_map_does_not_depend_on_the_chunk(name):
    one, many = (Case(name, options=QUICK.get(name, {}) | {"chunk_size": size})(images(2), [0, 1]) for size in (3, 64))
    # PAMI's second run parts a picture of the first map, where rounding may move a segment's border.
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-3 if name == "pami" else 2e-5)


def live_tensors():
    """Number and bytes of all tensors that someone still holds; a graph that is kept hangs on one of them."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
    return len(tensors), sum(tensor.nbytes for tensor in tensors)


@EVERY
def test_nothing_is_kept_over_fifty_images(name):
    case = Case(name, options=QUICK.get(name, {}) | ({"iterations": 1} if "iterations" in options_of(name) else {}))
    held = []
    for index in range(50):
        case(images(1, 16, 16), [index % 3])
        case.explanandum(images(1, 16, 16))  # an ordinary pass: a hook that is left behind would collect it
        if index in (1, 49):  # after the first, what is made once is there
            held.append(live_tensors())
    assert held[0] == held[1]


@EVERY
def test_every_method_says_its_paper_its_needs_and_its_cost(name):
    row = method_row(name)
    assert row["paper"] and row["needs"] and row["passes per image"]
    assert all(f"{option}=" in row["options"] for option in options_of(name))
