"""What perturbation methods share: blurred and noisy images, masked passes in chunks, sums of masks by their scores.

B images, N masks, n masks of one chunk, C classes, M maps, H×W pixels; masks lie in [0, 1]: 1 keeps a pixel, 0 replaces
it by the baseline image.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from explainer.attribution.checks import number, whole
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.masking import at_least_float32

Classifier = Callable[[Tensor], Tensor]
"""Images [n,3,H,W] -> logits [n,C]; an explanandum, or any other callable."""

MakeMasks = Callable[[int, int], Tensor]
"""(start, stop) -> the masks start … stop-1: [n,H,W], the same for all images, or [B,n,H,W]."""

ChunkSize = int | Literal["auto"]

CPU_CHUNK = 32
"""Larger batches are no faster on a CPU."""

GPU_CHUNK_LIMIT = 256
"""Larger batches are hardly faster on a GPU."""

PASS_MEMORY = 200
"""Memory of a forward pass, in multiples of its float32 images; VGG-16, which is greedy, takes some 90."""


def gaussian_blur(image: Tensor, kernel_size: int, sigma: float) -> Tensor:
    """Images [B,C,H,W] convolved with a Gaussian of kernel_size × kernel_size taps (odd) that sum to one.

    Beyond its border the image goes on as its mirror image, the border pixel not doubled ("reflect"); for a kernel that
    is larger than the image it is mirrored again and again. Blurring commutes with normalising an image.
    """
    checked_blur(kernel_size, sigma)
    with torch.autocast(image.device.type, enabled=False):
        pixels = at_least_float32(image)
        rows, columns = (_blur_matrix(size, kernel_size, sigma).to(pixels) for size in image.shape[-2:])
        return like(image, (rows @ pixels @ columns.T).to(image.dtype))


def checked_blur(kernel_size: int, sigma: float) -> None:
    """Refuse a blur that can't be made.

    Raises:
        ValueError: if the number of taps is not odd, or sigma not positive.
    """
    whole("kernel_size", kernel_size)
    number("sigma", sigma)
    if kernel_size % 2 != 1:
        raise ValueError(f"A blur's kernel_size is {kernel_size}; give an odd number, so that the kernel has a centre.")


def _blur_matrix(size: int, kernel_size: int, sigma: float) -> Tensor:
    """A blur of `size` pixels with mirrored borders, as a matrix [size,size]."""
    offset = torch.arange(kernel_size) - kernel_size // 2
    taps = torch.exp(-((offset.double() / sigma) ** 2) / 2)
    period = max(1, 2 * (size - 1))  # of a line that is mirrored without end
    source = (torch.arange(size)[:, None] + offset) % period
    source = torch.minimum(source, period - source).clamp(max=size - 1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, source, (taps / taps.sum()).expand(size, -1))


def card_statistics(card: ClassifierCard, image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [3,1,1] with which images like this one were normalised."""
    mean, std = (torch.tensor(values, device=image.device)[:, None, None] for values in (card.mean, card.std))
    return mean, std


def plain_images(image: Tensor, card: ClassifierCard, brightness: float) -> Tensor:
    """Normalised images [B,3,H,W] like the given ones, but of one grey: 0 is black, 1 white."""
    mean, std = card_statistics(card, image)
    return ((brightness - mean) / std).to(image.dtype).expand_as(image)


def noise_draws(image: Tensor, iterations: int, steps: int, sigma: float, seed: int) -> Iterator[Tensor]:
    """For each iteration normal noise [S,3,H,W] in the normalised image's units, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)  # the CPU's: the same noise on every device
    for _ in range(iterations):
        yield sigma * torch.randn(steps, *image.shape[1:], generator=generator).to(image.device)


def min_max(maps: Tensor) -> Tensor:
    """Each map [B,h,w] scaled to [0, 1] (SIGCAM, Eq. 4); a flat map says nothing of where, and becomes zero."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    # The floor keeps a difference out of the subnormal numbers, where a quotient may be infinite or above one.
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny), 0.0)


def class_scores(explanandum: Explanandum, logits: Tensor) -> Tensor:
    """Logits [...,C] -> float32 probabilities [...,C]: sigmoid for a multi-label classifier, else softmax."""
    return explanandum.probabilities(logits.reshape(-1, logits.shape[-1])).reshape(logits.shape)


