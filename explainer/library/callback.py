"""Attribution maps of a classifier in training, epoch by epoch in TensorBoard, for any LightningModule.

B images, C classes, H×W pixels.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from explainer.attribution.checks import whole
from explainer.attribution.spec import parse_method
from explainer.explaining import open_photograph, prepare
from explainer.explanandum import ClassifierCard, Explanandum
from explainer.library.untouched import untouched
from explainer.metrics.scaling import to_unit_range
from explainer.report.gallery import Column, Floats, Picture, Row, caption_of, draw_gallery, label_of

SHARDING = ("FSDP", "DeepSpeed", "ModelParallel")
"""In the names of strategies whose processes each hold a part of the weights: none can run the classifier alone."""

Images = int | Tensor | Sequence[str | Path]


class AttributionCallback(Callback):
    """Every n epochs, shows where the classifier looks: a row for each method, a column for each image.

    Training goes on as if nobody had looked (`explainer.library.untouched`), bit by bit. Only the first process of
    several works here. Whatever fails is told once, as a warning, and training goes on.

    The module's `forward` takes images and gives logits [B,C]; otherwise `classifier` finds what does.

    Args:
        methods: names of attribution methods, with options as in "rise:masks=500".
        images: how many of the first images of the validation loader, seen as they pass; or images [B,3,H,W],
            normalised as in training; or paths of files, which need a card.
        card: names of classes, size and normalisation of the images, and whether an image may have several classes;
            without it classes are numbered, an image has one, and pictures are shown as bright as they can be.
        targets: the class that is asked for in each image; None asks for the most probable.
        classifier: gives the classifier in the module, as in `lambda module: module.model`; None takes the module.
        every_n_epochs: n.
        tag: of the picture in TensorBoard.

    Raises:
        ValueError: for an unknown method, one that must be trained, paths without a card, or unreadable images.
    """

    def __init__(
        self,
        methods: Sequence[str] = ("grad_cam",),
        images: Images = 4,
        *,
        card: ClassifierCard | None = None,
        targets: Sequence[int] | None = None,
        classifier: Callable[[Any], nn.Module] | None = None,
        every_n_epochs: int = 1,
        tag: str = "attribution",
    ) -> None:
        self.methods = [_checked(text) for text in methods]
        self.card = card
        self.targets = None if targets is None else torch.as_tensor(targets)
        self.classifier = classifier
        whole("every_n_epochs", every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self.tag = tag
        if isinstance(images, int):
            whole("images", images)
        self._wanted = images if isinstance(images, int) else 0
        self._images = [] if isinstance(images, int) else _opened(images, card)
        self._told: set[str] = set()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the first images that pass: to ask the loader for them would draw random numbers."""
        missing = self._wanted - len(self._images)
        if missing <= 0 or dataloader_idx or not trainer.is_global_zero:
            return
        found = next(_images_in(batch), None)
        if found is None:
            self._tell("images", "a validation batch holds no images, float [B,3,H,W]; pass images=TENSOR.")
        elif not self._images or self._images[0].shape == found.shape[1:]:
            with torch.inference_mode(False):  # in which Lightning validates, and of whose tensors no gradient is had
                self._images += found[:missing].detach().cpu().clone()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and log the maps. Not after validation, where Lightning forbids gradients."""
        if (trainer.current_epoch + 1) % self.every_n_epochs or not len(self._images) or not trainer.is_global_zero:
            return
        if any(name in type(trainer.strategy).__name__ for name in SHARDING):
            self._tell("strategy", f"{type(trainer.strategy).__name__} spreads the weights over processes.")
            return
        try:
            model = self.classifier(pl_module) if self.classifier else pl_module
            with untouched(pl_module), untouched(model):  # which may be no part of the module
                picture = self._draw(model)
            self._log(trainer, picture)
        except Exception as error:  # anyone's module can fail in any way, and training matters more than pictures
            self._tell("maps", f"{type(error).__name__}: {error}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if there was never an image."""
        if not len(self._images) and trainer.is_global_zero:
            self._tell("images", "there was no validation to take images from; pass images=TENSOR.")

    def _draw(self, model: nn.Module) -> Picture:
        image = torch.stack(self._images).to(next(model.parameters()))
        with torch.no_grad():
            logits = _checked_logits(model(image), image)
        card = self.card or _plain_card(logits, image)
        explanandum = Explanandum(model, card)
        probabilities = explanandum.probabilities(logits)
        target = probabilities.argmax(dim=1) if self.targets is None else self.targets.to(image.device)
        rows = [Row(*label_of(text), self._maps(text, explanandum, image, target)) for text in self.methods]
        asked = probabilities.gather(1, target[:, None])[:, 0].tolist()
        captions = [caption_of(card.classes[c], p) for c, p in zip(target.tolist(), asked, strict=True)]
        photographs = _photographs(image.float().cpu(), self.card)
        columns = [Column(photograph, text) for photograph, text in zip(photographs, captions, strict=True)]
        return draw_gallery(columns, rows)

    def _maps(self, text: str, explanandum: Explanandum, image: Tensor, target: Tensor) -> Sequence[Floats | None]:
        """In [0, 1]; None for each image if the method fails."""
        try:
            method = parse_method(text).build(explanandum)
            maps = method(image, target).detach()
        except Exception as error:  # so that the other methods are shown
            self._tell(text, f"{text}: {type(error).__name__}: {error}")
            return [None] * len(image)
        return list((maps if method.unit_range else to_unit_range(maps)).float().cpu().numpy())

    def _log(self, trainer: Trainer, picture: Picture) -> None:
        # Told by what it can do: the loggers of the package `lightning` are other classes than pytorch_lightning's.
        experiments: list[Any] = [getattr(logger, "experiment", None) for logger in trainer.loggers]
        writers = [experiment for experiment in experiments if hasattr(experiment, "add_image")]
        if not writers:
            self._tell("logger", "no logger takes pictures; give the Trainer a TensorBoardLogger.")
        for writer in writers:
            writer.add_image(self.tag, picture, trainer.current_epoch, dataformats="HWC")

    def _tell(self, about: str, what: str) -> None:
        """Warn, once about each thing."""
        if about not in self._told:
            self._told.add(about)
            warnings.warn(f"AttributionCallback shows nothing, or not everything: {what}", stacklevel=2)


