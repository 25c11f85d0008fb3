"""The folder of an evaluation with all that figures are drawn from, small and made by hand.

Pictures are 8 × 8 pixels, of images `a` and `b`; the method grad_cam has none of `b`.
"""

import json

import numpy as np
import torch

from explainer.evaluation.tiles import tile
from explainer.report.evaluation import write_files

IMAGES = {"a": ("cat", 0.91), "b": ("dog", 0.42)}
METHODS = ("explainer", "grad_cam")
LAYERS = ("fc", "conv2", "conv1")
CLASSES = ("cat", "dog", "hen")


def picture(*key, channels=1):
    """Noise in [0, 1] that differs with the key, in steps of 1/255, as PNG keeps it: [K,8,8]."""
    seed = sum((1 + place) * ord(letter) for place, letter in enumerate(str(key)))
    generator = torch.Generator().manual_seed(seed)
    return (255 * torch.rand(channels, 8, 8, generator=generator)).round() / 255


def photograph(image):
    """[8,8,3], as it is read back."""
    return picture("photograph", image, channels=3).permute(1, 2, 0).double().numpy()


def shown(*key):
    """A map [8,8], as it is read back."""
    return picture(*key)[0].double().numpy()


def bounded(name, value, width=0.02):
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def examples(methods=METHODS):
    rows = []
    for method in (*methods, "photograph", "ground_truth"):
        for image, (name, probability) in IMAGES.items():
            one = picture(method, image, channels=3 if method == "photograph" else 1)
            row = {"method": method, "image": image, "class": name, "probability": probability, "tile": tile(one)}
            rows.append(row | ({"tile": None} if (method, image) == ("grad_cam", "b") else {}))
    return rows


def top_classes():
    rows = []
    for image, (name, _) in IMAGES.items():
        empty = {"present": None, "cls": None, "ama": None}
        rows.append({"method": "explainer", "image": image, "rank": 0, "class": name, **empty, "ama": 30.5})
        for rank, other in enumerate(CLASSES, start=1):
            facts = {"present": int(other == name), "cls": 90.25 - 11 * rank, "ama": 40.5 - 10 * rank}
            rows.append({"method": "explainer", "image": image, "rank": rank, "class": other, **facts})
        rows.append({"method": "photograph", "image": image, "rank": 0, "class": name, **empty})
    rows.sort(key=lambda row: row["method"])
    return [
        row | {"tile": tile(picture(*key(row), channels=3 if row["method"] == "photograph" else 1))} for row in rows
    ]


def key(row):
    return ("photograph", row["image"]) if row["method"] == "photograph" else ("top", row["image"], row["rank"])


def curves(method, image=None):
    """Points of both curves."""
    power = 1 + METHODS.index(method) + (image == "b")
    return [
        {"method": method, **({"image": image} if image else {}), "fraction": fraction}
        | {"insertion": 0.9 * fraction ** (1 / power), "deletion": 0.9 * (1 - fraction) ** power}
        for fraction in (0.0, 0.25, 0.5, 1.0)
    ]


def mean_curves(methods=METHODS):
    return [
        {"method": method, "fraction": row["fraction"]}
        | bounded("insertion", row["insertion"])
        | bounded("deletion", row["deletion"])
        for method in methods
        for row in curves(method)
    ]


def curve_examples():
    pairs = [(method, image) for method in METHODS for image in IMAGES]
    facts = {image: {"class": name, "probability": value} for image, (name, value) in IMAGES.items()}
    tiles = [
        {"method": method, "image": image, **facts[image], "tile": tile(picture(method, image))}
        for method, image in pairs
    ]
    tiles += [
        {"method": "photograph", "image": image, **facts[image], "tile": tile(picture("photograph", image, channels=3))}
        for image in IMAGES
    ]
    areas = [
        {"method": method, "image": image, "insertion": 61.25 + place, "deletion": 12.75 + place}
        for place, (method, image) in enumerate(pairs)
    ]
    points = [row for method, image in pairs for row in curves(method, image)]
    return {"curve_examples": areas, "curve_examples_curves": points, "curve_examples_tiles": tiles}


def ablation(values=(8, 16, 32), best=70.0):
    return [
        {"method": "group_cam", "option": option, "value": value}
        | bounded("insertion", best - place)
        | bounded("deletion", 10.0 + place)
        for option in ("groups", "sigma")
        for place, value in enumerate(values)
    ]


def sanity_examples(layers=LAYERS, methods=METHODS[1:]):
    rows = [
        {"method": method, "image": image, "mode": mode, "depth": depth, "layer": layer}
        | {"rank_correlation": round(1 - 0.9 * depth / len(layers), 4), "ssim": 0.5}
        | {"tile": tile(picture(mode, image, depth))}
        for method in methods
        for image in IMAGES
        for mode in ("cascading", "independent")
        for depth, layer in enumerate((None, *layers))
    ]
    rows[2] |= {"rank_correlation": None, "tile": None}
    empty = dict.fromkeys(("mode", "depth", "layer", "rank_correlation", "ssim"))
    photographs = [
        {"method": "photograph", "image": image, **empty, "tile": tile(picture("photograph", image, channels=3))}
        for image in IMAGES
    ]
    return rows + photographs


def sanity():
    return [
        {"method": "grad_cam", "mode": "cascading", "depth": depth, "layer": layer}
        | bounded("rank_correlation", 1 - depth / 4)
        | bounded("ssim", 1 - depth / 5)
        for depth, layer in enumerate(LAYERS, start=1)
    ]


def write_results(folder, classifier="vgg16", **changes):
    """All files, some of them others if asked for."""
    files = {
        "examples_tiles": examples(),
        "top_classes_tiles": top_classes(),
        "insertion_deletion_curves": mean_curves(),
        **curve_examples(),
        "ablation": ablation(),
        "sanity": sanity(),
        "sanity_examples_tiles": sanity_examples(),
    }
    write_files(files | changes, folder)
    (folder / "examples.json").write_text(json.dumps({"explanandum": classifier}))
    return folder


def is_cross(axes):
    """Whether the tile says that there is no map."""
    return not axes.images and len(axes.lines) == 2


def pictures_of(figure):
    """All tiles, the scale of colours left out; None for a cross."""
    tiles = [axes for axes in figure.axes if not axes.get_xticklabels() and (axes.images or is_cross(axes))]
    return [None if is_cross(axes) else np.asarray(axes.images[0].get_array()) for axes in tiles]
