"""The Explainer network: DeepLabV3 from an image to one mask logit per class and pixel (NN-Explainer, Sec. 4)."""

from pathlib import Path

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from torch import Tensor, nn

from explainer.weights import load_matching, read_state_dict

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""Of the spatial pyramid, by output stride (DeepLabV3, Chen et al. 2017, Sec. 4.2)."""


class Explainer(nn.Module):
    """DeepLabV3 whose output is as large as its input.

    Args:
        num_classes: C, number of class masks.
        encoder: encoder name as segmentation-models-pytorch lists them ("resnet50", "tu-<timm name>").
        encoder_weights: None (from scratch, as the paper says), "imagenet" (downloaded; what the authors' code does),
            or a file with the encoder's weights.
        output_stride: image pixels per pixel of the encoder's output, 8 or 16.

    Shapes: image [B,3,H,W] -> logits [B,C,H,W]; the class masks are their sigmoid.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str = "resnet50",
        encoder_weights: str | None = None,
        output_stride: int = 8,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        # What `load_explainer` needs, besides the weights, to rebuild this network.
        self.recipe = {"num_classes": str(num_classes), "encoder": encoder, "output_stride": str(output_stride)}
        self.deeplab = _deeplab(
            encoder, "imagenet" if encoder_weights == "imagenet" else None, num_classes, output_stride
        )
        if encoder_weights not in (None, "imagenet"):
            load_encoder(self.deeplab.encoder, Path(encoder_weights))

    def forward(self, image: Tensor) -> Tensor:
        """Class mask logits [B,C,H,W] of normalised images [B,3,H,W]."""
        return F.interpolate(self.deeplab(image), size=image.shape[-2:], mode="bilinear", align_corners=False)


def _deeplab(encoder: str, weights: str | None, classes: int, output_stride: int) -> smp.DeepLabV3:
    if encoder not in smp.encoders.encoders and not encoder.startswith("tu-"):
        known = ", ".join(sorted(smp.encoders.get_encoder_names()))
        raise ValueError(f"Unknown encoder '{encoder}'; choose 'tu-' and a timm name, or one of: {known}.")
    try:
        # upsampling=1: the network's own up-sampling can't hit sizes that the stride doesn't divide; `forward` does.
        return smp.DeepLabV3(
            encoder,
            encoder_weights=weights,
            classes=classes,
            encoder_output_stride=output_stride,
            decoder_atrous_rates=ATROUS_RATES[output_stride],
            upsampling=1,
        )
    except OSError as error:  # what hub clients raise, all of them, when the net is out of reach
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
