"""PAMI: closed forms of its core, its parts, and plain-loop references of both strategies.

P parts, S segmentations, H×W pixels.
"""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from toy_models import SmallNet, WindowNet, freeze

from explainer.attribution.pami import PAMI, PAMIWindow, masking_image, to_pictures
from explainer.attribution.pami_parts import Segments, Windows, average_over_parts, contributions
from explainer.attribution.perturb import gaussian_blur
from explainer.attribution.superpixels import ALGORITHMS, SEGMENTATIONS, Segmenter, _pool, seeds_with_blocks, viridis


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def blocks(count, height=24, width=40):
    """A photograph in little: `count` flat colours in upright stripes, some noise."""
    stripes = torch.arange(width) * count // width
    return (noise(3, count, seed=count)[:, stripes][:, None].expand(3, height, width) + 0.02 * noise(3, 1, 1))[None]


# The core, without any image.


def test_on_an_additive_model_the_contributions_are_the_parts_weights():
    weights = torch.tensor([0.5, -2.0, 3.0, 0.25])
    parts = torch.eye(4, dtype=torch.bool)
    for size in (1, 3, 10):
        found = contributions(parts, lambda members: members * 1.0, lambda inputs: inputs @ weights, size)
        assert torch.equal(found, weights)
        assert torch.equal(average_over_parts(parts, found[:, None], size)[0], weights)


def test_the_core_takes_a_sentence_and_a_plain_function():
    words = ["not", "a", "good", "film"]
    worth = {"not": -1.0, "good": 2.0}

    def keep_only(members):
        return [[word if kept else "_" for word, kept in zip(words, row, strict=True)] for row in members.tolist()]

    def score(sentences):
        return torch.tensor([sum(worth.get(word, 0.0) for word in sentence) for sentence in sentences])

    pairs = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]).bool()
    found = contributions(pairs, keep_only, score, chunk_size=2)
    assert found.tolist() == [-1, 2, 2]
    assert average_over_parts(pairs, found[:, None], 2)[0].tolist() == [-1, 0.5, 2, 2]


def test_elements_that_no_part_covers_get_nothing():
    parts = torch.tensor([[True, False, False], [True, True, False]])
    assert average_over_parts(parts, torch.tensor([[1.0], [3.0]]), 1)[0].tolist() == [2, 3, 0]


def test_the_core_never_asks_for_gradients():
    def score(inputs):
        assert not torch.is_grad_enabled()
        return inputs.sum(dim=1)

    weights = torch.ones(3, requires_grad=True)
    assert not contributions(torch.eye(3).bool(), lambda members: members * weights, score, 2).requires_grad


# Windows.


def test_windows_are_what_a_loop_over_the_grid_draws_also_where_images_are_not_square():
    rows, columns = np.mgrid[:14, :23]
    expected = [
        (rows - y) ** 2 + (columns - x) ** 2 <= 2.5**2
        for y in (0, 6, 12)  # one pixel is left over, below
        for x in (2, 8, 14, 20)  # two on either side
    ]
    windows = Windows(14, 23, 2.5, 6)
    assert len(windows) == len(expected) == 12
    assert np.array_equal(windows[0:12].numpy(), expected)
    assert torch.equal(windows[5:9], windows[0:12][5:9])


def test_rectangles_are_as_wide_as_their_aspect_says():
    (window,) = Windows(9, 13, 1, 100, "rectangle", aspect=3.0)[0:1]
    assert window.nonzero().aminmax(dim=0).min.tolist() == [3, 3]
    assert window.nonzero().aminmax(dim=0).max.tolist() == [5, 9]
    assert window.sum() == 3 * 7


def test_the_papers_windows_are_1444():
    assert len(Windows(224, 224, 40, 6)) == 38 * 38


def test_a_window_map_is_the_mean_probability_of_the_windows_over_a_pixel():
    explanandum, image = freeze(SmallNet()), noise(1, 3, 20, 26)
    hidden = gaussian_blur(image, 49, 100.0)
    total, count = torch.zeros(20, 26), torch.zeros(20, 26)
    for window in Windows(20, 26, 5, 4)[0:1000]:
        kept = torch.where(window, image, hidden)
        total += explanandum(kept)[0, 1].sigmoid() * window
        count += window
    found = PAMIWindow(explanandum, radius=5, step=4, chunk_size=7)(image, torch.tensor([1]))
    torch.testing.assert_close(found[0], (total / count).detach())


# Segments.


