"""Explain images with a trained Explainer or any other method: masks at each image's own size.

`python explain.py IMAGE_OR_FOLDER ... --run RUN`, or `--explanandum NAME --method pami` where nothing is trained;
`python explain.py --serve --run RUN` opens a page for the browser.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.image_files import ImageFile, find_images
from datamodules.images import BadImageError, load_image
from explainer.attribution import AttributionMethod
from explainer.entry import run_command
from explainer.explaining import (
    class_indices,
    class_probabilities_of,
    classes_to_explain,
    explain_prepared,
    prepare,
)
from explainer.explanandum import ClassifierCard
from explainer.explanation_files import ExplanationFiles
from explainer.machine import MachineOptions, uses_gpu
from explainer.progress import counted
from explainer.run_folder import require_writable
from explainer.serve.options import ServeOptions, require_gradio
from programs.explain_options import ExplainRequest, parse_explain
from programs.explain_subject import Explaining, open_explaining

PIXELS_AT_ONCE = 50_000_000
"""A batch is explained when its photographs have so many pixels together: large ones must not fill the memory."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image as it was read: itself, and as the classifier wants it, float32 [3,S,S]."""

    file: ImageFile
    image: Image.Image
    prepared: Tensor


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    file: ImageFile
    reason: str


class Photographs(Dataset[Photograph | Unreadable]):
    """Image files, read and prepared in the loader's processes.

    Args:
        files: to be read.
        card: how the classifier wants its images.
    """

    def __init__(self, files: Sequence[ImageFile], card: ClassifierCard) -> None:
        self.files = files
        self.card = card

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> Photograph | Unreadable:
        """The image at this position, or why there is none."""
        file = self.files[index]
        try:
            image = load_image(file.path)
            return Photograph(file, image, prepare(image, self.card))
        except (BadImageError, MemoryError) as error:
            reason = error.complaint if isinstance(error, BadImageError) else "it does not fit into the memory"
            return Unreadable(file, reason)


def main(arguments: list[str] | None = None) -> Path | None:
    """Explain all images, or serve the page; returns the folder of the results, if there is one.

    Raises:
        SystemExit: with status 1 if some images or classes could not be explained; the others are.
    """
    request = parse_explain(sys.argv[1:] if arguments is None else arguments)
    if request.page is not None:
        serve_page(request, request.page)
        return None
    return explain_files(request)


def explain_files(request: ExplainRequest) -> Path:
    """Explain all images; returns the folder of the results.

    Raises:
        SystemExit: with status 1 if some images or classes could not be explained; the others are.
    """
    options = request.options
    files = find_images(request.places, apart_from=options.output)
    refuse_overwriting(files, options.output)
    subject = open_explaining(request)
    subject.to(device_for(options.accelerator))
    methods = subject.methods(request.methods, options.workers)
    chosen = class_indices(request.classes, subject.explanandum.card.classes)
    require_writable(options.output)
    results = ExplanationFiles(options.output, subject.explanandum.card.classes, request.kinds, facts(request, subject))
    photographs = DataLoader(Photographs(files, subject.explanandum.card), None, num_workers=options.workers)
    try:
        for batch in batches(counted(photographs, len(files), "explaining"), options.batch_size):
            explain_batch(batch, subject, methods, chosen, options.top, results)
    finally:
        results.finish()  # also after Ctrl-C: what is explained is not lost
    return report(results, len(files))


def serve_page(request: ExplainRequest, page: ServeOptions) -> None:
    """Let whoever opens the page in a browser explain images of theirs, until Ctrl-C.

    Raises:
        ImportError: without Gradio.
        OSError: if the address is taken.
    """
    require_gradio()
    from explainer.serve.page import Choice
    from explainer.serve.server import serve
    from explainer.serve.studio import Studio

    subject = open_explaining(request)
    subject.to(device_for(request.options.accelerator))
    card = subject.explanandum.card
    workers = request.options.workers
    methods = subject.methods(request.methods, workers) if request.methods else subject.cheap_methods(workers)
    ticked = request.methods or list(methods)[:1]
    choice = Choice(ticked, class_indices(request.classes, card.classes), request.options.top, request.kinds)
    studio = Studio(subject.explanandum, methods, facts(request, subject), page.most_pixels)
    source = request.options.run or request.options.explainer
    title = f"`{card.architecture}`, {len(card.classes)} classes" + (
        f", explained by `{source.name}`" if source else ""
    )
    serve(studio, choice, page, title)


