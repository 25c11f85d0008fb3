"""PAMI, Group-CAM, RISE and I-GOS agree with the papers, written out as plain loops in `tests.reference`.

B images of H×W pixels. The references ask the model in float64, one image at a time, and see only its logits.
"""

import copy
import inspect
import itertools

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from reference import group_cam, igos, pami, pixels, rise
from reference.convert import nested
from reference.nn_explainer import sigmoid, softmax
from torch import nn

from explainer.attribution import METHODS
from explainer.explanandum import ClassifierCard, Explanandum

CLASSES = ("cat", "dog", "hen")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
OUTPUTS = ("single_label", "multi_label")


class TinyNet(nn.Module):
    """Eight activations at half the resolution, read by a head that knows where they are."""

    def __init__(self, seed=0, sharpness=8.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
            self.head = nn.Sequential(
                *(nn.Conv2d(8, 6, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(3), nn.Flatten()),
                nn.Linear(54, len(CLASSES)),
            )
        self.sharpness = sharpness

    def forward(self, image):
        return self.sharpness * self.head(self.features(image))


class PositiveNet(TinyNet):
    """Activations and weights that are positive wherever the image is bright: a group's mask has no zeros."""

    def __init__(self):
        super().__init__(seed=3)
        self.features[1] = nn.Softplus()


def explanandum_of(model, size, output):
    """The model in float32 as an explanandum of normalised images; `features` is its target layer."""
    return Explanandum(model, ClassifierCard("toy", CLASSES, size, MEAN, STD, output, target_layer="features"))


class Asked:
    """A float64 copy of an explanandum's model, for one class: nested image -> score, gradient, activations."""

    def __init__(self, explanandum, target):
        self.model = copy.deepcopy(explanandum.model).double()
        self.output, self.target = explanandum.card.output, target
        self.dtype = torch.float64

    def score(self, image):
        """The class's probability."""
        logits = self.model(torch.tensor(image, dtype=self.dtype)[None])[0].tolist()
        return sigmoid(logits[self.target]) if self.output == "multi_label" else softmax(logits)[self.target]

    def score_gradient(self, image):
        """Gradient of the class's probability by the image."""
        pixels = torch.tensor(image, dtype=self.dtype)[None].requires_grad_()
        logits = self.model(pixels)
        probabilities = logits.sigmoid() if self.output == "multi_label" else logits.softmax(dim=1)
        (gradient,) = torch.autograd.grad(probabilities[0, self.target], pixels)
        return nested(gradient[0])

    def activations_and_gradients(self, image):
        """Of the layer `features`: its output, and the gradient by it of the class's logit."""
        activations = self.model.features(torch.tensor(image, dtype=self.dtype)[None]).detach().requires_grad_()
        logit = self.model.sharpness * self.model.head(activations)[0, self.target]
        (gradients,) = torch.autograd.grad(logit, activations)
        return nested(activations[0]), nested(gradients[0])


def method(name, explanandum, **options):
    """The method, or a skip that says which option the public signature does not have."""
    if name not in METHODS:
        pytest.skip(f"There is no method {name!r} yet.")
    known = inspect.signature(METHODS[name]).parameters
    for option in options:
        if option not in known:
            pytest.skip(f"{name} has no option {option!r}; it takes {', '.join(known)}.")
    return METHODS[name](explanandum, **options)


def photographs(count, height, width, seed=3):
    """Random images [B,3,H,W] in [0, 1] that are not alike, coarse blobs under noise, in steps of 1/255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    fine = torch.randn(count, 3, height, width, generator=generator)
    blobs = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (255 * torch.sigmoid(1.5 * blobs + 0.5 * fine)).round() / 255


def colours(values):
    """Three numbers as [3,1,1]."""
    return torch.tensor(values).view(3, 1, 1)


def images_of(count, height, width, seed=3):
    """The photographs, normalised."""
    return (photographs(count, height, width, seed) - colours(MEAN)) / colours(STD)


def gaining_classes(explanandum, images, blur_size, blur_sigma):
    """For each image the class that loses most when the image is blurred, so that its map isn't empty."""
    gains = []
    for image in images:
        image = nested(image)
        blurred = pixels.gaussian_blur(image, blur_size, blur_sigma)
        asked = [Asked(explanandum, target) for target in range(len(CLASSES))]
        gains.append([one.score(image) - one.score(blurred) for one in asked])
    return torch.tensor(gains).argmax(dim=1)


def agree(actual, expected, relative=1e-4):
    """The map equals the reference's up to a fraction of the reference's largest value."""
    expected = torch.tensor(expected, dtype=torch.float64)
    assert expected.abs().max() > 0, "A reference of zeros shows nothing."
    error = (actual.double() - expected).abs().max() / expected.abs().max()
    assert error <= relative, f"Off by {error:.3g} of the largest value."


# --- Group-CAM ---


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("groups", "theta"), [(4, 70.0), (1, None), (3, 50.0), (8, 70.0), (5, 90.0), (2, 0.0)])
def test_group_cam_is_algorithm_1(output, groups, theta):
    """Also for groups of unequal size and images that are not square; at θ = 50 the threshold is a pixel's value."""
    height, width = (18, 22) if theta == 50 else (20, 24)  # 9·11 activations have a pixel in the middle
    explanandum, images = explanandum_of(TinyNet(seed=1), height, output), images_of(3, height, width)
    targets = gaining_classes(explanandum, images, 9, 3.0)
    options = {"groups": groups, "theta": theta}
    saliency = method("group_cam", explanandum, **options, kernel_size=9, sigma=3.0)(images, targets)
    for image, target, actual in zip(images, targets.tolist(), saliency, strict=True):
        asked, image = Asked(explanandum, target), nested(image)
        layer = asked.activations_and_gradients(image)
        agree(actual, group_cam.group_cam(image, *layer, asked.score, **options, blur_size=9, blur_sigma=3.0))


def test_group_cam_of_more_groups_than_channels():
    """Groups without a channel add nothing."""
    explanandum, images = explanandum_of(TinyNet(seed=1), 16, "single_label"), images_of(1, 16, 16)
    target = gaining_classes(explanandum, images, 5, 2.0)
    saliency = method("group_cam", explanandum, groups=11, theta=70.0, kernel_size=5, sigma=2.0)(images, target)
    asked, image = Asked(explanandum, int(target)), nested(images[0])
    layer = asked.activations_and_gradients(image)
    expected = group_cam.group_cam(image, *layer, asked.score, groups=11, theta=70, blur_size=5, blur_sigma=2.0)
    agree(saliency[0], expected)


def test_group_cam_at_theta_zero_removes_the_lowest_pixel():
    """Eq. 3 keeps what is strictly above the 0th percentile, the minimum, which isn't 0 where all is positive."""
    explanandum, images = explanandum_of(PositiveNet(), 20, "single_label"), images_of(1, 20, 24)
    target = gaining_classes(explanandum, images, 9, 3.0)
    saliency = method("group_cam", explanandum, groups=1, theta=0.0, kernel_size=9, sigma=3.0)(images, target)
    asked, image = Asked(explanandum, int(target)), nested(images[0])
    layer = asked.activations_and_gradients(image)
    expected = group_cam.group_cam(image, *layer, asked.score, groups=1, theta=0, blur_size=9, blur_sigma=3.0)
    agree(saliency[0], expected)


# --- PAMI ---

FILLS = {"black": [0.0] * 3, "white": [1.0] * 3}


def keeper(image, masking):
    """The operator that keeps a part of the nested image and fills the rest."""
    height, width = len(image[0]), len(image[0][0])
    if masking == "blur":
        baseline = pixels.gaussian_blur(image, 49, 100.0)
    else:
        fill = [(value - mean) / std for value, mean, std in zip(FILLS[masking], MEAN, STD, strict=True)]
        baseline = [pixels.filled(value, height, width) for value in fill]
    return lambda part: pixels.blended(image, baseline, part)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("masking", ["blur", "black", "white"])
@pytest.mark.parametrize(("height", "width", "radius", "step"), [(29, 33, 6, 4), (29, 36, 5, 7), (31, 36, 9.5, 5)])
def test_pami_window_is_the_mean_over_circles(output, masking, height, width, radius, step):
    """On images that are not square, with circles that cover all and circles that leave gaps.

    The sizes are such that the steps lead from the first pixel to the last one: the paper leaves open where the grid
    of windows begins.
    """
    explanandum, images = explanandum_of(TinyNet(seed=1), height, output), images_of(2, height, width)
    targets = torch.tensor([2, 0])
    saliency = method("pami_window", explanandum, radius=radius, step=step, masking=masking)(images, targets)
    windows = pami.circular_windows(height, width, radius, step)
    for image, target, actual in zip(images, targets.tolist(), saliency, strict=True):
        keep_only = keeper(nested(image), masking)
        scores = pami.contributions(windows, keep_only, Asked(explanandum, target).score)
        agree(actual, pami.importance(scores, windows))


def test_pami_window_of_several_radii_is_the_mean_of_their_maps():
    """Every window size has the same say, however many of its windows cover a pixel; the paper leaves this open."""
    explanandum, images = explanandum_of(TinyNet(seed=1), 31, "single_label"), images_of(1, 31, 36)
    saliency = method("pami_window", explanandum, radius=(6, 11), step=5, masking="black")(images, torch.tensor([2]))
    partitions = [pami.circular_windows(31, 36, radius, 5) for radius in (6, 11)]
    keep_only = keeper(nested(images[0]), "black")
    agree(saliency[0], pami.mean_importance(partitions, keep_only, Asked(explanandum, 2).score))


def superpixels(photograph):
    """The twenty segmentations of PAMI's Appendix A of an RGB image [H,W,3] in uint8."""
    cv2, segmentation = pytest.importorskip("cv2"), pytest.importorskip("skimage.segmentation")
    filters, colour = pytest.importorskip("skimage.filters"), pytest.importorskip("skimage.color")
    height, width, _ = photograph.shape
    found = []
    for scale in (250, 200, 150, 100, 70, 50):
        found.append(segmentation.felzenszwalb(photograph, scale=scale, sigma=0.8, min_size=784))
    for count in (10, 20, 30, 40, 50, 60, 70, 80):
        found.append(segmentation.slic(photograph, n_segments=count, compactness=20))
    for count in (10, 20, 30):
        seeds = cv2.ximgproc.createSuperpixelSEEDS(width, height, 3, count, 5, histogram_bins=5, double_step=True)
        seeds.iterate(photograph, 10)
        found.append(seeds.getLabels())
    slopes = filters.sobel(colour.rgb2gray(photograph))
    for count in (10, 20, 30):
        found.append(segmentation.watershed(slopes, markers=count, compactness=0.0001))
    return [np.asarray(labels).tolist() for labels in found]


def viridis(saliency):
    """A map [H,W] as a picture [H,W,3] in uint8: min-max, then matplotlib's viridis, as PAMI's authors do."""
    levels = (255 * np.array(pixels.min_max(saliency))).astype(np.uint8)
    return colormaps["viridis"](levels, bytes=True)[:, :, :3].copy()


@pytest.mark.parametrize(
    ("coloured", "masking"),
    [(None, "blur"), (None, "black"), (viridis, "blur")],
)
def test_pami_is_the_mean_over_the_segmentations_of_appendix_a(coloured, masking):
    """The second run segments the coloured first map, and its map replaces the first."""
    height, width = 64, 72
    explanandum = explanandum_of(TinyNet(seed=1), height, "single_label")
    photograph, images = photographs(1, height, width), images_of(1, height, width)
    saliency = method("pami", explanandum, second_run=coloured is not None, masking=masking)(images, torch.tensor([2]))
    candidate = (255 * photograph[0]).round().byte().permute(1, 2, 0).contiguous().numpy()
    keep_only, score = keeper(nested(images[0]), masking), Asked(explanandum, 2).score
    agree(saliency[0], pami.pre_segmentation(candidate, superpixels, keep_only, score, coloured))


# --- RISE ---


class PatchNet(nn.Module):
    """Each class reads a patch of its own, steeply: a mask that shows it decides the score."""

    def __init__(self, height, width):
        super().__init__()
        weights = torch.zeros(len(CLASSES), 3, height, width)
        weights[0, :, :2, :2], weights[1, :, 3:5, 4:6], weights[2, :, 1:4, 5:] = 2.0, 2.0, 2.0
        self.linear = nn.Linear(3 * height * width, len(CLASSES))
        self.linear.weight.data = weights.flatten(1)
        self.linear.bias.data.fill_(-8.0)

    def forward(self, image):
        return self.linear(image.flatten(1))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("height", "width", "probability"), [(8, 8, 0.5), (7, 9, 0.5), (8, 8, 0.3)])
