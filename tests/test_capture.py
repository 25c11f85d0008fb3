"""Looking at a layer changes nothing: not the model, not its outputs, not the value that was seen."""

import pytest
import torch
from torch import nn
from toy_models import BreakableNet, BrokenError, FlatNet, GapNet, SmallNet, freeze, state_of

from explainer.capture import CannotExplain, captured_activation, last_spatial_layer

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def model():
    net = BreakableNet().eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.grad = torch.rand_like(parameter)  # the user's own, not to be touched
    return net


def test_captures_what_the_layer_gives(model):
    expected = model.features(IMAGE)
    with captured_activation(model, "features") as captured:
        model(IMAGE)
    assert torch.equal(captured.value, expected)


def test_hooks_are_gone_afterwards(model):
    before = state_of(model)
    with captured_activation(model, "features") as captured:
        logits = model(IMAGE)
        assert state_of(model) != before
        torch.autograd.grad(logits.sum(), captured.value)
    assert state_of(model) == before


def test_hooks_are_gone_after_an_error_inside_the_model(model):
    model.breaks.broken = True
    before = state_of(model)
    with pytest.raises(BrokenError), captured_activation(model, "features"):
        model(IMAGE)
    assert state_of(model) == before


def test_gradient_is_that_of_the_ordinary_graph(model):
    features = model.features(IMAGE).requires_grad_()
    expected = torch.autograd.grad(model.logits(model.head(model.pool(features).flatten(1)))[:, 1].sum(), features)[0]
    with captured_activation(model, "features") as captured:
        (gradient,) = torch.autograd.grad(model(IMAGE)[:, 1].sum(), captured.value)
    assert torch.equal(gradient, expected)


def test_outputs_do_not_change_while_captured(model):
    expected = model(IMAGE)
    with captured_activation(model, "features.4"):
        assert torch.equal(model(IMAGE), expected)


@pytest.mark.parametrize("layer", ["features.0", "features.1", "features.5"])
def test_in_place_operations_after_the_layer_leave_the_captured_value_alone(model, layer):
    index = int(layer.split(".")[1])
    expected = IMAGE
    for step in list(model.features)[: index + 1]:
        expected = step(expected.clone())
    with captured_activation(model, layer) as captured:
        model(IMAGE)
    assert torch.equal(captured.value, expected)
    assert (captured.value < 0).any()  # the in-place ReLU comes next


def test_nothing_below_the_layer_is_in_the_graph(model):
    image = IMAGE.clone().requires_grad_()
    with captured_activation(model, "features") as captured:
        logits = model(image)
    assert captured.value.grad_fn is None
    assert torch.autograd.grad(logits.sum(), image, allow_unused=True) == (None,)


def test_of_a_layer_that_runs_twice_the_last_output_is_captured():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, image):
            return self.layer(self.layer(image)).mean(dim=(2, 3))

    net = Twice()
    with captured_activation(net, "layer") as captured:
        logits = net(IMAGE)
    torch.testing.assert_close(captured.value, net.layer(net.layer(IMAGE)))
    assert torch.autograd.grad(logits.sum(), captured.value)[0].abs().sum() > 0


def test_unknown_layer_names_the_closest_and_all():
    message = r"Unknown target layer 'feature'; did you mean features.*pool, head"
    with pytest.raises(CannotExplain, match=message), captured_activation(SmallNet(), "feature"):
        pass


def test_a_layer_that_did_not_run_is_an_error_that_says_so():
    net = GapNet()
    net.add_module("unused", nn.Conv2d(3, 3, 1))
    with captured_activation(net, "unused") as captured:
        net(IMAGE)
    with pytest.raises(CannotExplain, match="'unused' did not run"):
        _ = captured.value


def test_a_layer_that_gives_no_tensor_is_an_error_that_says_so():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = nn.GRU(3, 3, batch_first=True)

        def forward(self, image):
            return self.pair(image.flatten(2).transpose(1, 2))[0][:, -1]

    net = Pair()
    before = state_of(net)
    with pytest.raises(CannotExplain, match="'pair' gives a tuple"), captured_activation(net, "pair"):
        net(IMAGE)
    assert state_of(net) == before


def test_last_spatial_layer_leaves_pooling_before_the_head_aside():
    assert last_spatial_layer(SmallNet().eval(), 32) == "features"  # the 2×2 pooling is no map of the image


def test_last_spatial_layer_removes_its_hooks_after_an_error(model):
    model.breaks.broken = True
    before = state_of(model)
    with pytest.raises(BrokenError):
        last_spatial_layer(model, 32)
    assert state_of(model) == before


def test_an_attentions_maps_are_no_maps_of_the_image():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.weights, self.head = nn.Conv2d(3, 4, 8, stride=8), nn.Identity(), nn.Linear(4, 3)

        def forward(self, image):
            tokens = self.patches(image).flatten(2)
            mixed = self.weights((tokens.transpose(1, 2) @ tokens).softmax(-1)[:, None])
            return self.head((tokens @ mixed[:, 0]).mean(dim=2))

    assert last_spatial_layer(Attention(), 32) == "patches"


def test_no_map_at_all_is_an_error_that_says_what_to_do():
    with pytest.raises(CannotExplain, match="name a target layer"):
        last_spatial_layer(FlatNet(), 32)
    assert issubclass(CannotExplain, ValueError)
    assert freeze(FlatNet(), target_layer="linear").target_layer == "linear"