def _checked(text: str) -> str:
    if parse_method(text).is_trained:
        raise ValueError(f"The method '{text}' is trained against a finished classifier; choose another one here.")
    return text


def _opened(images: Tensor | Sequence[str | Path], card: ClassifierCard | None) -> list[Tensor]:
    """Images [3,H,W], on the CPU."""
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != 3 or not len(images):
            raise ValueError(f"images has shape {list(images.shape)}; give [B,3,H,W], normalised as in training.")
        return list(images.detach().cpu().clone())
    if card is None:
        raise ValueError("Paths of images need a card=ClassifierCard(...), which says how they are prepared.")
    return [prepare(open_photograph(path), card) for path in images]


def _images_in(batch: Any) -> Iterator[Tensor]:
    """Whatever in a batch of any kind could be images."""
    if isinstance(batch, Tensor):
        if batch.ndim == 4 and batch.shape[1] == 3 and batch.is_floating_point():
            yield batch
    elif isinstance(batch, dict):
        yield from (found for part in batch.values() for found in _images_in(part))
    elif isinstance(batch, list | tuple):
        yield from (found for part in batch for found in _images_in(part))


def _checked_logits(logits: Any, image: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(image):
        came = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"The module gives {came} for {len(image)} images, not logits [{len(image)},C]; "
            "pass classifier=, which finds the classifier in it."
        )
    return logits


def _plain_card(logits: Tensor, image: Tensor) -> ClassifierCard:
    classes = tuple(f"class {index}" for index in range(logits.shape[1]))
    return ClassifierCard("in training", classes, image.shape[-1], (0.0,) * 3, (1.0,) * 3, "single_label")


def _photographs(image: Tensor, card: ClassifierCard | None) -> Sequence[Floats]:
    """[H,W,3] each, in [0, 1]; without a card from each image's least to its greatest value."""
    if card is None:
        shown = to_unit_range(image.flatten(1)[:, None])[:, 0].view(image.shape)
    else:
        mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
        shown = (image * std + mean).clamp(0, 1)
    return list(shown.permute(0, 2, 3, 1).numpy())