def test_alike_segments_are_one_part_that_counts_as_often_as_it_occurs():
    labels = torch.tensor([[[0, 0], [1, 1]], [[5, 5], [2, 3]], [[1, 1], [0, 0]]])
    segments = Segments(labels)
    found = {
        tuple(mask.flatten().tolist()): times
        for mask, times in zip(segments[0:9], segments.times.tolist(), strict=True)
    }
    top, bottom = (True, True, False, False), (False, False, True, True)
    assert found == {top: 3, bottom: 2, (False, False, True, False): 1, (False, False, False, True): 1}


def test_the_average_over_segmentations_is_the_mean_of_their_maps():
    labels = torch.randint(0, 6, (5, 8, 9), generator=torch.Generator().manual_seed(0))
    labels[3] = labels[1] + 2
    segments = Segments(labels)
    worth = noise(len(segments), 2)
    masks = segments[0 : len(segments)]
    maps = torch.zeros(5, 2, 8, 9)
    for number, layer in enumerate(labels):
        for label in layer.unique():
            (part,) = (masks == (layer == label)).all(dim=(1, 2)).nonzero()[0]
            maps[number] += worth[part][:, None, None] * (layer == label)
    found = average_over_parts(segments, worth, 3, segments.times)
    torch.testing.assert_close(found, maps.mean(dim=0))


def test_there_are_the_papers_twenty_segmentations():
    names = [segment.func.__name__ for segment in SEGMENTATIONS]
    assert [names.count(name) for name in ("felzenszwalb", "slic", "seeds", "watershed")] == [6, 8, 3, 3]


SIZES = [(500, 333), (500, 332), (640, 426), (224, 110), (300, 100), (100, 300), (333, 500), (1, 1), (2, 1), (9, 9)]
SIZES += [(12, 12), (12, 40), (96, 96), (224, 224)]


