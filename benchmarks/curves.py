"""Seconds per image of the insertion and deletion curves against the floor: nothing but the classifier's passes.

`python benchmarks/curves.py --architectures resnet50 vgg16 --output benchmarks/curves.csv`

Both curves of a batch are one call: S + 1 images each for every image, in chunks of several. Its passes are recorded
once, and the floor repeats them on random images, in the same batch sizes, layout and precision. On top of it the call
sorts each map's pixels and makes the baseline image, both once, mixes the two images at every point, and reads off the
target's probability.

Curves and floor take turns; seconds are medians over the rounds, the ratio is the median of the rounds' ratios. Weights
and maps are random, the images photographs.
"""

import argparse

import torch
from floor import Contender, Row, alternate, floor, row  # beside this file, where Python looks first
from methods import check_common, common_options, every_classifier, photographs, report, write
from torch import Tensor

from explainer.explanandum import Explanandum
from explainer.metrics.curves import CurveOptions, insertion_deletion_curves


def measure(explanandum: Explanandum, step: float, options: argparse.Namespace, *, bf16: bool) -> list[Row]:
    """The row of one step, for both curves together."""
    device, curves = next(explanandum.parameters()).device.type, CurveOptions(step=step, baseline=options.baseline)
    image = photographs(explanandum.card, options.batch, device)
    target = torch.arange(options.batch, device=device) % explanandum.num_classes
    attribution = torch.rand(image[:, 0].shape, device=device)

    def both() -> tuple[Tensor, Tensor]:
        return insertion_deletion_curves(explanandum, image, attribution, target, curves, curves)

    with torch.autocast(device, torch.bfloat16, enabled=bf16):  # the precision plugin's context
        ours = Contender.watched(explanandum.model, both, device)
        bare = floor(explanandum, ours.passes, image)
        bare()
        times = alternate({"curves": ours.call, "floor": bare}, options.rounds, options.seconds, device)
    head: Row = {"architecture": explanandum.card.architecture, "step": step, "baseline": options.baseline}
    head["precision"] = "bf16" if bf16 else "fp32"
    return [head | row(ours, times["curves"], times["floor"], options.batch)]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; wrong names and steps end it here, before anything is measured."""
    parser = common_options(__doc__)
    parser.add_argument("--steps", nargs="+", type=float, default=[0.01], help="shares of the pixels, or their numbers")
    parser.add_argument("--baseline", default="blur", help="what the pixels are put into, or replaced by")
    options = parser.parse_args(arguments)
    try:
        for step in options.steps:
            CurveOptions(step=step, baseline=options.baseline)
    except ValueError as error:
        parser.error(str(error))
    check_common(parser, options)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Print the rows as they come, and write them, with the machine beside them."""
    options = parse(arguments)
    rows: list[Row] = []
    for explanandum, bf16 in every_classifier(options):
        for step in options.steps:
            rows += report(measure(explanandum, step, options, bf16=bf16))
            write(rows, options.output)


if __name__ == "__main__":
    main()
