"""The Explainer network: DeepLabV3 from an image to one mask logit per class and pixel (NN-Explainer, Sec. 4)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from explainer.classifiers import require_known
from explainer.masking import CoarseLogits, MaskLogits, enlarge
from explainer.weights import load_matching, read_state_dict

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""Of the spatial pyramid, by output stride (DeepLabV3, Chen et al. 2017, Sec. 4.2)."""

FEW_CLASSES = 100
"""Up to so many (VOC's 20, COCO's 80) all masks are enlarged together, which is fast and fits into memory."""


class Explainer(nn.Module):
    """DeepLabV3 whose output is as large as its input.

    Args:
        num_classes: C, number of class masks.
        encoder: encoder name as segmentation-models-pytorch lists them ("resnet50", "tu-<timm name>").
        encoder_weights: None (from scratch, as the paper says), "imagenet" (downloaded; what the authors' code does),
            or a file with the encoder's weights.
        output_stride: image pixels per pixel of the encoder's output, 8 or 16.
        decoder_channels: width of the spatial pyramid.

    Shapes: image [B,3,H,W] -> logits [B,C,H,W]; the class masks are their sigmoid.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str = "resnet50",
        encoder_weights: str | None = None,
        output_stride: int = 8,
        decoder_channels: int = 256,
    ) -> None:
        super().__init__()
        if output_stride not in ATROUS_RATES:
            raise ValueError(f"output_stride is {output_stride}; choose 8 or 16.")
        self.num_classes = num_classes
        self.recipe: dict[str, str | int] = {
            "num_classes": num_classes,
            "encoder": encoder,
            "output_stride": output_stride,
            "decoder_channels": decoder_channels,
        }
        self.deeplab = _deeplab(
            encoder,
            encoder_weights="imagenet" if encoder_weights == "imagenet" else None,
            classes=num_classes,
            encoder_output_stride=output_stride,
            decoder_atrous_rates=ATROUS_RATES[output_stride],
            decoder_channels=decoder_channels,
            # The network's own up-sampling can't hit sizes that the stride doesn't divide; `forward` does.
            upsampling=1,
        )
        self.deeplab.requires_divisible_input_shape = False  # its check; the layers themselves take any size
        if encoder_weights not in (None, "imagenet"):
            load_encoder(self.deeplab.encoder, Path(encoder_weights))

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, str]) -> Self:
        """The untrained network whose `recipe`, as text, was written down with its weights."""
        numbers: dict[str, Any] = {
            name: int(recipe[name]) for name in ("num_classes", "output_stride", "decoder_channels")
        }
        return cls(encoder=recipe["encoder"], **numbers)

    def forward(self, image: Tensor, *, enlarged: bool = True) -> Tensor:
        """Class mask logits of normalised images [B,3,H,W]: [B,C,H,W], or [B,C,h,w] as they were before enlargement."""
        cells = self.deeplab(image)
        return enlarge(cells, image.shape[-2:]) if enlarged else cells


def mask_logits(network: Explainer, image: Tensor) -> MaskLogits:
    """Class mask logits of normalised images [B,3,H,W], in a form that a thousand classes fit into."""
    if network.num_classes <= FEW_CLASSES:
        return network(image)
    return CoarseLogits(network(image, enlarged=False), (image.shape[-2], image.shape[-1]))


def _deeplab(encoder: str, encoder_weights: str | None, **settings: Any) -> smp.DeepLabV3:
    from_timm = encoder.startswith("tu-")
    if from_timm:
        require_known("timm:" + encoder.removeprefix("tu-"))
    elif encoder not in smp.encoders.encoders:
        known = ", ".join(sorted(smp.encoders.get_encoder_names()))
        raise ValueError(f"Unknown encoder '{encoder}'; choose 'tu-' and a timm name, or one of: {known}.")
    weights = True if from_timm and encoder_weights else encoder_weights  # timm's encoders know no name for them
    try:
        return smp.DeepLabV3(encoder, encoder_weights=weights, **settings)
    except AssertionError as error:
        raise ValueError(
            f"Encoder '{encoder}' can't keep the output stride small ({error}); choose another."
        ) from error
    except Exception as error:
        if encoder_weights is None:
            raise
        # Hub clients agree on no type of error when the net is out of reach.
        raise OSError(
            f"Cannot download the ImageNet weights of encoder '{encoder}' ({error}). "
            "Pass a file with --encoder_weights FILE, or none to train from scratch."
        ) from error


def load_encoder(encoder: nn.Module, file: Path) -> None:
    """Load a classifier's weights into the encoder; the classifier's head is left aside.

    Raises:
        ValueError: if a weight of the encoder is not in the file.
    """
    module = encoder.get_submodule("model") if hasattr(encoder, "model") else encoder  # behind timm's wrapper
    load_matching(module, read_state_dict(file), may_miss=(), source=file)