def test_rise_averages_to_its_expectation(output, height, width, probability):
    """Two by two cells have 16 grids and a cell's worth of shifts: the exact expectation and spread of the map.

    The mean over many random masks must lie within five standard errors of it in every pixel.
    """
    count, cells = 20000, 2
    explanandum = explanandum_of(PatchNet(height, width), height, output)
    images = images_of(1, height, width).abs()
    saliency = method("rise", explanandum, masks=count, cells=cells, probability=probability, seed=1)
    actual = saliency(images, torch.tensor([2]))[0].double()
    mean, square = rise_moments(nested(images[0]), Asked(explanandum, 2).score, cells, probability)
    error = ((square - mean**2) / count).sqrt()
    off = ((actual - mean) / error).abs().max()
    assert off < 5, f"{off:.1f} standard errors away; the ratio of the means is {actual.mean() / mean.mean():.4f}."


def rise_moments(image, score, cells, probability):
    """Mean of one mask's map and of its square, over all grids and shifts."""
    height, width = len(image[0]), len(image[0][0])
    shifts = [(y, x) for y in range(rise.cell_size(height, cells)) for x in range(rise.cell_size(width, cells))]
    mean = square = torch.zeros(height, width, dtype=torch.float64)
    for bits in itertools.product((0, 1), repeat=cells**2):
        chance = probability ** sum(bits) * (1 - probability) ** (cells**2 - sum(bits)) / len(shifts)
        draws = [[1.0 - bit for bit in bits[row * cells : (row + 1) * cells]] for row in range(cells)]
        for shift in shifts:
            mask = rise.mask(draws, probability, height, width, shift)
            term = torch.tensor(rise.saliency(image, [mask], score, probability), dtype=torch.float64)
            mean, square = mean + chance * term, square + chance * term**2
    return mean, square


