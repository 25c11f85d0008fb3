"""Score-CAM against a plain loop, and what it costs."""

import pytest
import torch
import torch.nn.functional as F
from toy_models import FlatNet, GapNet, SmallNet, freeze

from explainer.attribution.score_cam import ScoreCAM
from explainer.capture import CannotExplain


def plain_score_cam(explanandum, channels, image, target, weighting):
    """Algorithm 1 for one image [3,H,W] with its channels [K,h,w], one channel at a time."""

    def score(inputs):
        logits = explanandum(inputs[None])[0]
        return logits[target] if weighting == "softmax" else logits.sigmoid()[target]

    increases = []
    for channel in channels:
        large = F.interpolate(channel[None, None], image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
        mask = (large - large.min()) / (large.max() - large.min())
        increases.append(score(image * mask) - score(image * 0))
    weights = torch.stack(increases)
    weights = weights.softmax(dim=0) if weighting == "softmax" else weights
    cam = (weights[:, None, None] * channels).sum(dim=0).relu()
    return F.interpolate(cam[None, None], image.shape[-2:], mode="bilinear", align_corners=False)[0, 0].detach()


@pytest.mark.parametrize("weighting", ["softmax", "increase"])
def test_a_map_is_what_a_loop_over_the_channels_gives(weighting):
    model, image = GapNet(), torch.randn(2, 3, 12, 17, generator=torch.Generator().manual_seed(0))
    explanandum, target = freeze(model, "features"), torch.tensor([2, 0])
    found = ScoreCAM(explanandum, weighting=weighting, chunk_size=2)(image, target)
    for index in range(2):
        channels = model.features(image[index, None])[0]
        expected = plain_score_cam(explanandum, channels, image[index], target[index], weighting)
        torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-6)
    assert found.max() > 0


def test_channels_that_show_nothing_are_not_asked_about_and_no_batch_exceeds_a_chunk():
    model, batches = SmallNet(), []
    with torch.no_grad():
        model.features[5].bias[:3] = -1e6  # three dead channels of eight
    model.features.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    labels = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 1]])
    maps, _, _ = ScoreCAM(freeze(model, "features"), chunk_size=2).present_class_maps(torch.randn(3, 3, 16, 16), labels)
    assert len(maps) == 5
    assert batches[0] == 2  # the two images with a class, once for their channels
    assert max(batches) == 2
    assert sum(batches[1:]) <= 2 * 5


def test_a_layer_without_any_live_channel_gives_a_zero_map():
    model = SmallNet()
    with torch.no_grad():
        model.features[5].bias.fill_(-1e6)
    assert not ScoreCAM(freeze(model, "features"))(torch.randn(1, 3, 16, 16), torch.tensor([0])).any()


def test_refuses_what_gives_no_map_and_an_unknown_weighting():
    with pytest.raises(CannotExplain, match="name a target layer"):
        ScoreCAM(freeze(FlatNet()))
    with pytest.raises(CannotExplain, match=r"'head' gives \[1, 16\]"):
        ScoreCAM(freeze(SmallNet()), target_layer="head")(torch.randn(1, 3, 16, 16), torch.tensor([0]))
    with pytest.raises(ValueError, match="Unknown weighting 'max'; choose one of: softmax, increase"):
        ScoreCAM(freeze(SmallNet()), weighting="max")


def test_classes_have_maps_of_their_own():
    model, image = GapNet(), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.linear.weight *= 30  # a classifier that is sure of what it sees
    maps = torch.cat([ScoreCAM(freeze(model, "features"))(image, torch.tensor([target])) for target in range(3)])
    assert torch.corrcoef(maps.flatten(1)).triu(1).max() < 0.999