def checked_chunk_size(chunk_size: ChunkSize) -> ChunkSize:
    """The size itself, if it is one.

    Raises:
        ValueError: if it is neither a whole number, at least 1, nor "auto".
    """
    if chunk_size != "auto":
        whole("chunk_size", chunk_size)
    return chunk_size


def resolved_chunk_size(chunk_size: ChunkSize, image: Tensor) -> int:
    """Masked images of one forward pass; "auto" takes what fits into half of the free memory of the image's device.

    It is a power of two, so that it, and with it the rounding of results, changes little with what else is in memory.
    """
    if checked_chunk_size(chunk_size) != "auto":
        return int(chunk_size)
    if image.device.type != "cuda":
        return CPU_CHUNK
    free, _ = torch.cuda.mem_get_info(image.device)
    free += torch.cuda.memory_reserved(image.device) - torch.cuda.memory_allocated(image.device)
    fits = free // 2 // (PASS_MEMORY * image[0].numel() * 4)
    return int(2 ** (max(1, min(GPU_CHUNK_LIMIT, fits)).bit_length() - 1))


def gradient_chunk(chunk_size: ChunkSize, image: Tensor) -> int:
    """Images of one forward and backward pass, which holds on to every layer's output."""
    size = resolved_chunk_size(chunk_size, image)
    return max(1, size // 4) if chunk_size == "auto" else size


@torch.no_grad()
def masked_logits(
    classifier: Classifier,
    image: Tensor,
    masks: Tensor | MakeMasks,
    count: int | None = None,
    baseline: Tensor | float = 0.0,
    chunk_size: ChunkSize = "auto",
) -> Iterator[tuple[Tensor, Tensor]]:
    """The classifier's answers to B × N masked images, of which never more than `chunk_size` are in memory (or B).

    Args:
        classifier: images -> logits.
        image: [B,3,H,W], normalised.
        masks: [N,H,W], the same for all images, or [B,N,H,W]; or a function that makes them chunk by chunk.
        count: N, if `masks` is a function.
        baseline: what replaces masked pixels: [B,3,H,W] (or what broadcasts to it), normalised, or one value.
        chunk_size: masked images of one forward pass; the answers don't depend on it.

    Yields:
        For each chunk its masks, [n,H,W] or [B,n,H,W], and the logits [B,n,C] of all classes.
    """
    if isinstance(masks, Tensor):
        given, count = masks, masks.shape[-3]

        def masks(start: int, stop: int) -> Tensor:
            return given[..., start:stop, :, :]

    if count is None:
        raise ValueError("The number of masks, `count`, must be given with a function that makes them.")
    limit = resolved_chunk_size(chunk_size, image)
    step = max(1, limit // len(image))
    replacement = torch.as_tensor(baseline, dtype=image.dtype, device=image.device)
    for start in range(0, count, step):
        chunk = masks(start, min(start + step, count))
        inputs = masked_images(image, chunk, replacement)
        logits = torch.cat([classifier(part) for part in inputs.split(limit)])
        yield chunk, logits.reshape(len(image), -1, logits.shape[-1])


def masked_images(image: Tensor, masks: Tensor, baseline: Tensor) -> Tensor:
    """Images [B,3,H,W] under masks [n,H,W] or [B,n,H,W], in their memory format: [B·n,3,H,W], image by image."""
    own = masks if masks.ndim == 4 else masks[None]
    weight = own[:, :, None].to(image.dtype)
    hidden = baseline if baseline.ndim == 0 else baseline.expand_as(image)[:, None]
    inputs = torch.lerp(hidden, image[:, None], weight).flatten(0, 1)  # exact for masks of 0 and 1
    return like(image, inputs)


def like(image: Tensor, other: Tensor) -> Tensor:
    """Other images in the memory format of the first, channels-last or not."""
    if image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous():
        return other.contiguous(memory_format=torch.channels_last)
    return other


def weighted_sum(weights: Tensor, masks: Tensor) -> Tensor:
    """Sum masks [n,...] by weights [M,n]: M sums [M,...], in float32 also under autocast."""
    with torch.autocast(weights.device.type, enabled=False):
        return (weights.float() @ masks.float().flatten(1)).unflatten(1, masks.shape[1:])