def test_seeds_never_crashes_whatever_the_size_of_the_picture():
    # In another process: OpenCV does not raise, it ends the process, or never returns.
    code = f"""
import numpy as np
from explainer.attribution.superpixels import seeds
for height, width in {SIZES}:
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    for count in (10, 20, 30):
        labels = seeds(picture, count)
        assert labels.shape == (height, width) and (min(height, width) < 12 or labels.max() > 0), (height, width, count)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_papers_images_have_the_papers_number_of_blocks():
    assert [seeds_with_blocks(224, 224, count) for count in (10, 20, 30)] == [10, 20, 30]


def test_viridis_is_matplotlibs_of_the_scaled_map():
    values = np.linspace(-3, 5, 224, dtype=np.float32)[None]
    expected = colormaps["viridis"](((values + 3) / 8 * 255).astype(np.uint8), bytes=True)[..., :3]
    assert np.array_equal(viridis(values), expected)
    assert len(np.unique(viridis(np.full((4, 4), 7.0)).reshape(-1, 3), axis=0)) == 1


def test_workers_find_the_same_superpixels():
    (picture,) = to_pictures(blocks(5), freeze(SmallNet()).card)
    alone, together = Segmenter(), Segmenter(workers=1)
    waiting = [together.start(picture), together.start(picture.transpose(1, 0, 2).copy())]
    assert np.array_equal(waiting[0](), alone.start(picture)())
    assert np.array_equal(waiting[1](), alone.start(picture.transpose(1, 0, 2).copy())())


def test_after_a_killed_worker_others_go_on():
    (picture,) = to_pictures(blocks(5), freeze(SmallNet()).card)
    segmenter = Segmenter(workers=1)
    expected = segmenter.start(picture)()
    for process in list(_pool(1)._processes.values()):
        process.kill()
        process.join()
    while not _pool(1)._broken:
        time.sleep(0.01)
    assert np.array_equal(segmenter.start(picture)(), expected)


# Strategy II.


def plain_pami(explanandum, image, target, runs):
    """PAMI, Sec. 3.2.2, written as loops: one superpixel at a time."""
    hidden = gaussian_blur(image, 49, 100.0)
    picture = (image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    for _ in range(runs):
        maps = []
        for segment in SEGMENTATIONS:
            labels = torch.from_numpy(np.array(segment(picture)))
            maps.append(torch.zeros(image.shape[-2:]))
            for label in labels.unique():
                kept = torch.where(labels == label, image, hidden)
                maps[-1] += explanandum(kept)[0, target].sigmoid().detach() * (labels == label)
        found = torch.stack(maps).mean(dim=0)
        picture = viridis(found.numpy())
    return found


def test_one_run_is_what_a_loop_over_all_superpixels_gives():
    explanandum, image = freeze(SmallNet()), blocks(4)
    found = PAMI(explanandum, second_run=False)(image, torch.tensor([2]))
    torch.testing.assert_close(found[0], plain_pami(explanandum, image, 2, runs=1))


def test_all_algorithms_together_are_the_mean_over_their_segmentations():
    explanandum, image, target = freeze(SmallNet()), blocks(4), torch.tensor([2])
    found = {name: PAMI(explanandum, second_run=False, segmentation=name)(image, target) for name in ALGORITHMS}
    expected = sum(len(ALGORITHMS[name]) * value for name, value in found.items()) / len(SEGMENTATIONS)
    torch.testing.assert_close(PAMI(explanandum, second_run=False)(image, target), expected)
    assert len({value.sum().item() for value in found.values()}) == len(ALGORITHMS)
    with pytest.raises(ValueError, match="Unknown segmentation 'quickshift'; choose one of: all, felzenszwalb"):
        PAMI(explanandum, segmentation="quickshift")


def test_the_second_run_has_the_superpixels_of_the_first_runs_map():
    explanandum, image = freeze(SmallNet()), blocks(4)
    method = PAMI(explanandum, second_run=False)
    first = method(image, torch.tensor([2]))
    labels = torch.from_numpy(Segmenter().start(viridis(first[0].numpy()))())
    hidden = masking_image(image, "blur", explanandum.card)
    segments = Segments(labels)
    expected = method._map(image, hidden, segments, torch.tensor([2]), segments.times).detach()
    found = PAMI(explanandum)(image, torch.tensor([2]))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, first)


def test_shifted_views_of_an_image_are_averaged():
    explanandum, image = freeze(SmallNet()), blocks(3, 16, 16)
    plain = PAMI(explanandum, second_run=False)
    expected = torch.stack(
        [
            plain(image.roll(shift, (2, 3)), torch.tensor([0]))[0].roll((-shift[0], -shift[1]), (0, 1))
            for by in (24, 30, 36)
            for shift in ((by, 0), (-by, 0), (0, by), (0, -by))
        ]
        + [plain(image, torch.tensor([0]))[0]]
    ).mean(dim=0)
    found = PAMI(explanandum, second_run=False, shifts=True)(image, torch.tensor([0]))[0]
    torch.testing.assert_close(found, expected)


def test_alike_superpixels_are_asked_once_and_no_batch_is_larger_than_a_chunk():
    model, batches = SmallNet(), []
    model.features.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    image = blocks(4)
    labels = Segmenter().start(to_pictures(image, freeze(model).card)[0])()
    maps, _, target = PAMI(freeze(model), second_run=False, chunk_size=16).present_class_maps(image, torch.ones(1, 3))
    assert len(maps) == len(target) == 3
    assert max(batches) == 16
    assert sum(batches) == len(Segments(torch.from_numpy(labels)))
    assert sum(batches) < sum(len(np.unique(layer)) for layer in labels)


def test_an_image_is_unnormalised_before_it_is_segmented_or_masked():
    card = freeze(SmallNet()).card
    card = type(card)(**{**vars(card), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.1, 0.3)})
    pixels = torch.randint(0, 256, (1, 3, 8, 9), generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor(card.mean)[:, None, None], torch.tensor(card.std)[:, None, None]
    image = (pixels / 255 - mean) / std
    assert np.array_equal(to_pictures(image, card)[0], pixels[0].permute(1, 2, 0).numpy())
    for masking, value in (("black", 0.0), ("white", 1.0)):
        hidden = masking_image(image, masking, card) * std + mean
        torch.testing.assert_close(hidden, torch.full_like(hidden, value), rtol=0, atol=1e-6)
    normalised = (gaussian_blur(pixels / 255, 49, 100.0) - mean) / std
    torch.testing.assert_close(masking_image(image, "blur", card), normalised, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="Unknown masking 'grey'; choose one of: blur, black, white"):
        PAMI(freeze(SmallNet()), masking="grey")


def test_of_several_radii_the_maps_are_averaged():
    explanandum, image, target = freeze(SmallNet()), noise(1, 3, 20, 26), torch.tensor([1])
    maps = [PAMIWindow(explanandum, radius, step=4)(image, target) for radius in (3, 7)]
    found = PAMIWindow(explanandum, radius=(3, 7), step=4)(image, target)
    torch.testing.assert_close(found, torch.stack(maps).mean(dim=0))


def test_several_radii_and_rectangles_still_find_the_square():
    model = WindowNet()
    image = noise(1, 3, 32, 32) + 0.5
    method = PAMIWindow(freeze(model), radius=(3, 5), step=2, shape="rectangle", aspect=1.0, masking="black")
    row, column = divmod(int(method(image, torch.tensor([1])).argmax()), 32)
    assert model.corners[1] <= row < model.corners[1] + 8
    assert model.corners[1] <= column < model.corners[1] + 8
