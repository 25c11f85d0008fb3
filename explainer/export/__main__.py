"""Export a trained Explainer: `python -m explainer.export --run RUN --format onnx`.

The file takes RGB images [B,3,H,W], float32 in [0, 1], batches of any length and images of any size (best of the size
that the classifier was trained with), and gives class masks [B,C,H,W] in [0, 1]. It is run on photographs and compared
with PyTorch in float32; FILE.json says how far the masks are apart, what the classes are, and how it was made.
"""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from explainer.entry import run_command
from explainer.explaining import class_indices
from explainer.export.check import TOLERANCE, batches, differences, photographs
from explainer.export.formats import (
    INPUT,
    OUTPUT,
    SUFFIXES,
    Format,
    exported,
    opened,
    require_onnx,
    require_recent_torch,
    write,
)
from explainer.export.model import DTYPES, MaskModel, Precision
from explainer.files import write_whole
from explainer.library.pretrained import Explainer

PACKAGES: dict[Format, tuple[str, ...]] = {"onnx": ("torch", "onnx", "onnxscript", "onnxruntime"), "torch": ("torch",)}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m explainer.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="folder that train.py made")
    source.add_argument("--pretrained", help="folder that Explainer.save_pretrained made, or an id of the hub")
    parser.add_argument("--format", choices=list(SUFFIXES), default="onnx", help="ONNX, or torch.export's archive .pt2")
    parser.add_argument("--output", type=Path, help="file; RUN/explainer.onnx (.pt2), or here, if not given")
    parser.add_argument("--precision", choices=list(DTYPES), default="32", help="of the weights")
    parser.add_argument("--classes", nargs="+", help="names of the classes that get masks; all if not given")
    parser.add_argument("--images", nargs="+", type=Path, default=[], help="photographs to check with")
    return parser


def main(arguments: list[str] | None = None) -> Path:
    """Export, check, and say how it went; returns the file.

    Raises:
        ValueError: for what can't be exported, and if the file's masks are not PyTorch's; the file is removed then.
    """
    options = make_parser().parse_args(arguments)
    refuse_what_cannot_run(options.format, options.precision)
    pictures = photographs(options.images)
    explainer = Explainer.from_run(options.run, explanandum=False) if options.run else _pretrained(options.pretrained)
    indices = None if options.classes is None else class_indices(options.classes, explainer.card.classes)
    model = MaskModel(explainer, explainer.card, indices).eval()
    file = options.output or (options.run or Path()) / f"explainer{SUFFIXES[options.format]}"
    notes = describe(explainer, indices, options.precision)
    write(exported(model, explainer.card, options.precision), options.format, file, notes)
    found = differences(model, opened(options.format, file), batches(pictures, explainer.card.image_size))
    report = notes | {"format": options.format, "largest_difference_from_pytorch": found, **_versions(options.format)}
    refuse_other_masks(file, found, options.precision)
    write_whole(file.with_name(f"{file.name}.json"), json.dumps(report, indent=2) + "\n")
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB, masks of {len(notes['classes'])} classes")
    for shape, difference in found.items():
        print(f"largest difference from PyTorch in float32, images {shape}: {difference:.2g}")
    return file


def _pretrained(name: str) -> Explainer:
    return Explainer.from_pretrained(name, explanandum=False)


def refuse_what_cannot_run(format: Format, precision: Precision) -> None:
    """Before anything is loaded.

    Raises:
        ValueError: for an ONNX file that onnxruntime could not run on a CPU.
        ImportError: if packages are missing, or PyTorch is too old.
    """
    require_recent_torch()
    if format == "onnx" and precision == "bf16":
        raise ValueError("onnxruntime can't run bf16 on a CPU; choose --precision 16, or --format torch.")
    if format == "onnx":
        require_onnx()


def describe(explainer: Explainer, indices: list[int] | None, precision: Precision) -> dict[str, Any]:
    """What someone who has only the file must know."""
    card = explainer.card
    return {
        "classes": [card.classes[index] for index in (range(len(card.classes)) if indices is None else indices)],
        "image_size": card.image_size,
        "input": {INPUT: "float32 [B,3,H,W], RGB in [0, 1]; normalisation is within"},
        "output": {OUTPUT: "float32 [B,C,H,W], class masks in [0, 1]"},
        "precision": precision,
        "trained_with": explainer.origin.command,
    }


def refuse_other_masks(file: Path, found: dict[str, float], precision: Precision) -> None:
    """Remove a file whose masks are not those of PyTorch.

    Raises:
        ValueError: with the differences.
    """
    wrong = {shape: difference for shape, difference in found.items() if not difference <= TOLERANCE[precision]}
    if wrong:
        file.unlink()
        raise ValueError(
            f"The exported masks differ from PyTorch's by more than {TOLERANCE[precision]:g}, by shape of the images: "
            f"{wrong}; {file} was removed. Try --precision 32, or the other --format."
        )


def _versions(format: Format) -> dict[str, Any]:
    return {"versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES[format]}}}


if __name__ == "__main__":
    run_command(main)
