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
from torch import Tensor
from torch.export import Dim, ExportedProgram

from explainer.explanandum import ClassifierCard
from explainer.export.model import DTYPES, MaskModel, Precision
from explainer.files import whole

Format = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
INPUT, OUTPUT = "image", "masks"
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
    """
    twin = copy.deepcopy(model).eval()
    twin.network.to(DTYPES[precision])
    example = torch.rand(EXAMPLE_BATCH, 3, card.image_size, card.image_size)
    sizes = {INPUT: {0: Dim("batch"), 2: Dim("height"), 3: Dim("width")}}
    with torch.no_grad(), quiet():
        return torch.export.export(twin, (example,), dynamic_shapes=sizes)


def write(program: ExportedProgram, format: Format, file: Path, notes: dict[str, Any]) -> None:
    """Write the file, whole or not at all.

    Args:
        program: see `exported`.
        format: of the file.
        file: where to.
        notes: on the model, for people and programs: metadata of the ONNX file, an extra file of the archive.

    Raises:
        ImportError: if the packages that write ONNX are not installed.
    """
    texts = {name: json.dumps(value) for name, value in notes.items()}
    with whole(file) as beside:
        if format == "torch":
            with beside.open("wb") as opened:  # of a path, torch wants to see the suffix
                torch.export.save(program, opened, extra_files={"notes.json": json.dumps(notes)})
        else:
            _write_onnx(program, beside, texts)


def _write_onnx(program: ExportedProgram, file: Path, notes: dict[str, str]) -> None:
    require_onnx()
    with quiet():
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
def quiet() -> Iterator[None]:
    """Without the exporters' warnings about their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
