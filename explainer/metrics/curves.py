"""Insertion and deletion (RISE, Petsiuk et al., BMVC 2018; Group-CAM, Sec. 4.3; SIGCAM; PAMI, Sec. 4.3).

How the target's probability changes while an image's pixels are put into a baseline image, or replaced by it, those
that the map calls important first. A curve has a point before the first step and one after each: S steps, S+1 points.

N images, each with a map and a target; n points of one chunk; C classes, H×W pixels.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from math import ceil
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

from explainer.attribution.perturb import ChunkSize, class_scores, gaussian_blur, like, resolved_chunk_size
from explainer.explanandum import Explanandum
from explainer.metrics.ranks import importance_ranks

Baseline = Literal["blur", "zero", "black"]
Score = Literal["own", "softmax"]


@dataclass(frozen=True)
class CurveOptions:
    """How a curve is drawn.

    Args:
        step: below 1 the share of an image's pixels that changes at a time, 1 % in Group-CAM, Sec. 4.3; from 1 on
            their number, 224 (one row) for RISE and PAMI, 448 in Group-CAM's code. The last step takes what is left.
        baseline: the image that insertion starts from and deletion ends with. `blur`: of the image itself, in
            Group-CAM and SIGCAM for both; `zero`: zero in the classifier's normalised units, the data set's mean
            colour, for deletion in RISE and in Group-CAM's code; `black`.
        kernel_size: of the blur, in pixels, odd; 51 in SIGCAM, 49 in PAMI, Appendix D.
        sigma: of the blur, in pixels; 50 in SIGCAM, 100 in PAMI.
        score: `own`: what the classifier was trained for, sigmoid if it is multi-label, else softmax; `softmax` for
            either.
        seed: of the order of pixels that a map values the same.
        chunk_size: images of one forward pass; auto fits the device. The curve doesn't depend on it.
    """

    step: float = 0.01
    baseline: Baseline = "blur"
    kernel_size: int = 51
    sigma: float = 50.0
    score: Score = "own"
    seed: int = 0
    chunk_size: ChunkSize = "auto"

    def __post_init__(self) -> None:
        """Refuse what would only fail after the first images."""
        if not self.step > 0 or (self.step > 1 and self.step % 1 != 0):
            raise ValueError(f"step is {self.step}; give a share of the pixels below 1 or a whole number of pixels.")
        for name, value, known in (("baseline", self.baseline, Baseline), ("score", self.score, Score)):
            if value not in get_args(known):
                raise ValueError(f"Unknown {name} '{value}'; choose one of: {', '.join(get_args(known))}.")


def changed_pixels(step: float, pixels: int) -> list[int]:
    """How many of an image's pixels have changed at each of the S+1 points: none, one step, …, all of them."""
    width = step * pixels if step < 1 else step
    steps = ceil(pixels / width - 1e-9)  # 1 / (1 / 49) is a little more than 49
    return [*(round(index * width) for index in range(steps)), pixels]


def curve_fractions(step: float, height: int, width: int) -> Tensor:
    """The share of the pixels that have changed at each point, float64 [S+1] from 0 to 1: a curve's x axis."""
    pixels = height * width
    return torch.tensor(changed_pixels(step, pixels), dtype=torch.float64) / pixels


def baseline_image(explanandum: Explanandum, image: Tensor, options: CurveOptions) -> Tensor:
    """What replaces the pixels of normalised images [N,3,H,W], of the same shape and normalised too."""
    if options.baseline == "blur":
        return gaussian_blur(image, options.kernel_size, options.sigma)
    if options.baseline == "zero":
        return torch.zeros_like(image)
    mean, std = (image.new_tensor(value)[:, None, None] for value in (explanandum.card.mean, explanandum.card.std))
    return torch.empty_like(image).copy_(-mean / std)


def insertion_curve(
    explanandum: Explanandum, image: Tensor, attribution: Tensor, target: Tensor, options: CurveOptions | None = None
) -> Tensor:
    """The target's probability while the baseline image turns into the image, the most important pixels first.

    Args:
        explanandum: the classifier.
        image: [N,3,H,W], normalised.
        attribution: raw maps [N,H,W], one per image; only the order of a map's values matters.
        target: class indices, long [N].
        options: see `CurveOptions`.

    Returns:
        float32 [N,S+1] in [0, 1], the first column for the baseline image, the last for the image itself. The points'
        places on the x axis are `curve_fractions(options.step, H, W)`.

    Raises:
        ValueError: if a map holds NaN or infinity, or maps and images differ in size.
    """
    return _curves(explanandum, image, attribution, target, insertion=options or CurveOptions())[0]


