"""Explaining photographs of any size: prepared as the classifier wants them, explained, and back at their own size.

B images, C classes, S×S pixels of an image as the classifier sees it, H×W of the photograph. Masks lie in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from datamodules.batch import Batch
from datamodules.images import BadImageError, load_image, upright_rgb
from datamodules.sample import Sample
from datamodules.transforms import SampleTransform
from explainer.attribution import AttributionMethod, CannotExplain
from explainer.evaluation.images import Images
from explainer.evaluation.maps import computed
from explainer.explanandum import ClassifierCard, Explanandum, OutputKind
from explainer.metrics.scaling import to_unit_range
from explainer.weights import some

TOP = 3
"""Classes that are explained if none is asked for: those with the highest probabilities."""
RECOGNISED = 0.5
"""Probability from which on a multi-label classifier says that a class is there."""


@dataclass(frozen=True)
class ScoredClass:
    """A class, and what the classifier says of it.

    Args:
        index: of the classifier's output.
        name: of the class.
        probability: in [0, 1].
        recognised: whether the classifier says that the class is there, see `recognised`.
    """

    index: int
    name: str
    probability: float
    recognised: bool


@dataclass(frozen=True, eq=False)
class PhotographMaps:
    """What a method says of a photograph.

    Args:
        photograph: RGB, upright.
        classes: those that were asked about, the most probable first.
        maps: float32 [S,S] in [0, 1] on the CPU, by the class's index.
        failures: why there is no map, by the class's index.
    """

    photograph: Image.Image
    classes: tuple[ScoredClass, ...]
    maps: dict[int, Tensor]
    failures: dict[int, str]

    def mask(self, index: int) -> Tensor:
        """The class's map at the photograph's size, float32 [H,W] in [0, 1].

        Raises:
            CannotExplain: if the method failed on the class.
        """
        if index not in self.maps:
            raise CannotExplain(self.failures.get(index, f"The class {index} was not asked about."))
        return enlarged(self.maps[index], self.photograph.size)

    @property
    def target_classes(self) -> tuple[ScoredClass, ...]:
        """The recognised ones of the classes that have a map, or, if there is none, the most probable of them."""
        mapped = tuple(one for one in self.classes if one.index in self.maps)
        return tuple(one for one in mapped if one.recognised) or mapped[:1]

    def target_mask(self) -> Tensor:
        """The pixelwise maximum of the target classes' masks (NN-Explainer, Sec. 3), float32 [H,W].

        Raises:
            CannotExplain: if the method failed on all classes.
        """
        maps = [self.maps[one.index] for one in self.target_classes]
        if not maps:
            raise CannotExplain(next(iter(self.failures.values()), "No class was asked about."))
        return enlarged(torch.stack(maps).amax(dim=0), self.photograph.size)


def open_photograph(file: Path | str) -> Image.Image:
    """An image file as RGB, upright.

    Raises:
        ValueError: if there is none, or it cannot be used; the message says why.
    """
    try:
        return load_image(file)
    except BadImageError as error:
        raise ValueError(error.complaint) from error


def read_photograph(file: Path, most_pixels: int) -> Image.Image:
    """A photograph that a stranger sent, RGB and upright; its size is looked at before it is unpacked.

    Args:
        file: of any image format that is read elsewhere.
        most_pixels: that it may have.

    Raises:
        ValueError: saying why it can't be used, and not where it lies.
    """
    try:
        return load_image(file, most_pixels=most_pixels)
    except BadImageError as error:
        raise ValueError(f"The image can't be used: {error.reason}.") from error


def prepare(photograph: Image.Image, card: ClassifierCard) -> Tensor:
    """An RGB photograph as the classifier wants it, squashed and normalised just as in training: float32 [3,S,S]."""
    transform = SampleTransform(card.image_size, card.mean, card.std)
    return transform(Sample(photograph, (), "photograph")).image


def recognised(probabilities: Tensor, output: OutputKind) -> Tensor:
    """Which classes a classifier says are there, bool [B,C] of probabilities [B,C].

    Of a multi-label classifier those with a probability of at least one half, maybe none; else the most probable one.
    """
    if output == "multi_label":
        return probabilities >= RECOGNISED
    return F.one_hot(probabilities.argmax(dim=1), probabilities.shape[1]).bool()


def classes_to_explain(probabilities: Tensor, output: OutputKind, top: int = TOP) -> Tensor:
    """The `top` most probable classes of each image, and all recognised ones, bool [B,C] of probabilities [B,C]."""
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1).indices
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter_(1, best, True) | recognised(probabilities, output)


def class_indices(wanted: Sequence[str | int], classes: Sequence[str]) -> list[int]:
    """Classes by their names, or by the numbers of the classifier's outputs (from 0) -> indices, each once.

    A number may be text, as on a command line, unless a class has it as its name.

    Raises:
        ValueError: for a class that there is not, naming the closest ones; for a name that several classes have.
    """
    return list(dict.fromkeys(_class_index(name, classes) for name in wanted))


def _class_index(wanted: str | int, classes: Sequence[str]) -> int:
    if isinstance(wanted, int) and 0 <= wanted < len(classes):
        return wanted
    name = str(wanted)
    found = [index for index, known in enumerate(classes) if known == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"Several classes are called '{name}'; choose one by its number: {some(list(map(str, found)))}."
        )
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    close = get_close_matches(name, classes, 3)
    hint = f"did you mean {' or '.join(close)}? The" if close else "the"
    raise ValueError(
        f"Unknown class '{name}'; {hint} classifier knows {len(classes)} classes: {some(list(classes))}. Give a "
        f"name, or a number from 0 to {len(classes) - 1}."
    )


def enlarged(values: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask [S,S] at the size of a photograph, given as (W, H): float32 [H,W] in [0, 1].

    Bilinear, as the photograph was squashed, so that a mask lies where it belongs; where the photograph is the smaller
    one, the filter is widened.
    """
    width, height = size
    larger = F.interpolate(values[None, None].float(), (height, width), mode="bilinear", antialias=True)
    return larger[0, 0].clamp_(0, 1)


