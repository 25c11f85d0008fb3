"""Batches and maps made by hand, and tables that score them, without the evaluation's loop.

B images, C classes, H×W pixels.
"""

import torch

from datamodules.batch import Batch
from explainer.attribution.trivial import Center
from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores


def noise(*shape, seed=0):
    """Uniform in [0, 1)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_images(explanandum, image, labels, first=0, **facts):
    """Images [B,3,H,W] whose labels are lists of class indices; their names count from `first`."""
    hot = torch.zeros(len(image), explanandum.num_classes)
    for index, classes in enumerate(labels):
        hot[index, classes] = 1
    return Images(
        Batch(image, hot, tuple(f"image{first + index}" for index in range(len(image))), **facts), explanandum
    )


def named(method, name="method", **changes):
    """A method as a row."""
    return NamedMethod(name, method, name, **changes)


def class_maps(maps, asked, unit_range=False):
    """Of all maps [B,C,H,W] those that are asked [B,C]."""
    image_index, target = asked.nonzero(as_tuple=True)
    return ClassMaps(maps[image_index, target], image_index, target, unit_range)


def scores_of(table, images, maps, name="method", unit_range=False, classifier=""):
    """What a table makes of maps [B,C,H,W], of which it takes the ones that it asks for."""
    kept = [index for index, reason in enumerate(table.left_out(images)) if not reason]
    part = images.subset(kept)
    wanted = class_maps(maps[kept], table.asks(part), unit_range)
    rows = table.score(part, wanted, named(Center(images.explanandum), name, classifier=classifier))
    return MethodScores(name, dict(zip(part.names, rows, strict=True)), {}, classifier)


def own_scores(table, images, name):
    """A row that needs no method."""
    kept = [index for index, reason in enumerate(table.left_out(images)) if not reason]
    part = images.subset(kept)
    return MethodScores(name, dict(zip(part.names, table.score_own(name, part), strict=True)), {})


def together(*scores):
    """The scores of a method over several batches."""
    rows = {name: row for one in scores for name, row in one.rows.items()}
    return MethodScores(scores[0].method, rows, {}, scores[0].classifier)


def cells(row, *names):
    """Some cells of a row."""
    return [row[name] for name in names]


def numbers(row):
    """What of a row is a number."""
    return {name: value for name, value in row.items() if isinstance(value, int | float)}


def have_equal_columns(*scores):
    """Whether the rows per image of several methods fit into one CSV file."""
    return len({tuple(row) for one in scores for row in one.flat}) == 1