def deletion_curve(
    explanandum: Explanandum, image: Tensor, attribution: Tensor, target: Tensor, options: CurveOptions | None = None
) -> Tensor:
    """The target's probability while the image turns into the baseline image, the most important pixels first.

    Arguments, errors and result as for `insertion_curve`, only that the first column is for the image itself and the
    last for the baseline image.
    """
    return _curves(explanandum, image, attribution, target, deletion=options or CurveOptions())[0]


def insertion_deletion_curves(
    explanandum: Explanandum,
    image: Tensor,
    attribution: Tensor,
    target: Tensor,
    insertion: CurveOptions | None = None,
    deletion: CurveOptions | None = None,
) -> tuple[Tensor, Tensor]:
    """Both curves, for which the pixels are sorted once, and blurred once where both want the same baseline image.

    Arguments, errors and results as for `insertion_curve` and `deletion_curve`, each with its own options; of two
    chunk sizes the smaller one counts.
    """
    options = {"insertion": insertion or CurveOptions(), "deletion": deletion or CurveOptions()}
    inserted, deleted = _curves(explanandum, image, attribution, target, **options)
    return inserted, deleted


@torch.no_grad()
def _curves(
    explanandum: Explanandum, image: Tensor, attribution: Tensor, target: Tensor, **wanted: CurveOptions
) -> list[Tensor]:
    """The curves [N,S+1] that are wanted, each by its name: insertion, deletion."""
    _check(image, attribution)
    points = [changed_pixels(options.step, image.shape[-2] * image.shape[-1]) for options in wanted.values()]
    curves = [[torch.zeros(0, len(each), device=image.device)] for each in points]
    limit = min(resolved_chunk_size(options.chunk_size, image) for options in wanted.values())
    room = _room(image, min(limit, len(image) * max(map(len, points))))
    # A chunk holds all images of a group, which is why the group has no more than fit into a chunk.
    for first in range(0, len(image), limit):
        group = slice(first, first + limit)
        part = image[group]
        ranks = cache(partial(_channel_ranks, part, attribution[group]))
        baseline = cache(partial(baseline_image, explanandum, part))
        for curve, (name, options) in zip(curves, wanted.items(), strict=True):
            blank = baseline(_for_baseline(options))
            ends = (blank, part) if name == "insertion" else (part, blank)
            curve.append(_path(explanandum, *ends, ranks(options.seed), target[group], options, room))
    return [torch.cat(curve) for curve in curves]


def _for_baseline(options: CurveOptions) -> CurveOptions:
    """The options as far as the baseline image depends on them: equal ones give the same image."""
    return CurveOptions(baseline=options.baseline, kernel_size=options.kernel_size, sigma=options.sigma)


def _room(image: Tensor, count: int) -> Tensor:
    """Memory for `count` images like these, [count,3,H,W]; one for all chunks, since fresh memory costs time."""
    last = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((count, *image.shape[1:]), dtype=image.dtype, device=image.device, memory_format=layout)


def _channel_ranks(image: Tensor, attribution: Tensor, seed: int) -> Tensor:
    """The ranks of the pixels for each of the images' channels, [N,3,H,W], in the images' memory format.

    In float32, which counts exactly up to 2^24, the pixels of 4096 × 4096.
    """
    return like(image, importance_ranks(attribution, seed).float()[:, None].expand_as(image))


