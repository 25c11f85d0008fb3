"""The Explainer as others use it: with its classes, from a run, a folder or the hub, outside Lightning too.

B images, C classes, H×W pixels.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from PIL import Image
from torch import Tensor

from explainer import network
from explainer.classifiers import require_known
from explainer.explaining import prepare, upright_rgb
from explainer.explanandum import ClassifierCard, Explanandum, read_card
from explainer.files import write_whole
from explainer.library.explanation import Explanation
from explainer.library.model_card import model_card
from explainer.library.one_image import explain_at_once
from explainer.library.origin import Origin
from explainer.own_classifier import is_own, use_own_code
from explainer.run_folder import RunFolder, load_explainer, save_explainer
from explainer.weights import load_matching, read_state_dict

CONFIG, WEIGHTS, CLASSIFIER = "config.json", "model.safetensors", "explanandum.safetensors"


class Explainer(network.Explainer, PyTorchModelHubMixin):
    """The network (`explainer.network.Explainer`), which knows what it explains and can be shared.

    `save_pretrained(folder)` and `push_to_hub(name)` write or upload safetensors, `config.json` and a model card;
    `from_pretrained` reads them. Nothing is ever unpickled.

    The classifier, if it is at hand, goes along from device to device, but its weights are none of this module's: an
    optimiser or a checkpoint of the Explainer leaves it alone.

    Args:
        num_classes: C, number of class masks.
        encoder: as `explainer.network.Explainer` takes it, like the three that follow.
        encoder_weights: None, "imagenet" or a file.
        output_stride: 8 or 16.
        decoder_channels: width of the spatial pyramid.
        card: names of the classes, and how images are prepared; `explain` and sharing need it.
        explanandum: the classifier; it gives the scores of `explain`.

    Shapes: image [B,3,H,W], normalised -> logits [B,C,H,W]; the class masks are their sigmoid.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str = "resnet50",
        encoder_weights: str | None = None,
        output_stride: int = 8,
        decoder_channels: int = 256,
        card: ClassifierCard | None = None,
        explanandum: Explanandum | None = None,
    ) -> None:
        super().__init__(num_classes, encoder, encoder_weights, output_stride, decoder_channels)
        self.origin = Origin()
        self._card: ClassifierCard | None = None
        self._explanandum: tuple[Explanandum, ...] = ()  # in a tuple, where nn.Module does not see it
        if explanandum is not None or card is not None:
            self.attach(card, explanandum)

    def attach(self, card: ClassifierCard | None, explanandum: Explanandum | None) -> Self:
        """Say what is explained.

        Args:
            card: of the classifier; the classifier's own, if not given.
            explanandum: the classifier.

        Raises:
            ValueError: if it has another number of classes.
        """
        chosen = explanandum.card if card is None and explanandum is not None else card
        if chosen is not None and len(chosen.classes) != self.num_classes:
            raise ValueError(
                f"The Explainer has {self.num_classes} class masks, the classifier {len(chosen.classes)} classes."
            )
        self._card = chosen
        self._explanandum = () if explanandum is None else (explanandum.to(next(self.parameters()).device),)
        return self

    @property
    def card(self) -> ClassifierCard:
        """Classes, image size and normalisation.

        Raises:
            ValueError: if nobody said what is explained.
        """
        if self._card is None:
            raise ValueError(
                "This Explainer does not know its classes and how its images are prepared; make it with "
                "Explainer.from_run or Explainer.from_pretrained, or pass it card=ClassifierCard(...)."
            )
        return self._card

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return self.card.classes

    @property
    def explanandum(self) -> Explanandum | None:
        """The classifier, if it is at hand."""
        return self._explanandum[0] if self._explanandum else None

    def prepare(self, image: Image.Image) -> Tensor:
        """Any PIL image as this module takes it: squashed and normalised, [1,3,image_size,image_size]."""
        return prepare(upright_rgb(image), self.card)[None].to(next(self.parameters()))

    def explain(self, image: Image.Image, classes: Sequence[str | int] | None = None, *, top: int = 3) -> Explanation:
        """Where the classifier looks, at the image's own size.

        Args:
            image: any PIL image.
            classes: names or indices; None takes the `top` most probable ones or, where the classifier is not at hand,
                those with the largest masks.
            top: how many classes, at most.

        Raises:
            ValueError: for an unknown class, or if nobody said what is explained.
        """
        return explain_at_once(image, self, self.card, self.explanandum, classes, top)

    @classmethod
    def from_run(cls, run: Path | str, *, explanandum: bool = True, code: str | None = None) -> Self:
        """The trained Explainer in the folder of a run, in eval mode.

        Args:
            run: the folder that train.py made.
            explanandum: load the classifier too, for the scores.
            code: where the function is that makes the classifier, if your own code does: "path/to/file.py:make_model".
                It runs; a run folder alone can't have it run.

        Raises:
            FileNotFoundError: if this is no run, or one that has not finished an epoch of the Explainer.
            ValueError: if the classifier needs code that is not named, or other code than this.
        """
        if code is not None:
            use_own_code(code)
        folder = RunFolder(Path(run))
        folder.read_config()  # its error says what a run folder is
        folder.require_explainer()
        made = load_explainer(folder.explainer, cls)
        made.origin = Origin.of_run(folder)
        return made.attach(read_card(folder.explanandum), folder.load_explanandum() if explanandum else None)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Path | str, **options: Any) -> Self:
        """What `save_pretrained` or `push_to_hub` wrote, in eval mode.

        Args:
            pretrained_model_name_or_path: a folder, or an id of the hub (`user/name`), which is downloaded.
            **options: of `huggingface_hub.PyTorchModelHubMixin.from_pretrained` (revision, token, cache_dir …); and
                `explanandum=False` leaves the classifier where it is.

        Raises:
            FileNotFoundError: if a file is missing in the folder.
            OSError: if the hub has no such model, or is out of reach.
            ValueError: if a file is not what it should be.
        """
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            return super().from_pretrained(name, **options)
        try:
            return super().from_pretrained(name, **options)
        except Exception as error:  # hub clients agree on no type of error when the net is out of reach
            raise OSError(
                f"'{name}' is no folder, and cannot be had from the hub either ({_first_line(error)}). Check the name, "
                "or download it elsewhere and pass its folder."
            ) from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        config: dict[str, Any] | None = None,
        explanandum: bool = True,
        **download: Any,
    ) -> Self:
        """See `from_pretrained`; called by the mixin, which has read `config.json`."""
        if config is None:
            raise FileNotFoundError(f"{model_id} has no {CONFIG}, which Explainer.save_pretrained writes.")
        try:
            made, card = cls.from_recipe(config["network"]), ClassifierCard.from_json(config["classifier"])
            made.origin = Origin(**config["training"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"The {CONFIG} of {model_id} is not what save_pretrained writes: {error}.") from error
        weights = _file(model_id, WEIGHTS, download)
        load_matching(made, read_state_dict(weights), may_miss=(), source=weights)
        wanted = explanandum and config.get("includes_classifier", False)
        return made.attach(card, Explanandum.load(_file(model_id, CLASSIFIER, download)) if wanted else None).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights and `config.json`; the mixin calls it, and adds the model card."""
        config = {
            "network": self.recipe,
            "classifier": asdict(self.card),
            "includes_classifier": self._shares_classifier,
            "training": asdict(self.origin),
        }
        save_explainer(self, save_directory / WEIGHTS, classes=json.dumps(self.classes))
        if self.explanandum is not None and self._shares_classifier:
            self.explanandum.save(save_directory / CLASSIFIER, metrics=json.dumps(self.origin.classifier_metrics))
        write_whole(save_directory / CONFIG, json.dumps(config, indent=2, default=str) + "\n")

    @property
    def _shares_classifier(self) -> bool:
        """Only one that its name can rebuild: another's code would have to come along, and to be executed."""
        if self.explanandum is None or is_own(self.card.architecture):
            return False
        try:
            require_known(self.card.architecture)
        except ValueError:
            return False
        return True

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Its classes, how it was trained, its metrics, how it is used."""
        return ModelCard(model_card(self.card, self.origin, with_classifier=self._shares_classifier))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Where this module goes (device, precision), the classifier goes too."""
        if self.explanandum is not None:
            self.explanandum._apply(fn)
        return super()._apply(fn, recurse)


def _file(model_id: str, name: str, download: dict[str, Any]) -> Path:
    """A file of the folder, or of the hub."""
    if Path(model_id).is_dir():
        return Path(model_id) / name
    return Path(hf_hub_download(repo_id=model_id, filename=name, **download))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