# --- I-GOS ---

LIGHT = {"l1": 0.02, "tv": 0.1}  # light enough for the tiny model, whose score falls little by little


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("iterations", "mask_size"), [(1, 28), (2, 28), (1, 7), (3, 7)])
def test_i_gos_is_integrated_gradients_with_a_line_search(output, iterations, mask_size):
    """Without noise every step is determined; a mask of 28 pixels is not resized on an image of 28."""
    size = 28
    explanandum, images = explanandum_of(TinyNet(seed=1), size, output), images_of(2, size, size)
    targets = gaining_classes(explanandum, images, 51, 50.0)
    options = {"iterations": iterations, "steps": 4, "noise": 0.0, "mask_size": mask_size, "score": "probability"}
    saliency = method("i_gos", explanandum, **options, **LIGHT)(images, targets)
    for image, target, actual in zip(images, targets.tolist(), saliency, strict=True):
        problem = igos_problem(explanandum, nested(image), target)
        start = pixels.filled(1.0, mask_size, mask_size)
        agree(actual, igos.heatmap(problem, igos.optimise(problem, start, iterations=iterations, steps=4)))


@pytest.mark.parametrize("output", OUTPUTS)
def test_i_gos_lowers_its_objective(output):
    """With the method's own noise too, the mask it ends with has a clearly lower objective than the mask of ones."""
    size = 28
    explanandum, images = explanandum_of(TinyNet(seed=1), size, output), images_of(2, size, size)
    targets = gaining_classes(explanandum, images, 51, 50.0)
    saliency = method("i_gos", explanandum, iterations=5, steps=8, mask_size=size, score="probability", **LIGHT)(
        images, targets
    )
    for image, target, actual in zip(images, targets.tolist(), saliency, strict=True):
        problem = igos_problem(explanandum, nested(image), target)
        before = igos.objective(problem, pixels.filled(1.0, size, size))
        after = igos.objective(problem, nested(1 - actual))
        assert after < before - 0.1, f"{before:.4f} -> {after:.4f}"


def igos_problem(explanandum, image, target):
    """I-GOS's problem on a nested image, with the blur of its authors."""
    asked = Asked(explanandum, target)
    return igos.Problem(image, pixels.gaussian_blur(image, 51, 50.0), asked.score, asked.score_gradient, **LIGHT)