def _path(
    explanandum: Explanandum,
    start: Tensor,
    end: Tensor,
    ranks: Tensor,
    target: Tensor,
    options: CurveOptions,
    room: Tensor,
) -> Tensor:
    """Probabilities [N,S+1] of the targets while images `start` turn into `end`, the pixels of the lowest ranks first.

    Args:
        explanandum: the classifier.
        start: [N,3,H,W].
        end: likewise.
        ranks: of `_channel_ranks`.
        target: long [N].
        options: for the steps and the score.
        room: of `_room`, for N images at least; each pass takes as many as fit.
    """
    changed = ranks.new_tensor(changed_pixels(options.step, ranks[0, 0].numel()))
    shape = (len(start), -1)
    columns = []
    for points in changed.split(len(room) // len(start)):
        inputs = room[: len(start) * len(points)]
        mixed = inputs.unflatten(0, shape)
        # What both steps read and write has one dtype and one layout, else they would take four times as long.
        torch.lt(ranks[:, None], points[:, None, None, None], out=mixed)  # 1 where the pixel has changed, else 0
        torch.lerp(start[:, None], end[:, None], mixed, out=mixed)
        columns.append(_scores(explanandum, explanandum(inputs).unflatten(0, shape), target, options))
    return torch.cat(columns, dim=1)


def _check(image: Tensor, attribution: Tensor) -> None:
    if attribution.shape != (len(image), *image.shape[-2:]):
        came, wanted = (" × ".join(map(str, shape)) for shape in (attribution.shape, image[:, 0].shape))
        raise ValueError(f"The maps are {came}, but the images want {wanted}: one map an image, enlarged to its size.")
    broken = int((~attribution.isfinite().flatten(1).all(dim=1)).sum())
    if broken:
        raise ValueError(
            f"{broken} of {len(attribution)} maps hold NaN or infinity, which give no order of pixels; leave them out."
        )


def _scores(explanandum: Explanandum, logits: Tensor, target: Tensor, options: CurveOptions) -> Tensor:
    """Logits [N,n,C] -> probabilities [N,n] of the images' targets [N]."""
    own = options.score == "own"
    probabilities = class_scores(explanandum, logits) if own else logits.float().softmax(dim=-1)
    return probabilities.gather(2, target[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]


def auc(curve: Tensor, fractions: Tensor | None = None) -> Tensor:
    """Area under each curve by the trapezoidal rule over an x axis from 0 to 1: the curve's mean height.

    Args:
        curve: [N,S+1].
        fractions: its x axis [S+1], from `curve_fractions`; None for steps of equal width.

    Returns:
        [N], in the range of the curve; the papers print it in percent.

    Examples:
        >>> auc(torch.tensor([[0.0, 1.0, 1.0]]))
        tensor([0.7500])
    """
    if fractions is None:
        fractions = torch.linspace(0, 1, curve.shape[1], dtype=torch.float64)
    return torch.trapezoid(curve.double(), fractions.to(curve.device, torch.float64), dim=1).to(curve.dtype)


def over_all(insertion: Tensor, deletion: Tensor) -> Tensor:
    """Over-all score of two AUCs, in [-1, 1], larger is better (Group-CAM, Sec. 4.3)."""
    return insertion - deletion


class _CurveAUC(Metric):
    """What both metrics share: sums over images of the AUC and of the curve."""

    full_state_update = False
    area: Tensor
    heights: Tensor
    images: Tensor

    def __init__(self, explanandum: Explanandum, options: CurveOptions | None = None, **changes: Any) -> None:
        super().__init__()
        self._classifier = (explanandum,)  # in a tuple: no part of the metric's own state
        self.options = replace(options or CurveOptions(), **changes)
        size = explanandum.card.image_size
        self.fractions = curve_fractions(self.options.step, size, size)
        for name, shape in (("area", ()), ("heights", self.fractions.shape), ("images", ())):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def _curve(self, image: Tensor, attribution: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def update(self, image: Tensor, attribution: Tensor, target: Tensor) -> None:
        """Add images [N,3,H,W], normalised, with one map [N,H,W] and one class index, long [N], each."""
        fractions = curve_fractions(self.options.step, *image.shape[-2:])
        if len(fractions) != len(self.fractions):  # steps in pixels only
            raise ValueError(
                f"Images of {image.shape[-2]} × {image.shape[-1]} pixels take {len(fractions) - 1} steps, those of the "
                f"explanandum's card {len(self.fractions) - 1}: give step as a share of the pixels."
            )
        curve = self._curve(image, attribution, target)
        self.area += auc(curve, fractions).double().sum()
        self.heights += curve.double().sum(dim=0)
        self.images += len(curve)

    def compute(self) -> Tensor:
        """Mean AUC over images, in [0, 1]."""
        return (self.area / self.images).float()

    def mean_curve(self) -> Tensor:
        """Mean curve over the images of all processes, [S+1] over `fractions`; to be called by all of them."""
        with self.sync_context(self.dist_sync_fn, self.process_group, should_sync=self.sync_on_compute):
            return (self.heights / self.images).float()


class InsertionAUC(_CurveAUC):
    """Mean area under the insertion curve, in [0, 1], larger is better (RISE); additive over devices.

    Args:
        explanandum: the classifier.
        options: how the curves are drawn; None for the defaults.
        changes: single options in place of those, e.g. `step=224`.

    Attributes:
        fractions: x axis of `mean_curve`, float64 [S+1], for the image size of the explanandum's card.
    """

    def _curve(self, image: Tensor, attribution: Tensor, target: Tensor) -> Tensor:
        return insertion_curve(self._classifier[0], image, attribution, target, self.options)


class DeletionAUC(_CurveAUC):
    """Mean area under the deletion curve, in [0, 1], smaller is better (RISE); additive over devices.

    Args:
        explanandum: the classifier.
        options: how the curves are drawn; None for the defaults.
        changes: single options in place of those, e.g. `baseline="zero"`.

    Attributes:
        fractions: x axis of `mean_curve`, float64 [S+1], for the image size of the explanandum's card.
    """

    def _curve(self, image: Tensor, attribution: Tensor, target: Tensor) -> Tensor:
        return deletion_curve(self._classifier[0], image, attribution, target, self.options)
