"""Writing the masks' model to a file, and running such a file again.

B images, C classes, H×W pixels.
"""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from timm.layers import padding
from torch import Tensor
from torch.export import Dim, ExportedProgram

from explainer.explanandum import ClassifierCard
from explainer.export.model import DTYPES, MaskModel, Precision
from explainer.files import whole

Format = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
INPUT, OUTPUT = "image", "masks"
SMALLEST = 32
"""Pixels that an image must have each way."""
OLDEST_TORCH = (2, 14)
"""With 2.11 and 2.12 the tests of other image sizes failed; 2.13 was not tried."""
EXAMPLE_BATCH = 2
"""Of the images that the export is traced with: one alone would pass for a batch that is always one."""

Run = Callable[[Tensor], Tensor]
"""RGB images [B,3,H,W] in [0, 1] -> class masks [B,C,H,W]."""


def exported(model: MaskModel, card: ClassifierCard, precision: Precision) -> ExportedProgram:
    """The model as torch.export has it, for batches of any length and images of any size.

    Args:
        model: left as it is.
        card: of the classifier; its image size is that of the example.
        precision: of the network's weights; images and masks are float32 in any case.

    Raises:
        ValueError: if torch can't export the encoder.
    """
    twin = copy.deepcopy(model).eval()
    twin.network.to(DTYPES[precision])
    side = max(card.image_size, SMALLEST)
    example = torch.rand(EXAMPLE_BATCH, 3, side, side)
    sizes = {INPUT: {0: Dim("batch"), 2: Dim("height", min=SMALLEST), 3: Dim("width", min=SMALLEST)}}
    with torch.no_grad(), exporting(), whole_number_padding():
        return torch.export.export(
            twin,
            (example,),
            dynamic_shapes=sizes,
            # Two branches of an encoder agree on the size of their maps, which torch can't prove for every image size:
            # it is looked at when the model runs, instead of being a reason to refuse the export.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def write(program: ExportedProgram, format: Format, file: Path, notes: dict[str, Any]) -> None:
    """Write the file, whole or not at all.

    Args:
        program: see `exported`.
        format: of the file.
        file: where to.
        notes: on the model, for people and programs: metadata of the ONNX file, an extra file of the archive.

    Raises:
        ImportError: if the packages that write ONNX are not installed.
        ValueError: if torch can't write this encoder in this format.
    """
    texts = {name: json.dumps(value) for name, value in notes.items()}
    with whole(file) as beside, exporting():
        if format == "torch":
            with beside.open("wb") as opened:  # of a path, torch wants to see the suffix
                torch.export.save(program, opened, extra_files={"notes.json": json.dumps(notes)})
        else:
            _write_onnx(program, beside, texts)


def _write_onnx(program: ExportedProgram, file: Path, notes: dict[str, str]) -> None:
    require_onnx()
    made = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    assert made is not None
    made.model.metadata_props.update(notes)
    made.save(file, external_data=False)


def opened(format: Format, file: Path, threads: int | None = None) -> Run:
    """The model in a file, ready to run on the CPU.

    Args:
        format: of the file.
        file: written by `write`.
        threads: of onnxruntime; its own default if not given. PyTorch's are PyTorch's business.
    """
    if format == "torch":
        with file.open("rb") as archive:
            return torch.export.load(archive).module()
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])


def require_recent_torch() -> None:
    """Refuse a PyTorch whose torch.export takes sizes to be odd, or even, as those of the example are.

    Raises:
        ImportError: with the remedy.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST_TORCH:
        raise ImportError(
            f"Exporting needs PyTorch {'.'.join(map(str, OLDEST_TORCH))} or newer, this is {torch.__version__}, whose "
            "files fail for images of other sizes: pip install --upgrade torch torchvision."
        )


def require_onnx() -> None:
    """Refuse where the packages for ONNX are missing.

    Raises:
        ImportError: with the remedy.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"The format onnx needs packages that are not installed ({error}): pip install 'explainer[export]'."
        ) from error


@contextmanager
def exporting() -> Iterator[None]:
    """Without the exporters' warnings about their own insides, and with errors for people."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (ImportError, OSError):
            raise
        except Exception as error:  # the exporters' errors share no class
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(
                f"torch {torch.__version__} can't export this Explainer ({type(error).__name__}: {reason}); "
                "try another --format, or one that was trained with another --encoder."
            ) from error


@contextmanager
def whole_number_padding() -> Iterator[None]:
    """Let timm's layers of padding "same" divide whole numbers: torch can't write a rounded fraction to an archive."""
    original = padding.get_same_padding

    def same(size: int, kernel_size: int, stride: int, dilation: int) -> int:
        return max((-(-size // stride) - 1) * stride + (kernel_size - 1) * dilation + 1 - size, 0)

    padding.get_same_padding = same  # type: ignore[assignment]
    try:
        yield
    finally:
        padding.get_same_padding = original