def refuse_overwriting(files: Sequence[ImageFile], output: Path) -> None:
    """Each image gets a folder of its own name: where the image itself lies, there can be none.

    Raises:
        ValueError: naming the first such image.
    """
    for file in files:
        if (output / file.name).is_file():
            place = output / file.name
            raise ValueError(f"The results of {file.path} would take the place of {place}; name another --output.")


def device_for(accelerator: str) -> torch.device:
    """A GPU where there is one, unless told otherwise; its numbers are those of a CPU."""
    torch.backends.cudnn.allow_tf32 = False  # PyTorch's default rounds convolutions to 10 bits on recent GPUs
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("--accelerator gpu: no GPU can be used here; leave it out, or pass cpu.")
    return torch.device("cuda" if uses_gpu(MachineOptions(accelerator=accelerator)) else "cpu")


def facts(request: ExplainRequest, subject: Explaining) -> dict[str, object]:
    """What the summary says of all images."""
    card, options = subject.explanandum.card, request.options
    made_by = {"run": options.run, "explainer": options.explainer}
    return {
        **{name: str(value) for name, value in made_by.items() if value is not None},
        "explanandum": card.architecture,
        "fingerprint": subject.explanandum.fingerprint,
        "output": card.output,
        "image_size": card.image_size,
        "classes": list(card.classes),
    }


def batches(photographs: Iterable[Photograph | Unreadable], size: int) -> Iterator[list[Photograph | Unreadable]]:
    """Groups of at most `size` images, and not many more pixels than PIXELS_AT_ONCE."""
    batch: list[Photograph | Unreadable] = []
    pixels = 0
    for one in photographs:
        batch.append(one)
        pixels += one.image.width * one.image.height if isinstance(one, Photograph) else 0
        if len(batch) == size or pixels >= PIXELS_AT_ONCE:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def explain_batch(
    batch: Sequence[Photograph | Unreadable],
    subject: Explaining,
    methods: dict[str, AttributionMethod],
    chosen: Sequence[int],
    top: int,
    results: ExplanationFiles,
) -> None:
    """Ask all methods for the classes of some images, and write down what they say."""
    for one in batch:
        if isinstance(one, Unreadable):
            results.fail(one.file.path, one.reason)
    readable = [one for one in batch if isinstance(one, Photograph)]
    if not readable:
        return
    explanandum = subject.explanandum
    images = torch.stack([one.prepared for one in readable]).to(next(explanandum.parameters()).device)
    probabilities = class_probabilities_of(images, explanandum)
    wanted = classes_to_explain(probabilities, explanandum.card.output, top)
    if chosen:
        wanted[:] = False
        wanted[:, list(chosen)] = True
    photographs = [one.image for one in readable]
    said = {text: explain_prepared(photographs, images, probabilities, wanted, one) for text, one in methods.items()}
    for index, one in enumerate(readable):
        results.add(one.file.name, one.file.path, {text: explanations[index] for text, explanations in said.items()})


def report(results: ExplanationFiles, total: int) -> Path:
    """Say where everything lies, and what failed.

    Raises:
        SystemExit: if something did.
    """
    print(f"Explained {len(results.images)} of {total} images: {results.folder}")
    if not results.failed:
        return results.folder
    print(f"error: {len(results.failed)} could not be explained:", file=sys.stderr)
    for failure in results.failed:
        place = " ".join(failure[key] for key in ("file", "method", "class") if key in failure)
        print(f"  {place}: {failure['reason']}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    run_command(main)