def class_probabilities_of(images: Tensor, explanandum: Explanandum) -> Tensor:
    """What the classifier says of prepared images [B,3,S,S]: probabilities [B,C], float32."""
    with torch.no_grad():
        return explanandum.probabilities(explanandum(images))


def explain_prepared(
    photographs: Sequence[Image.Image], images: Tensor, probabilities: Tensor, wanted: Tensor, method: AttributionMethod
) -> list[PhotographMaps]:
    """Explain a batch of photographs that are prepared and scored already, so that several methods can share that.

    A method that fails on an image, or on a class of it, fails there alone; the maps say why.

    Args:
        photographs: the B photographs.
        images: the same, prepared, [B,3,S,S].
        probabilities: what the classifier says of them, [B,C].
        wanted: classes to be explained, bool [B,C].
        method: of attribution.
    """
    nameless = tuple(str(index) for index in range(len(photographs)))
    batch = Images(Batch(images, wanted.float(), nameless), method.explanandum)
    maps, failures = computed(method, batch, wanted)
    scaled = {pair: value if method.unit_range else to_unit_range(value[None])[0] for pair, value in maps.items()}
    kept = {pair: value.cpu() for pair, value in scaled.items()}
    card = method.explanandum.card
    return [
        PhotographMaps(
            photograph,
            scored(probabilities[image], wanted[image], card),
            {target: value for (index, target), value in kept.items() if index == image},
            {target: reason for (index, target), reason in failures.items() if index == image},
        )
        for image, photograph in enumerate(photographs)
    ]


def scored(probabilities: Tensor, wanted: Tensor, card: ClassifierCard) -> tuple[ScoredClass, ...]:
    """The wanted classes of an image, the most probable first, of probabilities [C] and bool [C]."""
    seen = recognised(probabilities[None], card.output)[0].tolist()
    values = probabilities.tolist()
    indices = sorted(wanted.nonzero()[:, 0].tolist(), key=lambda index: -values[index])
    return tuple(ScoredClass(index, card.classes[index], values[index], seen[index]) for index in indices)


def explain_photograph(
    photograph: Image.Image, method: AttributionMethod, classes: Sequence[str | int] = (), top: int = TOP
) -> PhotographMaps:
    """Explain one photograph of any size and mode, on the device that the method's classifier is on.

    Args:
        photograph: grey, palette, transparent and 16-bit ones are converted, EXIF's orientation is followed.
        method: of attribution; it knows its classifier.
        classes: names (or numbers) of the classes to be explained; by default the most probable and all recognised.
        top: how many of the most probable ones.

    Raises:
        ValueError: for an unknown class.
        CannotExplain: if the method fails on one of the classes.
    """
    explanandum = method.explanandum
    upright = upright_rgb(photograph)
    device = next(explanandum.parameters()).device
    images = prepare(upright, explanandum.card)[None].to(device)
    probabilities = class_probabilities_of(images, explanandum)
    if classes:
        wanted = torch.zeros_like(probabilities, dtype=torch.bool)
        wanted[:, class_indices(classes, explanandum.card.classes)] = True
    else:
        wanted = classes_to_explain(probabilities, explanandum.card.output, top)
    explanation = explain_prepared([upright], images, probabilities, wanted, method)[0]
    if explanation.failures:
        raise CannotExplain(next(iter(explanation.failures.values())))
    return explanation
